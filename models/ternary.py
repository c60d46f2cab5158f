"""Layers that train quantised: ternary and int8 linear layers, and embeddings of 8, 4 or 1.6 bits.

The form is BitNet b1.58's (arXiv 2402.17764). An exact weight is trained; the forward pass sees

    weight + strength * (quantised(weight) - weight)

and the gradient passes as if it saw the weight itself. What is quantised in weights and activations, and by what scale,
is outside the gradient. A moving average of such weights is no quantised model; leave averages out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.quantise import Activations, QuantiseRecipe, RowKind, Start
from models.grids import (
    INT8,
    ROW_LIMITS,
    TERNARY,
    Limits,
    absmean,
    channel_scale,
    kmeans,
    linear_by_blocks,
    nonzero,
    product,
    row_scale,
    scaled,
    spread,
    straight_through,
    token_scale,
)

NAMED = 6
"""Candidates that an error names."""


class Quantised(nn.Module):
    """A layer with an exact weight that it quantises by a strength, 1 at first."""

    weight: nn.Parameter
    strength: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        assert isinstance(weight, nn.Parameter)
        self.weight = weight
        self.register_buffer("strength", torch.ones((), device=weight.device))


class QuantisedLinear(Quantised, ABC):
    """A linear layer on a grid of integers; it takes over the parameters of an `nn.Linear`, tied or not."""

    LIMITS: ClassVar[Limits]
    bias: nn.Parameter | None

    def __init__(self, linear: nn.Linear, activations: Activations) -> None:
        super().__init__(linear.weight)
        self.out_features, self.in_features = linear.weight.shape
        self.register_parameter("bias", linear.bias)
        self.activations = activations
        self.train(linear.training)

    @abstractmethod
    def scale(self) -> Tensor:
        """Return what the weight's integers are multiplied by, () or (out, 1), without gradient."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) of (..., in)."""
        scale = self.scale()
        weight = straight_through(self.weight / scale, self.LIMITS, self.strength)
        if self.activations == "none":
            return scaled(F.linear(x, weight), scale.squeeze(-1), None, self.bias)
        token = token_scale(x)
        x = straight_through(x / token, INT8, self.strength)
        return scaled(product(x, weight, self.LIMITS), scale.squeeze(-1), token, self.bias)


class TernaryLinear(QuantisedLinear):
    """A linear layer whose weights are -1, 0 or 1 times one scale; the bias stays exact.

    The scale is the mean size of the weights times `ratio`, which a start by k-means makes such that the first scale
    is the outer centre of the weights' 3-means. Weights below half the scale become 0.
    """

    LIMITS = TERNARY
    ratio: Tensor

    def __init__(self, linear: nn.Linear, activations: Activations, ratio: Tensor) -> None:
        super().__init__(linear, activations)
        self.register_buffer("ratio", ratio)

    @classmethod
    def of(cls, linear: nn.Linear, start: Start = "absmean", activations: Activations = "int8") -> Self:
        """Return the ternary form of a layer, with its parameters."""
        weight = linear.weight.detach()
        ratio = kmeans(weight) / nonzero(absmean(weight)) if start == "kmeans" else weight.new_ones(())
        return cls(linear, activations, ratio)

    def scale(self) -> Tensor:
        """Return the scale, ()."""
        return nonzero(absmean(self.weight.detach()) * self.ratio)


class Int8Linear(QuantisedLinear):
    """A linear layer whose weights are integers from -127 to 127 times a scale for each output."""

    LIMITS = INT8

    @classmethod
    def of(cls, linear: nn.Linear, activations: Activations = "int8") -> Self:
        """Return the int8 form of a layer, with its parameters."""
        return cls(linear, activations)

    def scale(self) -> Tensor:
        """Return the scale of each output, (out, 1)."""
        return channel_scale(self.weight)


class QuantisedEmbedding(Quantised):
    """An embedding whose rows are int8 or ternary with a scale each, or int4 with one for 32 columns."""

    def __init__(self, embedding: nn.Embedding, kind: RowKind) -> None:
        super().__init__(embedding.weight)
        self.num_embeddings, self.embedding_dim = embedding.weight.shape
        self.padding_idx, self.kind = embedding.padding_idx, kind
        self.train(embedding.training)

    def forward(self, ids: Tensor) -> Tensor:
        """Return (..., C) of ids (...)."""
        rows = F.embedding(ids, self.weight, self.padding_idx)
        return quantised_rows(rows.flatten(0, -2), self.kind, self.strength).view_as(rows)


