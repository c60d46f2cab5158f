"""EmberFormer: attention over each patch's history, then a spatial decoder that sees tokens and pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from configs.fire_models import EmberFormerConfig
from models.build import build
from models.fire.batch import FireBatch, FireSpec
from models.fire.masked_layers import Pointwise
from models.fire.output import FireOutput
from models.fire.pixel_decoder import PixelDecoder
from models.fire.pixel_inputs import PixelInputs
from models.fire.token_transformer import SpatialTransformer, TemporalTransformer, TokenEmbedder
from models.reads import reads_are_free


class EmberFormer(nn.Module):
    """Next-frame prediction from patch histories (B, T, N) and the last frame's pixels (B, H, W).

    On a CPU only valid tokens are computed: those of the whole batch are packed, so that empty patches and padding cost
    nothing. On a GPU, which would have to wait for their number, all are.
    """

    def __init__(self, config: EmberFormerConfig, spec: FireSpec) -> None:
        super().__init__()
        layer = (config.feedforward, config.dropout)
        self.embedder = TokenEmbedder(spec.static, config.d_model, config.max_history)
        self.temporal = TemporalTransformer(config.d_model, config.nhead, config.num_layers, *layer)
        self.spatial = (
            SpatialTransformer(config.d_model, config.nhead, config.spatial_layers, *layer)
            if config.spatial_layers
            else None
        )
        self.norm = nn.LayerNorm(config.d_model)
        self.pixels = PixelInputs(spec)
        self.decoder: PixelDecoder = build(config.decoder, spec.patch, config.d_model, self.pixels)
        features = config.decoder.features
        self.head: nn.Module = build(config.head, features)
        self.edge = Pointwise(features, 1) if config.edge_weight > 0 else None

    def forward(self, batch: FireBatch) -> FireOutput:
        """Return logits (B, H, W); with an edge head also `auxiliary["edge"]`."""
        features = self.features(batch)
        auxiliary = {} if self.edge is None else {"edge": self.edge(features).squeeze(1).float()}
        return FireOutput(self.head(features, batch), auxiliary)

    def features(self, batch: FireBatch) -> Tensor:
        """Return (B, F, H, W), what the heads read."""
        return self.decoder(self.pixels(batch), self.tokens(batch))

    def tokens(self, batch: FireBatch) -> Tensor:
        """Return (B, d, Gy, Gx): the state of each patch, zero where it is invalid."""
        keep = _never_empty(batch.token_valid)
        if reads_are_free(keep):
            sample, token = keep.nonzero(as_tuple=True)
            packed = self.temporal(*self.embedder(batch, sample, token))
            x = packed.new_zeros(*keep.shape, packed.shape[-1]).index_put((sample, token), packed)
        else:
            places = torch.meshgrid(*(torch.arange(size, device=keep.device) for size in keep.shape), indexing="ij")
            sample, token = (place.flatten() for place in places)
            x = self.temporal(*self.embedder(batch, sample, token))
            x = x.view(*keep.shape, -1).masked_fill(~keep.unsqueeze(-1), 0.0)
        if self.spatial is not None:
            x = self.spatial(x, keep, batch.grid)
        x = self.norm(x).masked_fill(~batch.token_valid.unsqueeze(-1), 0.0)
        return x.transpose(1, 2).unflatten(2, batch.grid)

    @torch.no_grad()
    def attention(self, batch: FireBatch) -> list[Tensor]:
        """Return per temporal layer (B, N, heads, T): how the last frame attends to the frames of its history.

        Rows of valid tokens add up to 1; those of invalid tokens, and frames before `max_history`, are zero.
        """
        sample, token = batch.token_valid.nonzero(as_tuple=True)
        weights = self.temporal.attention(*self.embedder(batch, sample, token))
        frames = batch.time_valid.shape[1]
        maps = []
        for layer in weights:
            whole = layer.new_zeros(*batch.token_valid.shape, layer.shape[1], frames)
            whole[sample, token, :, frames - layer.shape[2] :] = layer
            maps.append(whole)
        return maps


def _never_empty(token_valid: Tensor) -> Tensor:
    """Return the (B, N) mask with the first token added to samples that have none, so that no attention is empty."""
    empty = ~token_valid.any(1)
    keep = token_valid.clone()
    keep[:, 0] |= empty
    return keep
