"""What a vision-language model is trained towards: texts with their images, and texts that only a memory can tell."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from configs.microvlm import ALWAYS, VlmDesign, VlmStage
from configs.vision_language import Square
from models.language.adaptation import adapt
from models.language.transformers_lm import TransformersLM
from models.ternary import quantise, set_strength, strength_at
from models.vision_language.alignment import cap_temperature
from models.vision_language.batch import VlmBatch
from models.vision_language.microvlm import MicroVLM, Outcome, TextLogits
from storage.image_texts import read_texts
from tasks.quantise.distillation import attention_states, logits_distillation, relation_distillation
from tasks.retrieval import recall_at
from tasks.training.loader import Weigher, ordered_batches
from tasks.training.objective import Objective
from tasks.training.release import CONFIG
from tasks.training.share import Share, gather_with_gradient
from tasks.vision_language.released import FOUR_BIT, VlmParts, VlmRelease, assemble, vlm_config
from tasks.vision_language.samples import (
    Asking,
    EpisodePairs,
    VlmSample,
    VlmSamples,
    collate,
    collate_pairs,
    count_terms,
)
from tasks.vision_language.scoring import score_batch

PAIRS = 4
"""Pairs of episodes of one forward pass of an evaluation."""
LOOKED_AT = 2000
"""Texts whose length is looked at."""
UNLIKE_EXACT = ("int4", "ternary")
"""Kinds of embeddings that are too far from exact ones to be rounded without training."""


class VlmObjective(Objective):
    """Captions and answers, configured by folders (`shards`, `index`, `language`, `start`), `design` and `stage`."""

    RELEASE = VlmRelease
    PREVIEWS = "tasks.vision_language.previews:draw"
    WATCHED = "tasks.vision_language.previews:watch"

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._shards, self._index = Path(config["shards"]), Path(config["index"])
        self._start = config["start"] and Path(config["start"])
        self.design = VlmDesign.model_validate(config["design"])
        self.settings = VlmStage.model_validate(config["stage"])
        self._parts = VlmParts(config["language"] and Path(config["language"]), self.design)
        self.tokens = self._parts.tokens()
        self.coefficients = self.settings.weights.model_dump()
        settings, steps = self.settings, self.design.model.recall.steps
        self.asking = Asking(self.tokens, self.design.phrases, settings.episode, settings.longest, steps)
        self._elsewhere: frozenset[str] = frozenset()
        self._square: Square
        by_words = ["fine"] if self.design.model.alignment.by_words else []
        taught = ["distil", *(["relations"] if self.settings.weights.relations else [])]
        self._terms = [*ALWAYS, *by_words, *(taught if self.settings.quantise else [])]
        self._teacher: MicroVLM | None = None

    def build(self) -> nn.Module:
        """Return the model, new or as the stage before released it, with what this stage trains unfrozen."""
        model = self._begun()
        model.requires_grad_(False)
        self._elsewhere = self._kept_elsewhere(model)
        if self.settings.quantise:
            self._teacher = copy.deepcopy(model).eval()
            kinds = quantise(model, self.settings.quantise)
        if self.settings.four_bit:
            adapt(model.language, FOUR_BIT)
            self._elsewhere |= {name for name in model.state_dict() if name.startswith("language.")}
        for part in self._trained(model).values():
            for module in part:
                module.requires_grad_(True)
        if self.settings.quantise:
            _refuse_frozen(model, kinds)
        self._elsewhere -= {name for name, p in model.named_parameters() if p.requires_grad}
        self._square = model.vision.square
        self._validation()  # tells now what an evaluation would lack after an epoch
        return model

    def _begun(self) -> MicroVLM:
        """Return a new model, or that of the stage before with its language model as exact as it was."""
        if not self._start:
            return assemble(self._parts, self.tokens)
        release = VlmRelease.from_release(self._start)
        if release.four_bit:
            release.network.language = self._parts.language_model(self.tokens)
        return release.network

    def _trained(self, model: MicroVLM) -> dict[str, list[nn.Module]]:
        """Return the modules that this stage trains, by parameter group."""
        found: dict[str, list[nn.Module]] = {
            "adapter": [model.adapter],
            "alignment": [model.alignment],
            "recall": [model.recall],
        }
        if self.settings.vision:
            found["vision"] = [model.vision]
        if count := self.settings.language_layers:
            found["language"] = list(last_layers(model.language, count))
            if self.settings.quantise and self.settings.quantise.embedding in UNLIKE_EXACT:
                assert isinstance(model.language, TransformersLM)
                found["language"].append(model.language.hf.get_input_embeddings())
        return found

    def _kept_elsewhere(self, model: MicroVLM) -> frozenset[str]:
        """Return the entries that the language model's asset or pretrained weights have as they are here."""
        design = self.design.model
        language = self._parts.language or getattr(design.language, "pretrained", None)
        known = {"language.": language, "vision.": design.vision.pretrained}
        parts = tuple(part for part, source in known.items() if source)
        frozen = {name for name in model.state_dict() if name.startswith(parts)}
        if self._start:
            frozen &= set(json.loads((self._start / CONFIG).read_text())["left_out"])
        return frozenset(frozen)

    def groups(self, model: nn.Module) -> dict[str, list[nn.Parameter]]:
        """Return what is trained, by the parts of the model."""
        assert isinstance(model, MicroVLM)
        return {
            group: [p for module in modules for p in module.parameters() if p.requires_grad]
            for group, modules in self._trained(model).items()
        }

    def stored(self, name: str) -> bool:
        """Say whether an entry is trained here or was before; what is frozen and lies elsewhere is not stored."""
        return name not in self._elsewhere

    def samples(self, split: str) -> VlmSamples:
        """Return the texts of a split with their images."""
        return VlmSamples(self._shards, self._index, split, self._square, self.asking)

    def source(self, part: str) -> VlmSamples:
        """Return the samples of a part."""
        return self.samples(part)

    @staticmethod
    def collate(samples: Sequence[VlmSample]) -> VlmBatch:
        """Make episodes of samples."""
        return collate(samples)

    def weigher(self) -> Weigher:
        """Return the function that counts what the terms are means over."""
        return TermCounts(tuple(self._terms))

    def losses(self, model: nn.Module, batch: VlmBatch) -> dict[str, Tensor]:
        """Return the sums of all terms, in nats."""
        assert isinstance(model, MicroVLM)
        if self.settings.quantise:
            set_strength(model, strength_at(self.settings.quantise, self.moment.step, self.moment.steps))
        cap_temperature(model.alignment.log_scale)
        with self._states(model) as states:
            found: Outcome = model(batch, gather_with_gradient)
        terms = {term: found.terms[term].sum() for term in self._terms if term in found.terms}
        if self._teacher is None:
            return terms
        self._teacher.to(batch.images.device)
        with torch.no_grad(), self._states(self._teacher) as exact_states:
            exact: Outcome = self._teacher(batch)
        terms["distil"] = _logits_apart(found.logits, exact.logits, batch)
        if "relations" in self._terms:
            assert isinstance(model.language, TransformersLM)
            heads = model.language.hf.config.num_key_value_heads
            terms["relations"] = _relations_apart(states, exact_states, batch, heads)
        return terms

    def _states(self, model: MicroVLM) -> AbstractContextManager[list[list[Tensor]]]:
        """Collect the attention of the last layer where it is compared."""
        if "relations" not in self._terms:
            return nullcontext([])
        assert isinstance(model.language, TransformersLM), "vision-language models have a decoder of transformers"
        return attention_states(model.language.last_block)

    def remark(self, step: int, means: Mapping[str, float]) -> str:
        """Say once how many texts are cut."""
        if step:
            return ""
        texts = read_texts(self._shards, self._index, "train", LOOKED_AT)
        cut = sum(len(self.tokens.ids(f" {text}")) + 1 > self.settings.longest for _, text in texts)
        longest = self.settings.longest
        return f"{cut} of {len(texts)} texts have more than {longest} tokens and are cut" if cut else ""

    def evaluate(self, model: nn.Module, share: Share) -> dict[str, float]:
        """Return nats per token with the true image, another one and none, with the memory and without, and recall
        of images by texts and back.
        """
        assert isinstance(model, MicroVLM)
        if self.settings.quantise:
            set_strength(model, 1.0)
        source = self._validation()
        sums: dict[str, Tensor] = {}
        images, texts = [], []
        for batch in ordered_batches(share, source, collate_pairs, batch_size=PAIRS):
            scores = score_batch(model, batch)
            for name, value in scores.sums.items():
                sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + value.double().sum().cpu()
            images.append(scores.images)
            texts.append(scores.texts)
        names = sorted(sums)
        total = dict(zip(names, share.sum(torch.stack([sums[name] for name in names])).tolist(), strict=True))
        shown, told = (share.gather(torch.cat(vectors)).cpu() for vectors in (images, texts))
        found = recall_at(shown.double() @ told.double().t(), (1,))  # ties, as bf16 has them, count as wrong
        return {**_means(total), **found, "uniform_nll": math.log(len(self.tokens))}

    def _validation(self) -> EpisodePairs:
        return EpisodePairs(self.samples("validation"), self.settings.validation_samples)

    def release_config(self) -> dict[str, Any]:
        """Return the design, and where the language model is."""
        return vlm_config(self._parts, self.settings)


