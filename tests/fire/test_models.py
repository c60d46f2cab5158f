"""What every fire model promises, whatever its architecture."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from configs.fire_models import (
    ConvHead2DConfig,
    CopyLastConfig,
    EmberFormerConfig,
    FireModel,
    LossConfig,
    SamDecoderConfig,
    SegformerDecoderConfig,
    Tiny3DConfig,
    UnetDecoderConfig,
    UnetResnetDecoderConfig,
    UNetSConfig,
    UNetSTokensConfig,
)
from models.fire.batch import FireBatch, FireSpec
from models.fire.build import build_fire_model, parameter_groups
from models.fire.emberformer import EmberFormer
from models.fire.losses import FireLoss
from models.fire.output import BURNT_LOGIT
from tests.fire.fire_batches import SPEC, join, pad, random_batch, with_garbage

SMALL = {"d_model": 16, "nhead": 2, "num_layers": 2}
MODELS: dict[str, FireModel] = {
    "unet": EmberFormerConfig(**SMALL, decoder=UnetDecoderConfig(widths=(8, 8, 12, 12)), edge_weight=0.5),
    "unet-spatial": EmberFormerConfig(**SMALL, spatial_layers=2, decoder=UnetDecoderConfig(widths=(8, 12))),
    "unet-front": EmberFormerConfig(**SMALL, head="front", decoder=UnetDecoderConfig(widths=(8, 8, 12))),
    "segformer": EmberFormerConfig(
        **SMALL, decoder=SegformerDecoderConfig(hidden_sizes=(8, 12, 16), decoder_hidden_size=16)
    ),
    "resnet": EmberFormerConfig(
        **SMALL, decoder=UnetResnetDecoderConfig(hidden_sizes=(8, 8, 12, 12), widths=(8, 8, 8, 8))
    ),
    "resnet-50": EmberFormerConfig(
        **SMALL, decoder=UnetResnetDecoderConfig(depth=50, hidden_sizes=(32, 32, 48, 48), widths=(8, 8, 8, 8))
    ),
    "sam": EmberFormerConfig(**SMALL, decoder=SamDecoderConfig(hidden_size=32)),
    "unet_s": UNetSConfig(widths=(8, 12, 12)),
    "unet_s_tokens": UNetSTokensConfig(widths=(8, 12, 12)),
    "conv_head_2d": ConvHead2DConfig(width=8),
    "tiny_3d": Tiny3DConfig(width=8),
    "copy_last": CopyLastConfig(),
}
LEARNING = [name for name in MODELS if name != "copy_last"]
every_model = pytest.mark.parametrize("name", list(MODELS))
every_learning_model = pytest.mark.parametrize("name", LEARNING)


def trained(name: str, spec: FireSpec = SPEC) -> nn.Module:
    """Return a model whose weights are shaken, so that nothing is as it was initialised."""
    torch.manual_seed(1)
    model = build_fire_model(MODELS[name], spec).eval()
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            if id(parameter) not in embeddings:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def logits_and_losses(model: nn.Module, name: str, batch: FireBatch) -> tuple[Tensor, list[float]]:
    losses = []
    with torch.no_grad():
        output = model(batch)
        for kind in ("bce_dice", "focal_tversky"):
            loss = FireLoss(LossConfig(kind=kind, pos_weight="auto"), MODELS[name])
            losses.append(float(loss.loss(output, batch)))
    return output.logits, losses


@every_model
def test_padding_and_nodata_change_nothing(name: str) -> None:
    """More padding in time and space, and other values under it and under nodata, change outputs by < 1e-5."""
    model, batch = trained(name), random_batch()
    logits, losses = logits_and_losses(model, name, batch)
    height, width = batch.domain.shape[1:]
    for other in (pad(batch, 0, 0, 3), pad(batch, 3, 4, 0), pad(batch, 9, 1, 2), with_garbage(pad(batch, 1, 2, 1))):
        again, losses_again = logits_and_losses(model, name, other)
        assert (again[:, :height, :width] - logits).abs().max() < 1e-5
        assert losses_again == pytest.approx(losses, abs=1e-5)
        assert (again[~other.domain] == -BURNT_LOGIT).all()


@pytest.mark.parametrize("name", ["unet", "segformer", "resnet", "sam"])
@pytest.mark.parametrize("patch", [8, 16])
def test_padding_changes_nothing_where_tokens_join_deeper(name: str, patch: int) -> None:
    spec = replace(SPEC, patch=patch)
    model, batch = trained(name, spec), random_batch(((3, 4),), (2,), spec=spec)
    height, width = batch.domain.shape[1:]
    with torch.no_grad():
        logits = model(batch).logits
        again = model(with_garbage(pad(batch, 1, 3, 1, spec))).logits
    assert (again[:, :height, :width] - logits).abs().max() < 1e-5


@every_model
def test_batch_mates_change_nothing(name: str) -> None:
    model = trained(name)
    alone = [random_batch(((4, 3),), (2,), seed=3), random_batch(((6, 7),), (6,), seed=4)]
    together = join(alone)
    logits, _ = logits_and_losses(model, name, together)
    loss = FireLoss(LossConfig(kind="bce_dice", pos_weight="auto"), MODELS[name])
    with torch.no_grad():
        sums = loss.sums(model(together), together)
        parts = [loss.sums(model(batch), batch) for batch in alone]
    for i, batch in enumerate(alone):
        height, width = batch.domain.shape[1:]
        single, _ = logits_and_losses(model, name, batch)
        assert (logits[i, :height, :width] - single[0]).abs().max() < 1e-5
    for term, value in sums.items():
        assert float(value) == pytest.approx(float(sum(part[term] for part in parts)), rel=1e-5)


@every_model
def test_fire_never_unburns_and_stays_in_the_domain(name: str) -> None:
    model, batch = trained(name), random_batch()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.3)
        logits = model(batch).logits
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    assert (logits[batch.burnt] >= BURNT_LOGIT).all()
    assert (logits[~batch.domain] == -BURNT_LOGIT).all()


@every_learning_model
def test_every_parameter_makes_the_output_and_is_in_one_group(name: str) -> None:
    model, batch = trained(name).train(), random_batch()
    FireLoss(LossConfig(), MODELS[name]).loss(model(batch), batch).backward()
    unused = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert unused == []
    grouped = [id(p) for group in parameter_groups(model).values() for p in group]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


@every_model
def test_runs_in_bfloat16(name: str) -> None:
    model, batch = trained(name), random_batch()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = model(batch).logits
        reference = logits_and_losses(model, name, batch)[0]
    assert torch.isfinite(logits).all()
    assert (logits[batch.burnt] >= BURNT_LOGIT).all()
    assert (logits - reference).abs().median() < 0.2


@every_learning_model
def test_tiny_grids_and_one_frame(name: str) -> None:
    model = trained(name)
    for grid in ((1, 1), (2, 3), (1, 5)):
        batch = random_batch((grid,), (1,))
        with torch.no_grad():
            logits = model(batch).logits
        assert logits.shape == batch.domain.shape
        assert torch.isfinite(logits).all()


@every_learning_model
def test_a_sample_without_any_domain_is_harmless(name: str) -> None:
    """A batch in which no token is valid gives finite logits and gradients, and a loss of zero."""
    model, empty = trained(name).train(), with_garbage(_emptied(random_batch()))
    loss = FireLoss(LossConfig(), MODELS[name])
    output = model(empty)
    value = loss.loss(output, empty)
    value.backward()
    assert float(value.detach()) == 0
    assert (output.logits == -BURNT_LOGIT).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def _emptied(batch: FireBatch) -> FireBatch:
    masks = ("domain", "burnable", "counted", "token_valid", "terrain_valid")
    nothing = {key: torch.zeros_like(getattr(batch, key)) for key in masks}
    return replace(batch, **nothing)


@every_learning_model
@pytest.mark.parametrize("what", ["slope", "fuel", "wind"])
def test_terrain_and_wind_reach_every_model(name: str, what: str) -> None:
    """For EmberFormer they reach the pixel decoder itself, so the tokens are left as they are."""
    model, batch = trained(name), random_batch(((5, 5),), (3,))
    with torch.no_grad():
        before = model(batch).logits
        if name == "unet_s_tokens":
            changed = replace(batch, static=batch.static + 1) if what != "wind" else replace(batch, wind=-batch.wind)
            after = model(changed).logits
        elif isinstance(model, EmberFormer):
            after = _decode(model, batch, _changed(batch, what))
        else:
            after = model(_changed(batch, what)).logits
    assert (after - before)[batch.domain & ~batch.burnt].abs().max() > 1e-4


def _changed(batch: FireBatch, what: str) -> FireBatch:
    if what == "wind":
        return replace(batch, wind=-batch.wind)
    if what == "slope":
        terrain = batch.terrain.clone()
        terrain[:, SPEC.continuous.index("slope_east")] += 1
        return replace(batch, terrain=terrain)
    classes = batch.classes.clone()
    classes[:, 0] = classes[:, 0] % 5 + 1
    return replace(batch, classes=classes)


def _decode(model: EmberFormer, batch: FireBatch, pixels_of: FireBatch) -> Tensor:
    """Return logits with the tokens of one batch and the pixels of another."""
    features = model.decoder(model.pixels(pixels_of), model.tokens(batch))
    logits: Tensor = model.head(features, batch)
    return logits


def test_tokens_see_the_history_and_only_as_much_as_they_should() -> None:
    config = EmberFormerConfig(**SMALL, max_history=3, decoder=UnetDecoderConfig(widths=(8, 8)))
    model, batch = build_fire_model(config, SPEC).eval(), random_batch(((5, 5),), (5,))
    assert isinstance(model, EmberFormer)
    with torch.no_grad():
        tokens = model.tokens(batch)
        for frame, seen in ((0, False), (1, False), (2, True), (3, True), (4, True)):
            fire = batch.fire.clone()
            fire[:, frame] = 1 - fire[:, frame]
            difference = (model.tokens(replace(batch, fire=fire)) - tokens).abs().max()
            assert (difference > 1e-4) == seen, frame


def test_attention_over_time_is_a_distribution_over_real_frames() -> None:
    batch = with_garbage(pad(random_batch(((4, 4), (3, 2)), (5, 2)), 1, 1, 2))
    model = trained("unet")
    assert isinstance(model, EmberFormer)
    layers = model.attention(batch)
    assert len(layers) == SMALL["num_layers"]
    for weights in layers:
        assert weights.shape == (*batch.token_valid.shape, SMALL["nhead"], batch.time_valid.shape[1])
        assert torch.isfinite(weights).all()
        total = weights.sum(-1)
        assert torch.allclose(total[batch.token_valid], torch.ones(()))
        assert (total[~batch.token_valid] == 0).all()
        assert (weights.permute(0, 3, 1, 2)[~batch.time_valid] == 0).all()


def test_copy_last_has_no_parameters() -> None:
    model, batch = build_fire_model(CopyLastConfig(), SPEC), random_batch()
    assert parameter_groups(model) == {"temporal": [], "spatial": []}
    assert torch.equal(model(batch).logits > 0, batch.burnt & batch.domain)


def test_unet_s_has_about_as_many_parameters_as_the_one_it_is_measured_against() -> None:
    model = build_fire_model(UNetSConfig(), SPEC)
    assert 0.75e6 < sum(p.numel() for p in model.parameters()) < 0.95e6


@pytest.mark.parametrize("decoder", [UnetDecoderConfig(), SegformerDecoderConfig(), SamDecoderConfig()])
def test_a_patch_that_does_not_fit_is_refused(decoder: UnetDecoderConfig) -> None:
    with pytest.raises(ValueError, match="patch 7"):
        build_fire_model(EmberFormerConfig(decoder=decoder), replace(SPEC, patch=7))


def test_impossible_configurations_are_refused() -> None:
    with pytest.raises(ValidationError, match="multiple of nhead"):
        EmberFormerConfig(d_model=20, nhead=3)
    with pytest.raises(ValidationError, match="come with the pretrained model"):
        SegformerDecoderConfig(pretrained="folder", decoder_hidden_size=8)
