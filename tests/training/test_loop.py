"""The loop in one process: gradients, groups, schedules, averages, checkpoints, and what is released."""

from __future__ import annotations

import copy
import json
import math
import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tasks.training.optimiser import learning_rate
from tasks.training.publish import publish
from tasks.training.release import write_weights
from tasks.training.transfer import move
from tests.training.toy import SAMPLES, Toy
from tests.training.trainers import RATES, config, micro_batches, same, trainer, weights_of

# -- gradients and groups ------------------------------------------------------------------------------------------


def test_a_loss_is_a_mean_over_the_whole_global_batch_however_unevenly_it_is_cut(tmp_path):
    one = trainer(tmp_path, Toy({"dropout": 0.0}), accumulation=4, clip_norm=None)
    batches = micro_batches(one)
    counts = [float(b.batch[2].sum()) for b in batches]
    assert len(set(counts)) > 1, "the micro-batches differ in what they count"
    model = Toy({"dropout": 0.0}).build()
    model.load_state_dict(weights_of(one))
    x, y, valid = Toy.collate([s for b in batches for s in zip(*b.batch, strict=True)])
    logits = model(x).squeeze(-1)
    bce = nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="none")
    expected = bce[valid].mean() + 0.1 * logits.square().mean()
    expected.backward()
    one.step(batches)
    assert one.history.rows("training")[0]["loss"] == pytest.approx(expected.item(), rel=1e-6)
    for ours, theirs in zip(one.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)
    norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in model.parameters()]))
    assert one.history.rows("training")[0]["gradient_norm"] == pytest.approx(norm.item(), rel=1e-5)


def test_gradients_are_clipped_by_their_global_norm_and_the_norm_before_is_reported(tmp_path):
    one = trainer(tmp_path, clip_norm=1e-3)
    one.step(micro_batches(one))
    norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in one.model.parameters()]))
    assert norm == pytest.approx(1e-3, rel=1e-4)
    assert one.history.rows("training")[0]["gradient_norm"] > 0.01


def test_a_group_stays_frozen_for_its_epochs_and_then_trains_at_its_own_rate(tmp_path):
    one = trainer(tmp_path, epochs=3, freeze={"head": 1}, warmup_steps=2, weight_decay=0.5)
    start = weights_of(one)
    batches = [micro_batches(one, step) for step in range(12)]
    for step in range(6):
        one.step(batches[step])
    after_one = weights_of(one)
    assert torch.equal(start["3.weight"], after_one["3.weight"])
    assert torch.equal(start["3.bias"], after_one["3.bias"])
    assert not torch.equal(start["0.weight"], after_one["0.weight"])
    one.step(batches[6])
    assert not torch.equal(after_one["3.weight"], weights_of(one)["3.weight"])
    rates = [row["learning_rates"] for row in one.history.rows("training")]
    assert [r["head"] for r in rates[:6]] == [0.0] * 6
    assert rates[0]["body"] == RATES["body"] / 2, "the warm-up of one group begins with the training"
    assert rates[6]["head"] == RATES["head"] / 2, "that of the other when it thaws"


def test_learning_rates_follow_from_the_step_alone():
    c = config(epochs=4, warmup_steps=5, final_lr_share=0.1, freeze={"head": 2})
    rates = [learning_rate(c, "body", step, 10) for step in range(40)]
    assert rates[:5] == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.01])
    assert rates[5] == 0.01
    assert all(a > b for a, b in pairwise(rates[5:]))
    middle = 0.01 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 10 / 35)))
    assert rates[15] == pytest.approx(middle)
    assert rates[39] == pytest.approx(0.001, rel=0.02)
    head = [learning_rate(c, "head", step, 10) for step in range(40)]
    assert head[:20] == [0.0] * 20
    assert head[20:25] == pytest.approx([0.004, 0.008, 0.012, 0.016, 0.02])


def test_every_trainable_parameter_is_in_exactly_one_group(tmp_path):
    class Forgetful(Toy):
        def groups(self, model):
            return {"body": list(model[0].parameters()), "head": [model[3].weight]}

    with pytest.raises(AssertionError, match=r"never trained: 3\.bias"):
        trainer(tmp_path, Forgetful({}))

    class Twice(Toy):
        def groups(self, model):
            return {"body": list(model.parameters()), "head": [model[3].weight]}

    with pytest.raises(AssertionError, match=r"3\.weight is in the groups body and head"):
        trainer(tmp_path, Twice({}))
    with pytest.raises(ValueError, match="learning_rates has the groups body, but the model has body, head"):
        trainer(tmp_path, learning_rates={"body": 0.1})


