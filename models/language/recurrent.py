"""What recurrent transformers (HRM, arXiv 2506.21734; TRM, arXiv 2510.04871) are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

NORM_EPS = 1e-5
ROPE_THETA = 10_000.0
_STD_OF_CUT_NORMAL = 0.8796256610342398
"""Standard deviation of a standard normal that is cut at -2 and 2."""


class Past:
    """Keys and values of all that was read, call by call of attention, for the tokens that are read next.

    The states of a token depend on no later one, in any call, so what was computed for it stays true.
    """

    def __init__(self, room: int) -> None:
        """Keep up to `room` bytes of what is read first; if that is more, keep nothing."""
        self.chunks: list[int] = []
        """Tokens of each reading."""
        self.full = False
        """Whether there was no room."""
        self._room = room
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._call = 0

    def begin(self, tokens: int) -> None:
        """Start to read so many tokens."""
        assert not self.full, "nothing was kept"
        self.chunks.append(tokens)
        self._call = 0

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (B, heads, T, width) of all tokens in this call, those of new ones given."""
        if len(self.chunks) > 1:
            older_key, older_value = self._kept[self._call]
            key, value = torch.cat([older_key, key], 2), torch.cat([older_value, value], 2)
            self._kept[self._call] = (key, value)
        elif not self.full:
            self._kept.append((key, value))
            self._room -= key.nbytes + value.nbytes
            if self._room < 0:
                self.full = True
                self._kept.clear()
        self._call += 1
        return key, value


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions (arXiv 2104.09864) and without biases."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv_proj = nn.Linear(hidden, 3 * hidden, bias=False)
        self.o_proj = nn.Linear(hidden, hidden, bias=False)

    def forward(
        self, x: Tensor, rotation: Tensor, mask: Tensor | None, causal: bool, past: Past | None = None
    ) -> Tensor:
        """Return (B, S, d); `rotation` (2, S, d / heads), `mask` (B, 1, S, T) is true where a key may be seen.

        The T keys are those of the S tokens, after those of the `past`.
        """
        query, key, value = self.qkv_proj(x).unflatten(-1, (3 * self.heads, -1)).transpose(1, 2).chunk(3, 1)
        query, key = _rotate(query, rotation), _rotate(key, rotation)
        if past is not None:
            key, value = past.extend(key, value)
        mixed = F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal and mask is None)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """Gated feed-forward layer (arXiv 2002.05202)."""

    def __init__(self, hidden: int, expansion: float) -> None:
        super().__init__()
        inner = -(-round(expansion * hidden * 2 / 3) // 256) * 256
        self.gate_up_proj = nn.Linear(hidden, 2 * inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, S, d)."""
        gate, up = self.gate_up_proj(x).chunk(2, -1)
        return self.down_proj(F.silu(gate) * up)


class Block(nn.Module):
    """Attention and feed-forward layer, each followed by a norm over its sum with the residual."""

    def __init__(self, hidden: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.attention = Attention(hidden, heads)
        self.mlp = SwiGLU(hidden, expansion)

    def forward(
        self, x: Tensor, rotation: Tensor, mask: Tensor | None, causal: bool, past: Past | None = None
    ) -> Tensor:
        """Return (B, S, d); arguments as for `Attention`."""
        x = _rms_norm(x + self.attention(x, rotation, mask, causal, past))
        return _rms_norm(x + self.mlp(x))


class Level(nn.Module):
    """Blocks over a state to which a signal is added: the H and the L module of HRM, the net of TRM."""

    def __init__(self, hidden: int, heads: int, expansion: float, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(hidden, heads, expansion) for _ in range(layers))
        self.recompute = False

    def forward(
        self,
        state: Tensor,
        signal: Tensor,
        rotation: Tensor,
        mask: Tensor | None,
        causal: bool,
        past: Past | None = None,
    ) -> Tensor:
        """Return the new state (B, S, d); arguments as for `Attention`."""
        x = state + signal
        for layer in self.layers:
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(layer, x, rotation, mask, causal, use_reentrant=False)
            else:
                x = layer(x, rotation, mask, causal, past)
        return x


def _rms_norm(x: Tensor) -> Tensor:
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return F.rms_norm(wide, x.shape[-1:], eps=NORM_EPS).to(x.dtype)


def rotation_table(positions: int, width: int) -> Tensor:
    """Return (2, positions, width): cosine and sine of each angle."""
    rates = ROPE_THETA ** (-torch.arange(0, width, 2) / width)
    angles = (torch.arange(positions)[:, None] * rates).repeat(1, 2)
    return torch.stack([angles.cos(), angles.sin()])


def _rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn the pairs of x (B, heads, S, width); a pair is a channel of the first half and one of the second."""
    cosine, sine = rotation.to(x.dtype)
    first, second = x.chunk(2, -1)
    return x * cosine + torch.cat([-second, first], -1) * sine


def cut_normal(tensor: Tensor, std: float) -> Tensor:
    """Fill with a normal that is cut at twice its scale and has the standard deviation `std` after the cut."""
    scale = std / _STD_OF_CUT_NORMAL
    return nn.init.trunc_normal_(tensor, std=scale, a=-2 * scale, b=2 * scale)
