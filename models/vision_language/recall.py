"""An episodic memory of images: written as they are seen, asked in words, and told to the language model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.vision_language import RecallConfig
from models.vision_language.gaussian_memory import GaussianMemory, MemoryState
from models.vision_language.reminded import Reminder
from models.vision_language.scope import ScopeNet


@dataclass(frozen=True)
class Reading:
    """What some questions find in a memory."""

    query: Tensor
    """(B, Q, C)"""
    address: Tensor
    """(B, Q, slots), the mean of the addressing weights."""
    content: Tensor
    """(B, Q, C)"""
    scope: Tensor
    """(B, Q), the logit of there being an answer in the memory."""

    def of(self, episodes: Tensor, questions: Tensor) -> Reading:
        """Return one reading for each row, as (1, rows): of question `questions[k]` of episode `episodes[k]`."""
        return Reading(*(x[episodes, questions][None] for x in (self.query, self.address, self.content, self.scope)))


class Recall(nn.Module):
    """Codes of images, cues of questions, the memory between them, and what its readings become.

    A code is the sum of what an image shows and of when it was seen; half of it therefore brings back the other half.
    `shape` is (layers, kv_heads, head_dim) of a language model that takes keys and values, or None for a prefix.
    """

    when: Tensor

    def __init__(
        self, config: RecallConfig, width: int, text_width: int, scale: float, shape: tuple[int, int, int] | None
    ) -> None:
        super().__init__()
        self.vectors, self._shape = config.vectors, shape
        memory = config.memory
        self.memory = GaussianMemory(memory.slots, width, memory.noise, memory.solver, memory.ben_cohen_steps)
        self.content = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        # Fixed: what tells steps apart must not drift while memories of before are in use.
        self.register_buffer("when", F.normalize(torch.randn(config.steps, width), dim=-1))
        self.cue = nn.Sequential(nn.Linear(text_width + width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.scope = ScopeNet(width)
        self.norm = nn.LayerNorm(width)
        outputs = width if shape is None else 2 * shape[0] * shape[1] * shape[2]
        self.tell = nn.Linear(width, self.vectors * outputs)
        self.scale = nn.Parameter(torch.tensor(scale)) if shape is None else None

    @property
    def steps(self) -> int:
        """Images that are told apart by when they were seen; the next one takes the place of the first."""
        return len(self.when)

    def codes(self, pooled: Tensor, first: Tensor) -> Tensor:
        """Return codes (B, E, C) of E images in a row, given their pooled prefixes (B, E, K, C).

        Before them `first` (B,) others were seen.
        """
        places = first[:, None] + torch.arange(pooled.shape[1], device=pooled.device)
        return (self.contents(pooled) + self.when[places % self.steps]) / 2**0.5

    def write_next(self, pooled: Tensor, state: MemoryState | None, seen: int) -> MemoryState:
        """Return a memory of `seen` images after one more with a pooled prefix (K, C).

        When there is no place for it, the oldest image makes room: its time recalls its code, which is forgotten.
        """
        if state is not None and seen >= self.steps:
            _, oldest = self.memory.complete(self.when[None, None, seen % self.steps] / 2**0.5, state)
            state = self.memory.forget(oldest, state)
        first = torch.tensor([seen], device=pooled.device)
        return self.memory.write(self.codes(pooled[None, None], first), state=state)

    def contents(self, pooled: Tensor) -> Tensor:
        """Return what images with pooled prefixes (..., K, C) put into their codes, unit vectors (..., C)."""
        return F.normalize(self.content(pooled.mean(-2)), dim=-1)

    def cues(self, features: Tensor, now: Tensor) -> Tensor:
        """Return queries (..., C) of questions with features (..., D).

        They are asked while the image `now` (...) is looked at, or would be the next: that before is the previous one.
        """
        return F.normalize(self.cue(torch.cat([features, self.when[now % self.steps]], -1)), dim=-1)

    def step_of(self, queries: Tensor) -> Tensor:
        """Return the step that each query (..., C) is nearest to."""
        return (queries @ self.when.t()).argmax(-1)

    def read(self, queries: Tensor, state: MemoryState, generator: torch.Generator | None = None) -> Reading:
        """Return what queries (B, Q, C) find; random only with a generator."""
        address, content = self.memory.complete(queries, state, generator)
        return Reading(queries, address, content, self.scope(queries, content))

    def reminder(self, content: Tensor, scope: Tensor) -> Reminder:
        """Return keys and values for rows with contents (B, C) and scope logits (B,)."""
        assert self._shape is not None
        layers, heads, width = self._shape
        told = self.tell(self.norm(content)).view(len(content), self.vectors, 2, layers, heads, width)
        keys, values = told.permute(2, 3, 0, 4, 1, 5)
        return Reminder(keys, values, F.logsigmoid(scope)[:, None].expand(-1, self.vectors))

    def prefix(self, content: Tensor) -> Tensor:
        """Return tokens (B, vectors, C) on the scale of the language model's embeddings."""
        assert self.scale is not None
        told = self.tell(self.norm(content)).unflatten(-1, (self.vectors, -1))
        return self.scale * F.layer_norm(told, told.shape[-1:])
