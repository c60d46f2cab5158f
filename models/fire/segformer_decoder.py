"""The decode head of SegFormer over a pyramid of pixels and tokens."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SegformerConfig, SegformerForSemanticSegmentation
from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

from configs.fire_models import SegformerDecoderConfig
from models.fire.masked_layers import ChannelNorm, DownPath, mask_pyramid, place_tokens
from models.fire.pixel_decoder import PixelDecoder
from models.fire.pixel_inputs import PixelInputs, PixelReadout, PixelStack, PixelStem
from models.pretrained import freeze_statistics, load_pretrained

STEM = 4
"""Stride of the finest map of the pyramid, as in SegFormer."""
B0_SIZES = (32, 64, 160, 256)
B0_DECODER = 256


class SegformerDecoder(PixelDecoder):
    """SegFormer's all-MLP decode head (arXiv 2105.15203); its encoder and its classifier are not built.

    A small convolutional encoder makes the pyramid at strides 4, 8, 16 ... from pixels, and tokens join it where the
    stride is the patch. Maps enter the head layer-normed, as SegFormer's own do. The head keeps the statistics of its
    batch norm (see `FrozenBatchNorm`).
    """

    def __init__(self, config: SegformerDecoderConfig, patch: int, d_model: int, pixels: PixelInputs) -> None:
        super().__init__()
        self.decode = _decode_head(config)
        self.from_pretrained = config.pretrained is not None
        sizes = tuple(self.decode.config.hidden_sizes)
        self.stem = PixelStem(pixels, sizes[0], STEM)
        self.down = DownPath(sizes, 1, place_tokens(d_model, patch, STEM, len(sizes)))
        self.norms = nn.ModuleList(ChannelNorm(size) for size in sizes)
        self.readout = PixelReadout(self.decode.config.decoder_hidden_size, STEM, config.features, pixels)

    def pretrained_modules(self) -> list[nn.Module]:
        """Return what came with pretrained weights."""
        return [self.decode] if self.from_pretrained else []

    def forward(self, stack: PixelStack, tokens: Tensor) -> Tensor:
        """Return (B, features, H, W)."""
        x, mask = self.stem(stack)
        height, width = x.shape[-2:]
        levels = len(self.norms)
        masks = mask_pyramid(_with_border(mask, levels), levels)
        maps = self.down(_with_border(x, levels), masks, tokens)
        maps = [norm(level) * mask for norm, level, mask in zip(self.norms, maps, masks, strict=True)]
        return self.readout(self.decode(maps)[..., :height, :width], stack)


def _with_border(x: Tensor, levels: int) -> Tensor:
    """Pad with zeros to whole pixels of the coarsest map, and one more of them.

    The head interpolates bilinearly: at the last pixel it then finds zeros, as it does where a batch is padded further.
    """
    block = 1 << (levels - 1)
    rows, columns = (-size % block + block for size in x.shape[-2:])
    return F.pad(x, (0, columns, 0, rows))


def _decode_head(config: SegformerDecoderConfig) -> SegformerDecodeHead:
    if config.pretrained:
        head = load_pretrained(SegformerForSemanticSegmentation, config.pretrained, ("decode_head",)).decode_head
    else:
        sizes = list(config.hidden_sizes or B0_SIZES)
        hidden = config.decoder_hidden_size or B0_DECODER
        head = SegformerDecodeHead(
            SegformerConfig(hidden_sizes=sizes, num_encoder_blocks=len(sizes), decoder_hidden_size=hidden)
        )
    head.classifier = nn.Identity()
    freeze_statistics(head)
    return head
