"""Packed layers: weights lie as bytes, and every forward pass computes from them.

A block of rows at a time is unpacked to integers and multiplied; a whole weight never exists. With inputs of 8 bits the
sums are exact, so a packed layer gives the bits of the layer that was trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.quantise import Activations, Layout, RowKind
from models.constants import constant
from models.grids import (
    INT8,
    ROW_LIMITS,
    TERNARY,
    Limits,
    blocks,
    linear_by_blocks,
    nearest,
    product,
    row_scale,
    scaled,
    spread,
    token_scale,
)
from models.ternary import (
    Int8Linear,
    Quantised,
    QuantisedEmbedding,
    QuantisedLinear,
    RowLinear,
    TernaryLinear,
    quantised_layers,
    replace_layers,
)


@dataclass(frozen=True)
class Digits:
    """How integers lie in bytes: as digits of a base, the first one lowest."""

    base: int
    per_byte: int
    zero: int
    """Digit that stands for 0."""

    def bytes_for(self, columns: int) -> int:
        """Return the bytes of a row."""
        return -(-columns // self.per_byte)


TRITS5, BITS2, NIBBLES, BYTES = Digits(3, 5, 1), Digits(4, 4, 1), Digits(16, 2, 8), Digits(256, 1, 128)
LAYOUTS: dict[Layout, Digits] = {"trits5": TRITS5, "bits2": BITS2}


def row_digits(kind: RowKind, layout: Layout) -> Digits:
    """Return how the rows of an embedding lie in bytes."""
    return {"int8": BYTES, "int4": NIBBLES, "ternary": LAYOUTS[layout]}[kind]


def encode(integers: Tensor, digits: Digits) -> Tensor:
    """Return integers (R, C) as bytes, uint8 (R, ceil(C / per_byte)); the rest of the last byte stands for 0."""
    shifted = integers.int() + digits.zero
    padded = F.pad(shifted, (0, -shifted.shape[1] % digits.per_byte), value=digits.zero)
    places = digits.base ** torch.arange(digits.per_byte, dtype=torch.int32, device=integers.device)
    return (padded.unflatten(1, (-1, digits.per_byte)) * places).sum(-1).to(torch.uint8)


def decode(codes: Tensor, digits: Digits, columns: int) -> Tensor:
    """Return the integers (R, columns) of bytes (R, B), as float32."""
    if digits.per_byte == 1:
        return codes.float() - digits.zero
    return F.embedding(codes.int(), decoding_table(digits, codes.device)).flatten(1)[:, :columns]


@constant
def decoding_table(digits: Digits, device: torch.device) -> Tensor:
    """Return the integers of every byte, float32 (base ** per_byte, per_byte); 243 x 5 for five trits."""
    byte = torch.arange(digits.base**digits.per_byte, device=device)[:, None]
    places = digits.base ** torch.arange(digits.per_byte, device=device)
    return (byte // places % digits.base - digits.zero).float()


class Packed(nn.Module):
    """A layer whose weight lies as bytes. It passes no gradient."""

    def _refuse_gradient(self, x: Tensor) -> None:
        if x.requires_grad and torch.is_grad_enabled():
            raise ValueError("packed layers pass no gradient; train the model before it is packed")


class PackedLinear(Packed):
    """A ternary linear layer, from its bytes: `codes` uint8 (out, ceil(in / 5 or 4)), `scale` () and `bias` (out)."""

    LIMITS: Limits = TERNARY
    codes: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, layer: QuantisedLinear, digits: Digits) -> None:
        super().__init__()
        self.out_features, self.in_features = layer.out_features, layer.in_features
        self.activations: Activations = layer.activations
        self.digits = digits
        weight, scale = layer.weight.detach(), layer.scale()
        self.register_buffer("codes", encode(nearest(weight / scale, self.LIMITS), digits))
        self.register_buffer("scale", scale.squeeze(-1))
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())
        self.eval()

    @classmethod
    def of(cls, layer: TernaryLinear, layout: Layout = "trits5") -> PackedLinear:
        """Return the packed form of a layer."""
        return cls(layer, LAYOUTS[layout])

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) of (..., in)."""
        self._refuse_gradient(x)
        token = None
        if self.activations == "int8":
            token = token_scale(x)
            x = nearest(x / token, INT8)
        total = x.new_empty(*x.shape[:-1], self.out_features)
        for rows in blocks(self.out_features, self.in_features):
            weight = decode(self.codes[rows], self.digits, self.in_features)
            total[..., rows] = F.linear(x, weight) if token is None else product(x, weight, self.LIMITS)
        return scaled(total, self.scale, token, self.bias)