def _refuse_frozen(model: nn.Module, kinds: Mapping[str, str]) -> None:
    """Refuse layers and embeddings that become too coarse to be left as they are, and are not trained."""
    layers = dict(model.named_modules())
    coarse = [name for name, kind in kinds.items() if kind in UNLIKE_EXACT]
    if frozen := [name for name in coarse if not any(p.requires_grad for p in layers[name].parameters())]:
        raise ValueError(
            f"quantise makes {len(frozen)} layers ternary or int4 that this stage does not train, {frozen[0]} to begin "
            "with; raise language_layers, set vision, or leave them to int8 or kept"
        )


def _logits_apart(student: TextLogits, teacher: TextLogits, batch: VlmBatch) -> Tensor:
    """Return how far the distributions of a model are from those of the exact one, summed over learned tokens."""
    told = logits_distillation(student.told, teacher.told, batch.told.learned)
    return told + logits_distillation(student.recalled, teacher.recalled, batch.recalled.learned)


def _relations_apart(
    student: Sequence[Sequence[Tensor]], teacher: Sequence[Sequence[Tensor]], batch: VlmBatch, heads: int
) -> Tensor:
    """Return how far relations between the tokens of a text are from those of the exact model, summed over tokens.

    Both models read each text with its image, and then each recalled one; a text stands at the end of what is read.
    """
    total = torch.zeros((), device=batch.images.device)
    for ours, theirs, texts in zip(student, teacher, (batch.told, batch.recalled), strict=True):
        length = texts.tokens.shape[1]
        mine, exact = ([state[:, -length:] for state in states] for states in (ours, theirs))
        total = total + relation_distillation(mine, exact, texts.attended, heads)
    return total


