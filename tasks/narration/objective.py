"""What a narrator is trained towards: the captions of training windows, through a frozen language model."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from configs.weather_lm import JoinConfig, LanguageRecipe, NarratorRecipe
from models.weather.narrator import NarrationBatch, Narrator
from tasks.narration.dataset import (
    ControlledPairs,
    NarrationPairs,
    NarrationSample,
    PairFolders,
    collate,
    collate_controlled,
)
from tasks.narration.pairs import Windows, days_text
from tasks.narration.released import NarratorRelease, Parts, assemble, narrator_config
from tasks.training.loader import Weigher, ordered_batches
from tasks.training.objective import Objective
from tasks.training.share import Share

BATCH = 16
"""Windows of one forward pass of an evaluation."""
CHECKED_AFTER, CHECKED_OVER, FLAT = 100, 20, 0.95
"""Steps after which the loss is looked at, the last steps it is averaged over, and the share of ln V that is flat."""
FLAT_ADVICE = (
    "verify labels ignore prompts, adapter params in the optimizer, no .detach() on prompts, no no_grad wrapping the "
    "language model forward with embeds; or raise learning_rates.adapter"
)


class NarratorObjective(Objective):
    """Captions from windows, configured by folders (`store`, `training_set`, `captions`, `mae`, `language`), recipes
    (`recipe`, `language_recipe`) and `join`.
    """

    RELEASE = NarratorRelease
    PREVIEWS = "tasks.narration.previews:draw"

    def __init__(self, config: Mapping[str, Any]) -> None:
        store, training_set, captions = (Path(config[name]) for name in ("store", "training_set", "captions"))
        self._folders = PairFolders(store, training_set, captions)
        self.recipe = NarratorRecipe.model_validate(config["recipe"])
        self._join = JoinConfig.model_validate(config["join"])
        language = config["language"] and Path(config["language"])
        self._parts = Parts(Path(config["mae"]), language, LanguageRecipe.model_validate(config["language_recipe"]))
        self.tokens = self._parts.tokens()
        self._training = self._samples("train")
        self._stored: frozenset[str] = frozenset()
        self._recent: deque[float] = deque(maxlen=CHECKED_OVER)

    def _samples(self, split: str) -> NarrationPairs:
        longest = self.recipe.max_caption_tokens
        samples = self._folders.samples(split, self._join, self.tokens, self._parts.recipe, longest)
        if not len(samples):
            raise ValueError(self._why_none(split))
        return samples

    def _why_none(self, split: str) -> str:
        windows, pairs = self._folders.pairs(split, self._join)
        days = Windows(windows.store, windows.training_set).of(split)
        reasons = "; ".join(f"{count} captions: {reason}" for reason, count in pairs.unused.items())
        return (
            f"No windows of {split} have a caption ({reasons or 'there are no captions'}). Windows are anchored on "
            f"{days_text(list(days))}; widen the time, lower windows.time, or loosen captions.join"
        )

    def build(self) -> nn.Module:
        """Return the narrator, once it is sure that windows, encoder and language model go together."""
        model, mae = assemble(self._parts, self.recipe, self.tokens)
        mae.check(self._training.windows)
        self._check_prompts()
        self._stored = frozenset(name for name, p in model.named_parameters() if p.requires_grad)
        self._check_wiring(model)
        return model

    def _check_prompts(self) -> None:
        longest = max(self._training.head(k) for k in range(len(self._training)))
        if longest > self.recipe.max_prompt_tokens:
            raise ValueError(
                f"a prompt has {longest} tokens and max_prompt_tokens is {self.recipe.max_prompt_tokens}; raise it, or "
                "shorten the language's prompt"
            )

    def _check_wiring(self, model: Narrator) -> None:
        """Refuse to train where no gradient of a caption reaches the adapter."""
        nll = model(collate([self._training.sample(0, 0)])).sum()
        if nll.requires_grad:
            nll.backward()
        reached = [p.grad is not None and bool(p.grad.any()) for p in model.adapter.parameters()]
        model.zero_grad()
        if not any(reached):
            raise ValueError(
                "no gradient of a caption's loss reaches the adapter through the language model: is some of it run "
                "under no_grad, or quantised in a form without gradients?"
            )

    def groups(self, model: nn.Module) -> dict[str, list[nn.Parameter]]:
        """Return the adapter's parameters, and those of the language model that are adapted, if any."""
        assert isinstance(model, Narrator)
        adapted = [p for p in model.language.parameters() if p.requires_grad]
        return {"adapter": list(model.adapter.parameters())} | ({"language": adapted} if adapted else {})

    def stored(self, name: str) -> bool:
        """Say whether an entry is trained: everything else comes from the frozen parts."""
        return name in self._stored or name.startswith("adapter.")

    def source(self, part: str) -> NarrationPairs:
        """Return the pairs of a part."""
        return self._training if part == "train" else self._samples(part)

    @staticmethod
    def collate(samples: Sequence[NarrationSample]) -> NarrationBatch:
        """Stack windows and pad texts."""
        return collate(samples)

    def weigher(self) -> Weigher:
        """Return the function that counts caption tokens."""
        return count_tokens

    def losses(self, model: nn.Module, batch: NarrationBatch) -> dict[str, Tensor]:
        """Return the sum over caption tokens of -log p in nats."""
        return {"nll": model(batch).sum()}

    def remark(self, step: int, means: Mapping[str, float]) -> str:
        """Say once how many captions are cut, and when the loss stands where a uniform guess would."""
        if step == 0 and (cut := self._training.cut()):
            return f"{cut} captions have more than {self.recipe.max_caption_tokens} tokens and are cut"
        self._recent.append(means["nll"])
        mean, uniform = sum(self._recent) / len(self._recent), math.log(len(self.tokens))
        if step != CHECKED_AFTER or mean <= FLAT * uniform:
            return ""
        return f"the loss is {mean:.2f} after {CHECKED_AFTER} steps, ln V is {uniform:.2f}: {FLAT_ADVICE}"

    def evaluate(self, model: nn.Module, share: Share) -> dict[str, float]:
        """Return nats per caption token with the true window, the weather of another date, and no soft prompts."""
        assert isinstance(model, Narrator)
        source = ControlledPairs(self._samples("validation"), self.recipe.validation_samples, seed=0)
        sums = torch.zeros(4, dtype=torch.float64)
        for own, other in ordered_batches(share, source, collate_controlled, batch_size=BATCH):
            true, shuffled, blind = controlled_nll(model, own, other)
            sums += torch.stack([x.sum().double().cpu() for x in (true, shuffled, blind, own.learned.sum())])
        true, shuffled, blind, count = share.sum(sums).tolist()
        return {
            "nll": true / count,
            "nll_shuffled": shuffled / count,
            "nll_blind": blind / count,
            "vision_gap": (shuffled - true) / count,
            "uniform_nll": math.log(len(self.tokens)),
        }

    def release_config(self) -> dict[str, Any]:
        """Return the recipes, and where the frozen parts are."""
        return narrator_config(self.recipe, self._parts)


def count_tokens(batch: NarrationBatch) -> dict[str, float]:
    """Return the number of caption tokens."""
    return {"nll": float(batch.learned.sum())}


def controlled_nll(model: Narrator, own: NarrationBatch, other: NarrationBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Return each caption's nats (B,) with its own window, with the other one's, and without vision."""
    return (
        model.caption_nll(own, model.soft_prompts(own)),
        model.caption_nll(own, model.soft_prompts(other)),
        model.caption_nll(own, None),
    )
