"""The whole way from scenes to captions, at the smallest sizes that have every part."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors import safe_open

from configs.load import load_config, profile_path
from configs.microvlm import MicroVlmConfig
from configs.quantise import QuantiseRecipe
from configs.vision_language import Square
from flows.commands.see import chat, trained_square
from flows.microvlm import PIPELINE
from flows.runner import run
from storage.assets import AssetStore
from storage.lineage import made_from
from tasks.progress import Silent
from tasks.training.objective import Moment
from tasks.training.release import CONFIG, WEIGHTS, write_packed_release
from tasks.vision_language.conversation import Conversation
from tasks.vision_language.describe import Writing
from tasks.vision_language.objective import VlmObjective
from tasks.vision_language.previews import watch
from tasks.vision_language.released import VlmRelease, self_contained_config
from tasks.vision_language.samples import Asking, VlmSamples, collate
from tests.command import millrace
from tests.once import linked, only
from tests.vision_language import tiny
from tests.vision_language.tiny import FEW_BITS, stage


def of_stage(store: AssetStore, name: str):
    kind = "microvlm_packed" if name in ("few_bits", "untrained") else "microvlm_model"
    (asset,) = (a for a in store.assets(kind) if name in labels(store, a))
    return asset


def labels(store: AssetStore, asset) -> set[str]:
    records = [json.loads(text) for text in store.notes(".runs").values()]
    return {s["stage"].split()[-1] for r in records for s in r["stages"] if s["asset"] == asset.name}


def samples_of(store: AssetStore, release: VlmRelease, split: str = "test") -> VlmSamples:
    shards, index = (only(store, kind).folder for kind in ("image_text_shards", "image_text_index"))
    asking = Asking(release.tokens, release.design.phrases, episode=2, longest=24, steps=2)
    return VlmSamples(shards, index, split, release.network.vision.square, asking)


def test_the_report_has_every_model_with_its_controls(vlm):
    tables = json.loads((only(vlm, "microvlm_report").folder / "scores.json").read_text())
    assert list(tables) == ["stage1", "stage2", "ternary", "few_bits", "untrained"]
    for table in tables.values():
        nats = table["nats"]
        gaps = {
            "vision_gap": nats["nll_shuffled"] - nats["nll"],
            "vision_gap_to_blind": nats["nll_blind"] - nats["nll"],
            "recall_gap": nats["recall_other"] - nats["recall"],
            "recall_gap_to_misplaced": nats["recall_misplaced"] - nats["recall"],
            "recall_gap_to_none": nats["recall_without"] - nats["recall"],
        }
        for gap, value in gaps.items():
            assert table[gap]["low"] <= table[gap]["value"] <= table[gap]["high"]
            assert table[gap]["value"] == pytest.approx(value)
        assert {"true", "shuffled", "BLEU"} <= table["captions"].keys()
    few, ternary = tables["few_bits"]["nats"], tables["ternary"]["nats"]
    assert few == pytest.approx(ternary, abs=1e-4), "the packed model says what the one that was trained says"


def test_stage_one_leaves_backbones_as_they_were_and_stage_two_trains_the_last_layers_alone(vlm):
    one, two = (VlmRelease.from_release(of_stage(vlm, name).folder).network for name in ("stage1", "stage2"))
    language = VlmRelease.from_release(of_stage(vlm, "stage1").folder).network.language.state_dict()
    for name, tensor in two.state_dict().items():
        same = torch.equal(tensor, one.state_dict()[name])
        frozen = name.startswith("language.") and ".layers.1." not in name
        assert same == (frozen or "when" in name), name
    with safe_open(of_stage(vlm, "stage1").folder / WEIGHTS, "pt") as file:
        assert not any(name.startswith("language.") for name in file.keys())  # noqa: SIM118
    assert all(torch.equal(tensor, language[name]) for name, tensor in one.language.state_dict().items())


def test_a_packed_release_stands_alone_and_holds_no_exact_weight(vlm, tmp_path):
    packed = of_stage(vlm, "few_bits")
    folder = tmp_path / "copied"
    shutil.copytree(packed.folder, folder)
    release = VlmRelease.from_release(folder)
    samples = samples_of(vlm, release)
    batch = collate([samples.sample(k, k) for k in range(4)])
    with torch.no_grad():
        trained = VlmRelease.from_release(of_stage(vlm, "ternary").folder).network(batch).logits.told
        found = release.network(batch).logits.told
    torch.testing.assert_close(found, trained, atol=1e-4, rtol=1e-4)
    codes = [n for n, t in release.network.state_dict().items() if n.startswith("language.hf.model.layers") and
             t.dtype == torch.uint8]  # fmt: skip
    assert len(codes) == 2 * 7, "every linear layer of both blocks"
    slots = {n: t for n, t in release.network.state_dict().items() if n.startswith("recall.memory.slots")}
    assert {n.rpartition(".")[2]: t.dtype for n, t in slots.items()} == {"codes": torch.uint8, "scale": torch.float16}
    config = json.loads((folder / CONFIG).read_text())
    assert config["quantization_config"]["layout"] == "trits5"
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    with pytest.raises(ValueError, match="are not those that were written"):
        VlmRelease.from_release(folder)


def test_models_of_middles_are_shown_the_middle_of_any_image(vlm, monkeypatch):
    asset, square = of_stage(vlm, "few_bits"), Square(32, "pad")
    assert trained_square(vlm, asset, square) == square
    config = made_from(vlm, asset, "image_text_shards").manifest.config
    monkeypatch.setitem(config["image"], "crop", "center")
    shards = SimpleNamespace(manifest=SimpleNamespace(config=config))
    monkeypatch.setattr("flows.commands.see.made_from", lambda *asked: shards)
    assert trained_square(vlm, asset, square) == Square(32, "crop")


def test_a_model_whose_head_is_its_quantised_embedding_is_packed(vlm, tmp_path):
    model = of_stage(vlm, "stage2")
    release = VlmRelease.from_release(model.folder)
    hf = release.network.language.hf
    hf.config.tie_word_embeddings = True
    hf.tie_weights()
    recipe = QuantiseRecipe.model_validate(FEW_BITS | {"embedding": "ternary"})
    samples = samples_of(vlm, release)
    batch = collate([samples.sample(k, k) for k in range(4)])
    config = self_contained_config(release, recipe)
    write_packed_release(
        tmp_path, model.folder, release, recipe, config, lambda network: network(batch).logits.told[batch.told.attended]
    )
    read = VlmRelease.from_release(tmp_path).network.language.hf
    assert read.lm_head.rows is read.model.embed_tokens.rows


@pytest.mark.parametrize(("kind", "trained"), [("int8", False), ("int4", True), ("ternary", True)])
def test_embeddings_of_few_bits_learn_with_the_layers(vlm, kind, trained):
    few = stage(language_layers=2, quantise={**FEW_BITS, "embedding": kind}, rates=("language",))
    objective = VlmObjective({
        "shards": str(only(vlm, "image_text_shards").folder), "index": str(only(vlm, "image_text_index").folder),
        "language": str(only(vlm, "microvlm_language").folder), "start": str(of_stage(vlm, "stage2").folder),
        "stage": few, "design": tiny.CONFIG["vlm"]["design"],
    })  # fmt: skip
    model = objective.build()
    embedding = model.language.hf.get_input_embeddings().weight
    assert embedding.requires_grad == trained
    assert any(p is embedding for p in objective.groups(model)["language"]) == trained
    names = [n for n in model.state_dict() if n.startswith("language.") and not objective.stored(n)]
    assert any("embed_tokens" in n for n in names) != trained


def test_every_rank_has_whole_episodes():
    config = {**tiny.CONFIG, "execution": {"ranks": 2}}
    assert MicroVlmConfig.model_validate(config)
    config["execution"] = {"ranks": 3}
    with pytest.raises(ValueError, match="a rank would leave images out"):
        MicroVlmConfig.model_validate(config)


def test_no_episode_is_longer_than_the_images_that_a_memory_tells_apart():
    few = ["vlm.design.model.recall.steps=3"]
    with pytest.raises(ValueError, match="tells 3 apart; raise it"):
        load_config(MicroVlmConfig, profile_path("microvlm", "demo"), few)


def test_a_random_decoder_is_stored_though_it_is_frozen_for_it_lies_nowhere_else(vlm):
    (language,) = vlm.assets("microvlm_language")
    design = tiny.CONFIG["vlm"]["design"]["model"]
    config = {
        "shards": str(only(vlm, "image_text_shards").folder), "index": str(only(vlm, "image_text_index").folder),
        "language": None, "start": None, "stage": stage(),
        "design": {"model": design, "tokenizer": str(language.folder / "tokenizer")},
    }  # fmt: skip
    objective = VlmObjective(config)
    names = objective.build().state_dict()
    assert [name for name in names if not objective.stored(name)] == []
    known = VlmObjective({**config, "language": str(language.folder)})
    left = {name for name in known.build().state_dict() if not known.stored(name)}
    assert left == {name for name in names if name.startswith("language.")}


@pytest.mark.parametrize("name", ["stage2", "few_bits"])
def test_the_memory_changes_what_is_said_and_survives_in_a_file(vlm, name, tmp_path):
    release = VlmRelease.from_release(of_stage(vlm, name).folder)
    samples = samples_of(vlm, release)
    first, second = (samples.sample(k, 0).image for k in (0, 1))
    talk = Conversation(release, Writing(6))
    with pytest.raises(ValueError, match="show an image first"):
        talk.ask("What did image 1 show?")
    talk.show(first)
    path = tmp_path / "memory.safetensors"
    talk.save(path, "m")
    again = Conversation(release, Writing(6))
    again.load(path, "m")
    assert again.seen == 1
    talk.show(second)
    again.show(second)
    assert talk.ask("What did image 1 show?") == again.ask("What did image 1 show?")
    with pytest.raises(ValueError, match="is the memory of m, not of another"):
        again.load(path, "another")
    again.forget()
    again.save(path, "m")
    assert not path.exists(), "what is forgotten is in no file"
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="delete it to begin anew"):
        again.load(path, "m")


def test_what_a_chat_forgets_is_not_remembered_by_the_next(vlm, tmp_path):
    image, memory, console = tmp_path / "one.png", tmp_path / "memory", Console(record=True)
    Image.effect_noise((40, 40), 50).save(image)
    for images, lines in (([image], ["/quit"]), ([], ["/forget"]), ([], ["What did image 1 show?"])):
        model = of_stage(vlm, "stage2").name
        chat(console, vlm, model=model, images=images, memory=memory, lines=iter(lines), writing=Writing(2))
        assert memory.exists() == bool(images)
    assert "1 images are remembered" in console.export_text(clear=False)
    assert "show an image first" in console.export_text()


def test_a_chat_says_what_an_image_is_called_and_which_one_it_replaces(vlm, tmp_path):
    console, steps = Console(record=True, width=200), 8
    images = [tmp_path / f"{k}.png" for k in range(steps + 1)]
    for image in images:
        Image.effect_noise((40, 40), 50).save(image)
    model = of_stage(vlm, "stage2").name
    chat(console, vlm, model=model, images=images, memory=None, lines=iter(["/quit"]), writing=Writing(2))
    told = console.export_text()
    assert f"image {steps} {images[-2]}" in told
    assert f"image 1 is forgotten: the next one takes its place\nimage 1 {images[-1]}" in told
    assert told.count("is forgotten") == 1


def test_the_image_after_the_last_place_takes_that_of_the_first(vlm):
    recall = VlmRelease.from_release(of_stage(vlm, "stage2").folder).network.recall
    torch.manual_seed(0)
    likeness = torch.zeros(recall.steps + 1)
    for _ in range(50):  # nine images in sixteen channels are alike by chance
        pooled, state = torch.randn(recall.steps + 1, 4, recall.when.shape[1]), None
        with torch.no_grad():
            for number, image in enumerate(pooled):
                state = recall.write_next(image, state, number)
            found = recall.memory.complete(recall.when[None, None, 0] / 2**0.5, state)[1][0, 0]
            found = found - (found @ recall.when[0]) * recall.when[0]
            likeness += recall.contents(pooled) @ found / 50
    first, *others, last = likeness.tolist()
    assert last > 1.5 * max(first, *others)


def test_a_question_is_asked_of_the_image_that_is_looked_at_or_would_be_the_next(vlm, monkeypatch, tmp_path):
    release = VlmRelease.from_release(of_stage(vlm, "stage2").folder)
    samples, asked = samples_of(vlm, release), []
    ask = type(release.network).ask

    def note(network, questions, now):
        asked.append(now.tolist())
        return ask(network, questions, now)

    monkeypatch.setattr(type(release.network), "ask", note)
    talk = Conversation(release, Writing(2))
    for number in range(2):
        talk.show(samples.sample(number, 0).image)
        talk.ask("What did the previous image show?")
    talk.save(tmp_path / "memory", "m")
    later = Conversation(release, Writing(2))
    later.load(tmp_path / "memory", "m")
    later.ask("What did the previous image show?")
    assert asked == [[0], [1], [2]]


def test_logits_depend_on_the_memory_and_not_at_all_where_its_gate_is_shut(vlm):
    network = VlmRelease.from_release(of_stage(vlm, "stage2").folder).network
    release = VlmRelease.from_release(of_stage(vlm, "stage2").folder)
    samples = samples_of(vlm, release)
    batch = collate([samples.sample(k, k) for k in range(4)])
    seen = network.see(batch.images)
    shown = torch.ones(4, dtype=torch.bool)
    content = torch.randn(4, network.language.width)
    with torch.no_grad():
        without = network.logits(batch.told, seen.prefix, shown)
        open_, shut = (
            network.logits(batch.told, seen.prefix, shown, content, torch.full((4,), gate))
            for gate in (20.0, -torch.inf)
        )
    assert (open_ - without).abs().max() > 1e-3
    there = batch.told.attended
    torch.testing.assert_close(shut[there], without[there], atol=1e-5, rtol=1e-5)


def test_texts_of_all_ranks_are_negatives_and_equal_ones_are_none(vlm):
    release = VlmRelease.from_release(of_stage(vlm, "stage1").folder)
    network, samples = release.network, samples_of(vlm, release)
    texts = (None, "a red square", "a red square", "two")  # the second rank says again what the first one said
    drawn = [replace(found, text=text or found.text) for k, text in enumerate(texts) if (found := samples.sample(k, k))]
    ranks, rows = [collate(drawn[:2]), collate(drawn[2:])], ([], [])
    assert ranks[0].captions.tokens.shape[1] != ranks[1].captions.tokens.shape[1], "padded differently"

    def note(rank):
        def gather(own):
            rows[rank].append(own)
            return own, slice(0, len(own))

        return gather

    def meet(rank):
        calls = iter(zip(*rows, strict=True))
        return lambda own: (torch.cat(next(calls)), slice(2 * rank, 2 * rank + len(own)))

    with torch.no_grad():
        for rank, batch in enumerate(ranks):
            network(batch, note(rank))
        found = torch.cat([network(batch, meet(rank)).terms["alignment"] for rank, batch in enumerate(ranks)])
        expected = network(collate(drawn)).terms["alignment"]
        alone = torch.cat([network(batch).terms["alignment"] for batch in ranks])
    torch.testing.assert_close(found, expected)
    assert (alone - expected).abs().max() > 0.1


def test_images_are_captioned_from_the_command_line_and_what_is_none_is_refused(vlm, tmp_path):
    site = only(vlm, "image_text_sample").folder / "site"
    images = [str(path) for path in sorted(site.iterdir())[:2]]
    model = ("--model", of_stage(vlm, "few_bits").name, "--max-new-tokens", "4")
    said = millrace("caption", *images, *model, root=vlm.root)
    assert said.returncode == 0, said.stderr
    assert all(f"{path}: " in said.stdout for path in images)
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    for path, why in ((text, "cannot be used as an image"), (tmp_path / "gone.png", "there is no image")):
        refused = millrace("caption", str(path), *model, root=vlm.root)
        assert refused.returncode == 2
        assert why in refused.stderr
    wrong = millrace("caption", *images, "--model", "image_text_index", root=vlm.root)
    assert wrong.returncode == 2
    assert "is no vision-language model" in wrong.stderr


def test_what_the_profile_of_scenes_makes_is_packed_and_can_be_exported():
    config = load_config(MicroVlmConfig, profile_path("microvlm", "scenes"), [])
    assert config.vlm.packed
    assert config.vlm.design.model.recall.injection == "prefix"


def objective_of(vlm, start: str | None, **changes) -> VlmObjective:
    shards, index, language = (
        str(only(vlm, kind).folder) for kind in ("image_text_shards", "image_text_index", "microvlm_language")
    )
    return VlmObjective(
        {
            "shards": shards,
            "index": index,
            "language": language,
            "start": start and str(of_stage(vlm, start).folder),
            "design": VlmRelease.from_release(of_stage(vlm, "stage1").folder).design.model_dump(mode="json"),
            "stage": stage(**changes),
        }
    )


@pytest.mark.parametrize("found", [1.0, 9.0])
def test_a_step_finds_a_temperature_that_can_be_trained(vlm, found):
    objective = objective_of(vlm, None)
    model = objective.build()
    objective.moment = Moment(epoch=0, seed=0, step=0, steps=2, micro_batch=0)
    model.alignment.log_scale.data.fill_(found)
    source = objective.source("train")
    objective.losses(model, objective.collate([source.sample(k, k) for k in range(4)]))
    assert model.alignment.log_scale.item() == pytest.approx(min(found, 4.6051702))


def test_relations_are_apart_by_what_quantisation_changes_and_teach_the_layer_that_makes_them(vlm):
    objective = objective_of(
        vlm, "stage2", language_layers=2, quantise=FEW_BITS, rates=("language",), weights={"relations": 1.0}
    )
    model = objective.build()
    samples = objective.source("train")
    batch = objective.collate([samples.sample(k, k) for k in range(4)])
    apart = []
    for step in (0, 1):
        objective.moment = Moment(epoch=0, step=step, steps=2, micro_batch=0, seed=0)
        apart.append(objective.losses(model, batch)["relations"])
    assert apart[0].item() == pytest.approx(0, abs=1e-4), "not quantised yet: the student is its teacher"
    assert apart[1].item() > 1e-3
    apart[1].backward()
    assert model.language.last_block.self_attn.q_proj.weight.grad.any()
    without = objective_of(vlm, "stage2", language_layers=2, quantise=FEW_BITS, rates=("language",))
    assert "relations" not in without.losses(without.build(), batch)


def test_what_a_training_watches_has_sections_of_its_own_and_moves_with_the_model(vlm):
    objective = objective_of(vlm, None)
    model = objective.build().eval()
    before = watch(objective, model)
    sections = {name.partition("/")[0] for name in before}
    assert sections == {"attention", "memory"}
    assert 0 < before["memory/utilization"] < 1
    assert before["attention/divergence"] > 0
    assert 0 <= before["attention/mean"] <= before["attention/max"] <= 1
    assert 0 <= before["attention/sparsity"] <= 1
    with torch.no_grad():
        model.recall.memory.prior_logvar.fill_(-4)
    assert watch(objective, model)["memory/utilization"] < before["memory/utilization"], (
        "a prior that is sure learns less"
    )


def test_no_model_is_judged_on_images_that_it_knows(vlm, tmp_path):
    root = tmp_path / "root"
    linked(vlm.root, root)
    splits = {"validation_share": 0.2, "test_share": 0.4}
    config = MicroVlmConfig.model_validate({**tiny.CONFIG, "splits": splits, "vlm": None})
    run(PIPELINE, config, root, Silent(), workers="inline")
    index = AssetStore(root).assets("image_text_index")[0]
    for kind in ("microvlm_model", "microvlm_packed"):
        result = millrace("evaluate", kind, "--on", index.name, root=root)
        assert result.returncode == 2
        words = rf"[1-9]\d* of the \d+ test images of image_text_index/{index.key[:12]} are among those that {kind}/"
        assert re.search(words, " ".join(result.stderr.split())), result.stderr
