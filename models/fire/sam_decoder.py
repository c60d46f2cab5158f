"""The mask decoder of Segment Anything, with tokens as its image and the last frame as its prompt."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamMaskEmbedding

from configs.fire_models import SamDecoderConfig
from models.fire.masked_layers import DownPath, mask_pyramid, place_tokens
from models.fire.pixel_decoder import PixelDecoder
from models.fire.pixel_inputs import PixelInputs, PixelReadout, PixelStack, PixelStem
from models.pretrained import load_pretrained

UPSCALING = 4
"""How much finer the mask is than the image embedding."""
IMAGE_CELLS = 64
"""Cells along the side of the image embedding for which SAM's positions were made."""


class SamDecoder(PixelDecoder):
    """SAM's mask decoder (arXiv 2304.02643) without its image encoder, its points and its quality estimate.

    Its image embedding comes from pixels and tokens at the stride of the patch; the last frame is the mask prompt; and
    as in SAM 2 (arXiv 2408.00714) finer maps of the pixel encoder are added while it upscales. Attention is masked to
    the domain, and positions count cells from the top left, so that padding changes nothing. SAM sums the product of
    upscaled embedding and mask token over channels; here the readout weighs these channels.
    """

    frequencies: Tensor

    def __init__(self, config: SamDecoderConfig, patch: int, d_model: int, pixels: PixelInputs) -> None:
        super().__init__()
        if patch % UPSCALING:
            raise ValueError(f"patch {patch} does not fit the sam decoder; use a multiple of {UPSCALING}")
        load = _pretrained_sam if config.pretrained else _random_sam
        decoder, self.prompt, frequencies = load(config)
        self.from_pretrained = config.pretrained is not None
        self.register_buffer("frequencies", frequencies)
        self.mask_decoder = _single_mask(decoder)
        stride, hidden = patch // UPSCALING, decoder.hidden_size
        widths = (hidden // 8, hidden // 4, hidden)
        self.stem = PixelStem(pixels, widths[0], stride)
        self.down = DownPath(widths, 2, place_tokens(d_model, patch, stride, len(widths)))
        self.readout = PixelReadout(widths[0], stride, config.features, pixels)

    def pretrained_modules(self) -> list[nn.Module]:
        """Return what came with pretrained weights."""
        return [self.mask_decoder, self.prompt] if self.from_pretrained else []

    def forward(self, stack: PixelStack, tokens: Tensor) -> Tensor:
        """Return (B, features, H, W)."""
        x, mask = self.stem(stack)
        masks = mask_pyramid(mask, 3)
        fine, middle, image = self.down(x, masks, tokens)
        burnt = F.avg_pool2d(stack.maps[:, :1], self.stem.stride)
        image = (image + self.prompt(burnt)) * masks[-1]
        mask_token, image = self._attend(image, masks[-1])
        decoder = self.mask_decoder
        x = decoder.upscale_layer_norm(decoder.upscale_conv1(image) + middle)
        x = decoder.activation(decoder.upscale_conv2(decoder.activation(x)) + fine)
        weights = decoder.output_hypernetworks_mlps[0](mask_token)
        return self.readout(x * weights[:, :, None, None], stack)

    def _attend(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Run the two-way transformer; return the mask token (B, hidden) and the image embedding."""
        decoder, transformer = self.mask_decoder, self.mask_decoder.transformer
        points = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        points = points.repeat(len(image), 1, 1, 1)
        keys = image.flatten(2).transpose(1, 2).unsqueeze(1)
        position = self._positions(image.shape[-2], image.shape[-1]).to(keys.dtype)
        open_keys = mask.flatten(2).unsqueeze(2) > 0
        open_keys = open_keys | ~open_keys.any(-1, keepdim=True)
        queries = points
        for layer in transformer.layers:
            queries, keys, _ = layer(queries, keys, points, position, open_keys)
        attended, _ = transformer.final_attn_token_to_image(queries + points, keys + position, keys, open_keys)
        queries = transformer.layer_norm_final_attn(queries + attended)
        return queries[:, 0, 1], keys.squeeze(1).transpose(1, 2).unflatten(2, image.shape[-2:])

    def _positions(self, rows: int, columns: int) -> Tensor:
        """Return (1, 1, rows * columns, hidden): random Fourier features of each cell's centre."""
        row, column = (torch.arange(n, device=self.frequencies.device) for n in (rows, columns))
        places = torch.stack(torch.meshgrid(column, row, indexing="xy"), -1).flatten(0, 1)
        angles = 2 * math.pi * ((2 * (places + 0.5) / IMAGE_CELLS - 1) @ self.frequencies)
        return torch.cat([angles.sin(), angles.cos()], -1)[None, None]


def _single_mask(decoder: SamMaskDecoder) -> SamMaskDecoder:
    """Keep the mask token for unambiguous prompts; drop the alternatives and the quality estimate."""
    del decoder.iou_prediction_head
    decoder.mask_tokens = nn.Embedding.from_pretrained(decoder.mask_tokens.weight.detach()[:1].clone(), freeze=False)
    decoder.output_hypernetworks_mlps = decoder.output_hypernetworks_mlps[:1]
    decoder.config._attn_implementation = "sdpa"
    return decoder


def _pretrained_sam(config: SamDecoderConfig) -> tuple[SamMaskDecoder, SamMaskEmbedding, Tensor]:
    parts = ("mask_decoder", "prompt_encoder.mask_embed", "shared_image_embedding")
    assert config.pretrained
    sam = load_pretrained(SamModel, config.pretrained, parts)
    frequencies = sam.shared_image_embedding.positional_embedding.detach().clone()
    return sam.mask_decoder, sam.prompt_encoder.mask_embed, frequencies


def _random_sam(config: SamDecoderConfig) -> tuple[SamMaskDecoder, SamMaskEmbedding, Tensor]:
    hidden, layers = config.hidden_size or 256, config.num_hidden_layers or 2
    decoder = SamMaskDecoder(SamMaskDecoderConfig(hidden_size=hidden, mlp_dim=8 * hidden, num_hidden_layers=layers))
    prompt = SamMaskEmbedding(SamPromptEncoderConfig(hidden_size=hidden))
    return decoder, prompt, torch.randn(2, hidden // 2)