class TermCounts:
    """Counts what chosen terms are means over; it is sent to loader processes."""

    def __init__(self, terms: tuple[str, ...]) -> None:
        self._terms = terms

    def __call__(self, batch: VlmBatch) -> dict[str, float]:
        """Return a batch's counts by term."""
        counts = count_terms(batch)
        return {term: counts[term] for term in self._terms}


def last_layers(language: nn.Module, count: int) -> list[nn.Module]:
    """Return the last transformer blocks of a language model; `ValueError` where it has fewer."""
    stacks = [module for module in language.modules() if isinstance(module, nn.ModuleList)]
    layers = max((list(stack) for stack in stacks), key=len, default=[])
    if len(layers) < count:
        raise ValueError(f"language_layers is {count}, and the language model has {len(layers)} layers; lower it")
    return layers[-count:]


def _means(total: Mapping[str, float]) -> dict[str, float]:
    """Return means of what was added up, and gaps between them."""
    tokens, recalled = total["tokens"], total["recalled_tokens"]
    found = {name: total[name] / tokens for name in ("nll", "nll_shuffled", "nll_blind")}
    found |= {name: total[name] / recalled for name in ("recall", "recall_without", "recall_other", "recall_misplaced")}
    found["vision_gap"] = found["nll_shuffled"] - found["nll"]
    found["recall_gap"] = found["recall_other"] - found["recall"]
    found["recall_gap_to_misplaced"] = found["recall_misplaced"] - found["recall"]
    found["recall_gap_to_none"] = found["recall_without"] - found["recall"]
    found["cue_right"] = total["cue_right"] / total["questions"]
    found["scope_right"] = total["scope_right"] / total["scopes"]
    return found