class PackedInt8Linear(PackedLinear):
    """An int8 linear layer, from its bytes: `codes` uint8 (out, in), 128 for 0, `scale` (out) and `bias` (out)."""

    LIMITS = INT8

    @classmethod
    def of(cls, layer: Int8Linear) -> PackedInt8Linear:  # type: ignore[override]  # bytes have one layout
        """Return the packed form of a layer."""
        return cls(layer, BYTES)


class PackedRows(nn.Module):
    """The rows of an embedding as bytes, with float16 scales; a tied head holds the same rows.

    `codes` is uint8 (R, B). `scale` is (R, 1), or (R, ceil(C / 32)) for int4.
    """

    codes: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, kind: RowKind, digits: Digits) -> None:
        super().__init__()
        rows, self.columns = weight.shape
        self.digits = digits
        parts = []
        for part in blocks(rows, self.columns):
            scale = row_scale(weight[part], kind)
            integers = nearest(weight[part] / spread(scale, self.columns), ROW_LIMITS[kind])
            parts.append((encode(integers, digits), scale))
        codes, scales = zip(*parts, strict=True)
        self.register_buffer("codes", torch.cat(codes))
        self.register_buffer("scale", torch.cat(scales))

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, index: Tensor | slice) -> Tensor:
        """Return rows as float32 (N, C); `index` is a slice, or ids (N,)."""
        integers = decode(self.codes[index], self.digits, self.columns)
        return spread(self.scale[index], self.columns) * integers


class PackedEmbedding(Packed):
    """An embedding that unpacks the rows that it is asked for."""

    def __init__(self, rows: PackedRows) -> None:
        super().__init__()
        self.rows = rows
        self.num_embeddings, self.embedding_dim = len(rows), rows.columns
        self.eval()

    @classmethod
    def of(cls, layer: QuantisedEmbedding, layout: Layout = "trits5") -> PackedEmbedding:
        """Return the packed form of a layer."""
        return cls(PackedRows(layer.weight.detach(), layer.kind, row_digits(layer.kind, layout)))

    def forward(self, ids: Tensor) -> Tensor:
        """Return (..., C) of ids (...)."""
        return self.rows.take(ids.flatten()).view(*ids.shape, self.embedding_dim)


class PackedRowLinear(Packed):
    """A linear layer, from rows of its own or those of the embedding that it is tied to."""

    bias: Tensor | None

    def __init__(self, rows: PackedRows, bias: Tensor | None) -> None:
        super().__init__()
        self.rows = rows
        self.out_features, self.in_features = len(rows), rows.columns
        self.register_buffer("bias", bias)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) of (..., in)."""
        self._refuse_gradient(x)
        return linear_by_blocks(x, (self.out_features, self.in_features), self.rows.take, self.bias)


def pack(model: nn.Module, layout: Layout = "trits5") -> None:
    """Turn every layer that trains quantised into its packed form, in place, and freeze the rest.

    The state of the packed model is what a file of it holds. A model without memory (on the device `meta`) gets the
    same form, to be filled from such a file.

    Raises ValueError where there is no such layer, or its strength is below 1.
    """
    layers = quantised_layers(model)
    for layer in layers:
        if not layer.strength.is_meta and layer.strength.item() != 1:
            raise ValueError(
                f"a layer has a strength of {layer.strength.item():.3g}; train until it is 1, or set it to 1"
            )
    tied: dict[int, PackedRows] = {}
    replace_layers(model, {layer: _packed(layer, layout, tied) for layer in layers})
    model.requires_grad_(False)


def _packed(layer: Quantised, layout: Layout, tied: dict[int, PackedRows]) -> nn.Module:
    if isinstance(layer, TernaryLinear):
        return PackedLinear.of(layer, layout)
    if isinstance(layer, Int8Linear):
        return PackedInt8Linear.of(layer)
    assert isinstance(layer, QuantisedEmbedding | RowLinear)
    key = id(layer.weight)
    if key not in tied:
        tied[key] = PackedRows(layer.weight.detach(), layer.kind, row_digits(layer.kind, layout))
    if isinstance(layer, QuantisedEmbedding):
        return PackedEmbedding(tied[key])
    return PackedRowLinear(tied[key], None if layer.bias is None else layer.bias.detach())