def test_the_optimiser_holds_all_parameters_and_decays_matrices_only(tmp_path):
    one = trainer(tmp_path)
    held = [(group["weight_decay"], p) for group in one.optimiser.adam.param_groups for p in group["params"]]
    assert {id(p) for _, p in held} == {id(p) for p in one.model.parameters()}
    assert len(held) == 4
    assert all((decay > 0) == (p.ndim >= 2) for decay, p in held)


class LaidOut(Toy):
    """Has weights in every layout that convolutions come in."""

    def build(self):
        return nn.ModuleDict({
            "flat": nn.Conv2d(4, 3, 3, padding=1),
            "last": nn.Conv2d(3, 5, 3, padding=1).to(memory_format=torch.channels_last),
            "point": nn.Conv2d(5, 4, 1).to(memory_format=torch.channels_last),
            "deep": nn.Conv3d(2, 3, (1, 3, 3), padding=(0, 1, 1)).to(memory_format=torch.channels_last_3d),
            "turned": Turned(),
        })  # fmt: skip

    def groups(self, model):
        return {
            "body": [p for n, p in model.named_parameters() if "deep" not in n],
            "head": [*model["deep"].parameters()],
        }

    def losses(self, model, batch):
        x = batch[0].transpose(1, 2)[..., None].expand(-1, -1, -1, 6)
        x = model["point"](model["last"](model["flat"](x).relu()).relu())
        x = model["deep"](x.unflatten(1, (2, 2))).flatten(1, 2).flatten(2) @ model["turned"].weight
        return {"bce": x.square().mean((1, 2)).sum(), "decay": x.abs().mean((1, 2)).sum()}