class RowLinear(Quantised):
    """A linear layer whose rows are those of a quantised embedding, or quantised as those are; inputs stay exact."""

    bias: nn.Parameter | None

    def __init__(self, linear: nn.Linear, kind: RowKind) -> None:
        super().__init__(linear.weight)
        self.out_features, self.in_features = linear.weight.shape
        self.register_parameter("bias", linear.bias)
        self.kind = kind
        self.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) of (..., in)."""
        if torch.is_grad_enabled():
            return F.linear(x, self._rows(slice(None)), self.bias)
        shape = (self.out_features, self.in_features)
        return linear_by_blocks(x, shape, self._rows, self.bias)  # as the packed layer does

    def _rows(self, rows: slice) -> Tensor:
        return quantised_rows(self.weight[rows], self.kind, self.strength)


def quantised_rows(rows: Tensor, kind: RowKind, strength: Tensor) -> Tensor:
    """Return (R, C) rows, quantised by a strength; the gradient is that of the rows."""
    scale = spread(row_scale(rows, kind), rows.shape[1])
    return scale * straight_through(rows / scale, ROW_LIMITS[kind], strength)


def strength_at(recipe: QuantiseRecipe, step: int, steps: int) -> float:
    """Return how far weights are quantised, 0 to 1, when `step` of `steps` training steps are done."""
    warm = recipe.warm_up * steps
    return min(1.0, step / warm) if warm else 1.0


def set_strength(model: nn.Module, strength: float) -> None:
    """Set how far every quantised layer inside is quantised, from 0, as if it were not, to 1; nothing is read back.

    Raises ValueError for other strengths, and where there is no such layer.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"the strength of quantisation is {strength}; it goes from 0 to 1")
    for layer in quantised_layers(model):
        layer.strength.fill_(strength)


def quantised_layers(model: nn.Module) -> list[Quantised]:
    """Return the layers inside that train quantised; ValueError if there are none."""
    layers = [module for module in model.modules() if isinstance(module, Quantised)]
    if not layers:
        raise ValueError("the model has no layer that trains quantised; name some in its recipe and use quantise")
    return layers


def quantise(model: nn.Module, recipe: QuantiseRecipe) -> dict[str, str]:
    """Replace the layers that a recipe names, in place; return ternary, int8, int4, or the kind of embedding, by name.

    Parameters stay the same objects, so that optimisers and ties hold. Only plain `nn.Linear` and `nn.Embedding` are
    replaced, and none inside of `nn.TransformerEncoderLayer`, which reads their weights past them. A model that does
    likewise must have its layers left alone.

    Raises ValueError where a pattern matches nothing.
    """
    return quantise_embeddings(model, recipe) | quantise_linears(model, recipe)


def quantise_linears(model: nn.Module, recipe: QuantiseRecipe) -> dict[str, str]:
    """Replace the linear layers that a recipe names, as `quantise` does; those tied to an embedding are left alone."""
    tied = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding | QuantisedEmbedding)}
    every = _plain_linears(model)
    free = {name: module for name, module in every.items() if id(module.weight) not in tied}
    kept = _matching("kept", recipe.kept, every)
    int8 = _matching("int8", recipe.int8, free) - kept
    int4 = _matching("int4", recipe.int4, free) - int8 - kept
    ternary = _matching("ternary", recipe.ternary, free) - int8 - int4 - kept
    new: dict[nn.Module, nn.Module] = {free[name]: Int8Linear.of(free[name], recipe.activations) for name in int8}
    new |= {free[name]: RowLinear(free[name], "int4") for name in int4}
    new |= {free[name]: TernaryLinear.of(free[name], recipe.start, recipe.activations) for name in ternary}
    replace_layers(model, new)
    kinds = {"int8": int8, "int4": int4, "ternary": ternary}
    return {name: kind for kind, names in kinds.items() for name in sorted(names)}


def _plain_linears(model: nn.Module) -> dict[str, nn.Linear]:
    modules = dict(model.named_modules())
    blocks = tuple(f"{name}." for name, module in modules.items() if isinstance(module, nn.TransformerEncoderLayer))
    plain = {name: module for name, module in modules.items() if type(module) is nn.Linear}
    return {name: module for name, module in plain.items() if not name.startswith(blocks)}


def quantise_embeddings(model: nn.Module, recipe: QuantiseRecipe) -> dict[str, str]:
    """Replace the embeddings that a recipe names, and the heads that are tied to them, as `quantise` does."""
    every = {name: module for name, module in model.named_modules() if type(module) is nn.Embedding}
    kinds: dict[str, RowKind] = {}
    if recipe.embedding:
        kinds |= dict.fromkeys(sorted(_matching("embeddings", recipe.embeddings, every)), recipe.embedding)
    kinds |= dict.fromkeys(sorted(_matching("slots", recipe.slots, every)), "int8")
    new: dict[nn.Module, nn.Module] = {}
    for name, kind in kinds.items():
        new[every[name]] = QuantisedEmbedding(every[name], kind)
        heads = (module for module in model.modules() if type(module) is nn.Linear)
        new |= {head: RowLinear(head, kind) for head in heads if head.weight is every[name].weight}
    replace_layers(model, new)
    return dict(kinds)


def replace_layers(model: nn.Module, new: Mapping[nn.Module, nn.Module]) -> None:
    """Put new modules inside a model wherever the old ones are; ValueError if the model itself is one of them."""
    if model in new:
        raise ValueError("a layer cannot be replaced inside itself; give the module that holds it")
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and child in new:
                setattr(parent, name, new[child])


def _matching(field: str, patterns: Iterable[str], candidates: Mapping[str, nn.Module]) -> set[str]:
    """Return the names that match one of the patterns of a recipe's field."""
    found: set[str] = set()
    for pattern in patterns:
        matches = {name for name in candidates if fnmatchcase(name, pattern)}
        if not matches:
            names = ", ".join([*candidates][:NAMED]) or "none"
            more = f" and {len(candidates) - NAMED} more" if len(candidates) > NAMED else ""
            raise ValueError(f"{field} has the pattern {pattern}, which matches no layer; there are {names}{more}")
        found |= matches
    return found