class Turned(nn.Module):
    """A weight that lies in memory column by column."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 36).t())


def test_weights_in_any_layout_take_the_steps_of_plain_adamw(tmp_path):
    one = trainer(tmp_path, LaidOut({}), clip_norm=None, ema_decay=0.5, weight_decay=0.1)
    plain = copy.deepcopy(one.model)
    average = {n: p.detach().clone() for n, p in plain.named_parameters()}
    members = list(plain.named_parameters())
    adam = torch.optim.AdamW(
        [{"params": [p], "lr": RATES["head" if "deep" in n else "body"], "weight_decay": 0.1 * (p.ndim > 1)}
         for n, p in members], betas=one.config.betas, foreach=False, fused=False,
    )  # fmt: skip
    assert len({p.stride() for p in plain.parameters()} - {p.contiguous().stride() for p in plain.parameters()}) >= 3
    for step in range(5):
        one.step(micro_batches(one, step))
        for group, (n, p) in zip(adam.param_groups, members, strict=True):
            p.grad = one.model.get_parameter(n).grad.clone()
            group["lr"] = learning_rate(one.config, "head" if "deep" in n else "body", step, one.steps_per_epoch)
        adam.step()
        for n, p in members:
            torch.testing.assert_close(one.model.get_parameter(n), p, rtol=1e-6, atol=1e-7)
            average[n] = 0.5 * average[n] + 0.5 * p.detach()
    for n, value in one.average.tensors().items():
        torch.testing.assert_close(value, average[n], rtol=1e-6, atol=1e-7)


def test_weights_in_any_layout_survive_a_checkpoint_and_a_release(tmp_path):
    calm = trainer(tmp_path / "calm", LaidOut({}), ema_decay=0.5)
    for step in range(6):
        calm.step(micro_batches(calm, step))
        if step == 2:
            calm.save()
    again = trainer(tmp_path / "calm", LaidOut({}), ema_decay=0.5)
    again.resume()
    assert again.cursor.step == 3
    for step in range(3, 6):
        again.step(micro_batches(again, step))
    assert same(weights_of(calm), weights_of(again))
    with calm.released_weights():
        write_weights(tmp_path / "model.safetensors", calm.model, calm.objective.stored)
        released = weights_of(calm)
    assert same(load_file(tmp_path / "model.safetensors"), released)


def test_moments_or_gradients_in_another_layout_than_their_weight_are_refused(tmp_path):
    one = trainer(tmp_path, LaidOut({}))
    one.step(micro_batches(one))
    state = one.optimiser.adam.state[one.model["last"].weight]
    state["exp_avg"] = state["exp_avg"].contiguous()
    with pytest.raises(AssertionError, match=r"last\.weight is laid out otherwise"):
        one.save()


def test_a_weight_in_half_precision_is_not_trained(tmp_path):
    class Half(Toy):
        def build(self):
            model = super().build()
            model[0].weight.data = model[0].weight.data.bfloat16()
            return model

    with pytest.raises(AssertionError, match=r"must be float32: 0\.weight"):
        trainer(tmp_path, Half({}))


def test_a_training_that_moves_every_parameter(tmp_path):
    one = trainer(tmp_path)
    start = weights_of(one)
    one.fit()
    end = weights_of(one)
    assert all(not torch.equal(start[name], end[name]) for name in start)
    losses = [row["loss"] for row in one.history.rows("training")]
    assert losses[-1] < losses[0]


def test_bf16_computes_in_bf16_and_keeps_fp32_weights(tmp_path):
    seen = set()

    class Watched(Toy):
        def losses(self, model, batch):
            seen.add(model(batch[0]).dtype)
            return super().losses(model, batch)

    half = trainer(tmp_path / "half", Watched({"dropout": 0.0}), precision="bf16")
    full = trainer(tmp_path / "full", Toy({"dropout": 0.0}))
    half.fit()
    full.fit()
    assert seen == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in half.model.parameters())
    assert not same(weights_of(half), weights_of(full))
    a, b = (one.history.rows("training")[-1]["loss"] for one in (half, full))
    assert a == pytest.approx(b, rel=0.05)


# -- averages, best weights, early stop ----------------------------------------------------------------------------


def test_the_moving_average_is_what_it_should_be_and_is_evaluated_and_released(tmp_path):
    evaluated = []

    class Watched(Toy):
        def evaluate(self, model, share):
            evaluated.append({name: value.clone() for name, value in model.state_dict().items()})
            return {"accuracy": 0.0}

    one = trainer(tmp_path / "scratch", Watched({}), epochs=1, ema_decay=0.8)
    average = weights_of(one)
    for step in range(6):
        one.step(micro_batches(one, step))
        average = {name: 0.8 * average[name] + 0.2 * value for name, value in weights_of(one).items()}
    one.evaluate()
    for name, value in average.items():
        torch.testing.assert_close(evaluated[0][name], value)
    assert not same(evaluated[0], weights_of(one)), "the training goes on from the weights themselves"
    (tmp_path / "asset").mkdir()
    publish(one, tmp_path / "asset")
    assert same(load_file(tmp_path / "asset" / "model.safetensors"), evaluated[0])


class Scripted(Toy):
    """Reports given values, one per evaluation."""

    def evaluate(self, model, share):
        epoch = self.moment.epoch
        return {"score": self.config["scores"][epoch]}


def test_a_picture_that_cannot_be_drawn_is_told_and_changes_nothing(tmp_path):
    class Undrawable(Toy):
        PREVIEWS = "tests.training.toy:undrawable"

    one, other = (trainer(tmp_path / kind.__name__, kind({})) for kind in (Toy, Undrawable))
    one.fit()
    other.fit()
    assert "a preview is missing (RuntimeError: no ink)" in other.said
    assert same(weights_of(one), weights_of(other))


def test_the_best_weights_are_released_or_the_last(tmp_path):
    scores = [0.1, 0.5, 0.3, float("nan")]
    folders = {}
    goals = {mode: {"metric": "score", "mode": mode} for mode in ("max", "min")}
    for name, best in {**goals, "last": None}.items():
        one = trainer(tmp_path / name / "s", Scripted({"scores": scores}), epochs=4, best=best)
        one.fit()
        publish(one, tmp_path / name)
        folders[name] = tmp_path / name, weights_of(one)
    chosen = {name: json.loads((f / "config.json").read_text())["weights"] for name, (f, _) in folders.items()}
    assert {name: w["epoch"] for name, w in chosen.items()} == {"max": 2, "min": 1, "last": 4}
    assert chosen["max"]["metrics"] == {"score": 0.5}
    folder, last = folders["last"]
    assert same(load_file(folder / "model.safetensors"), last)
    short = trainer(tmp_path / "short", Scripted({"scores": scores}), epochs=4)
    for step in range(12):
        short.step(micro_batches(short, step))
    assert same(load_file(folders["max"][0] / "model.safetensors"), weights_of(short)), "those of epoch 2"


def test_a_training_ends_early_when_its_metric_stands_still(tmp_path):
    scores = [0.1, 0.3, 0.2, 0.3, 0.9]
    stop = {"metric": "score", "mode": "max", "patience": 2}
    one = trainer(tmp_path, Scripted({"scores": scores}), epochs=5, early_stop=stop)
    one.fit()
    assert one.cursor.stopped
    assert one.cursor.step == 4 * 6
    assert any("score has not become better for 2 evaluations" in said for said in one.said)
    assert len(one.history.rows("evaluation")) == 4
    again = trainer(tmp_path, Scripted({"scores": scores}), epochs=5, early_stop=stop)
    again.fit()
    assert again.cursor.step == 4 * 6, "resumed, it stays ended"


def test_a_metric_that_nobody_reports_is_one_sentence(tmp_path):
    one = trainer(tmp_path, best={"metric": "f1", "mode": "max"})
    with pytest.raises(ValueError, match="reports no metric 'f1'; it reports accuracy, calls"):
        one.fit()


def test_evaluations_come_every_few_epochs_and_at_the_end(tmp_path):
    one = trainer(tmp_path, epochs=5, evaluate_every=2)
    one.fit()
    assert [row["epoch"] for row in one.history.rows("evaluation")] == [2, 4, 5]


# -- not a number --------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_with_step_and_samples(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_BAD_SAMPLE", "17")
    one = trainer(tmp_path, accumulation=4)
    with pytest.raises(ValueError, match=r"training stopped at step \d \(epoch 0\): the loss 'bce' is nan") as error:
        one.fit()
    words = str(error.value).split("training samples ")[1].split(";")[0]
    samples = [int(word) for word in words.split(", ")]
    assert 17 in samples
    assert len(samples) == 2, "only the micro-batch at fault"


# -- order and randomness ------------------------------------------------------------------------------------------


def test_an_epoch_may_be_shorter_or_longer_than_a_pass_over_the_data(tmp_path):
    one = trainer(tmp_path, epochs=3, steps_per_epoch=4)
    one.fit()
    assert one.cursor.step == 12
    indices = [i for step in range(12) for b in micro_batches(one, step) for i in b.indices]
    assert sorted(indices[:SAMPLES]) == list(range(SAMPLES)), "every sample once in the first six steps"
    assert sorted(indices[SAMPLES:]) == list(range(SAMPLES))
    assert indices[:SAMPLES] != indices[SAMPLES:]


def test_what_happens_between_steps_does_not_shift_the_random_numbers(tmp_path):
    quiet, noisy = trainer(tmp_path / "a"), trainer(tmp_path / "b")
    for step in range(4):
        quiet.step(micro_batches(quiet, step))
        noisy.step(micro_batches(noisy, step))
        torch.rand(step + 1), np.random.rand(3), random.random()
    assert same(weights_of(quiet), weights_of(noisy))


def test_micro_batches_have_their_own_dropout(tmp_path):
    masks = []

    class Watched(Toy):
        def losses(self, model, batch):
            masks.append(model[2](torch.ones(64)))
            return super().losses(model, batch)

    one = trainer(tmp_path, Watched({}), accumulation=2)
    one.step(micro_batches(one, 0))
    one.step(micro_batches(one, 1))
    assert len({tuple(mask.tolist()) for mask in masks}) == 4


def test_what_an_objective_draws_has_a_key_of_training_seed_step_micro_batch_and_rank(tmp_path):
    seeds = []

    class Watched(Toy):
        def losses(self, model, batch):
            seeds.append(self.moment.seed)
            return super().losses(model, batch)

    for seed, rank in ((0, 0), (1, 0), (0, 1), (0, 0)):
        one = trainer(tmp_path / f"{seed}-{rank}", Watched({}), accumulation=2, seed=seed)
        batches = [micro_batches(one, step) for step in range(2)]
        one.share.rank = rank
        for batch in batches:
            one.step(batch)
    assert len(set(seeds[:12])) == 12
    assert seeds[12:] == seeds[:4], "and of nothing else"


def test_a_data_set_smaller_than_a_batch_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="48 samples do not fill one global batch of 64"):
        trainer(tmp_path, batch_size=64)
    with pytest.raises(ValueError, match="must be a multiple of accumulation"):
        trainer(tmp_path, accumulation=3)


def test_batches_of_any_kind_move_to_the_device():
    batch = {"x": torch.ones(2), "rest": [torch.ones(1), "text", 3], "pair": (torch.ones(1), None)}
    moved = move(batch, torch.device("meta"))
    assert moved["x"].device.type == moved["rest"][0].device.type == moved["pair"][0].device.type == "meta"
    assert moved["rest"][1:] == ["text", 3]


@pytest.mark.parametrize(("decay", "said"), [(0.9, True), (0.5, False)])
def test_an_average_that_would_hold_much_of_the_initial_weights_is_told(tmp_path, decay, said):
    one = trainer(tmp_path, epochs=1, steps_per_epoch=5, ema_decay=decay)
    one.fit()
    told = "after 5 steps the moving average still holds 59% of the initial weights; an ema_decay of 0.5493"
    assert any(told in line for line in one.said) == said
    again = trainer(tmp_path, epochs=1, steps_per_epoch=5, ema_decay=decay)
    again.fit()
    assert not any(told in line for line in again.said), "once"
