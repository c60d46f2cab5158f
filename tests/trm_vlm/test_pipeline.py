"""The whole way from scenes with questions to answers, at the smallest sizes that have every part."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmarks.bench import Bench
from benchmarks.suite import answers as benchmark
from configs.trm_vlm import TrmVlmConfig
from flows.commands import local
from flows.commands.ask import answerer_asset
from flows.runner import plan, run
from flows.trm_vlm import PIPELINE
from storage.assets import AssetStore
from storage.image_text_dataset import ImageTextDataset
from storage.image_texts import read_rows
from storage.manifest import MANIFEST, sealed
from storage.question_set import QuestionSet
from storage.shard_index import SPLITS
from tasks.alignment.released import AlignedRelease
from tasks.answering import evaluation
from tasks.answering.evaluation import exact_by_depth
from tasks.answering.objective import Shuffled, all_right
from tasks.answering.released import AnswererRelease
from tasks.answering.samples import AnswerSample, Questions, collate
from tasks.answering.writing import Writing, answers, answers_by_depth
from tasks.progress import Silent
from tests.command import millrace
from tests.once import linked, only
from tests.trm_vlm.tiny import CONFIG


def model_of(store, name: str) -> AnswererRelease:
    """Return the released decoder of a name."""
    report = only(store, "answer_report")
    (record,) = (r for r in report.manifest.inputs if r.name == name)
    return AnswererRelease.from_release(store.root / record.kind / record.key)


def folders(store):
    return tuple(only(store, kind).folder for kind in ("image_text_shards", "image_text_index", "question_set"))


def test_the_report_compares_every_decoder_with_every_control(answered):
    folder = only(answered, "answer_report").folder
    scores = json.loads((folder / "scores.json").read_text())
    assert list(scores["decoders"]) == ["plain", "trm", "blind", "trm-ternary"]
    for name, table in scores["decoders"].items():
        assert table["gains"].keys() == {"majority", *scores["decoders"]} - {name}
        for other, gain in table["gains"].items():
            assert gain["low"] <= gain["value"] <= gain["high"]
            if other != "majority":
                assert gain["value"] == pytest.approx(-scores["decoders"][other]["gains"][name]["value"])
        (seed,) = table["seeds"].values()
        assert seed["scores"]["all"]["questions"] == 12
        assert set(seed["by_depth"]) == ({"1", "2", "5"} if name in ("trm", "trm-ternary") else set())
    assert scores["decoders"]["trm"]["gflops"] > scores["decoders"]["blind"]["gflops"] > 0
    assert scores["decoders"]["trm-ternary"]["parameters"] == scores["decoders"]["trm"]["parameters"] > 1000
    rows = list(csv.DictReader((folder / "scores.csv").open()))
    assert [row["decoder"] for row in rows] == ["plain", "trm", "blind", "trm-ternary"]
    kinds = list(csv.DictReader((folder / "by_kind.csv").open()))
    for name, table in scores["decoders"].items():
        own = [row for row in kinds if row["decoder"] == name]
        assert sum(int(row["questions"]) for row in own) == 12
        assert {row["peer"] for row in own} <= {"majority", "blind"} - {name}
        for row in own:
            exact = table["seeds"][next(iter(table["seeds"]))]["scores"][row["kind"]]["exact"]
            others = [scores["majority"][row["kind"]]["exact"]]
            if name != "blind":
                others.append(scores["decoders"]["blind"]["seeds"]["blind-0"]["scores"][row["kind"]]["exact"])
            assert float(row["gain"]) == pytest.approx(exact - max(others), abs=1e-5)
            if row["low"]:  # there is none for a kind that is asked about a single image
                assert float(row["low"]) <= float(row["gain"]) <= float(row["high"])
        assert any(row["low"] for row in own)
    assert {"answers.png", "depths.png", "costs.png", "by_kind.png"} <= {path.name for path in folder.iterdir()}


def test_the_benchmark_reads_the_report_of_the_pipeline(answered, tmp_path, monkeypatch):
    folder = only(answered, "answer_report").folder
    scores = json.loads((folder / "scores.json").read_text())
    tables = scores["decoders"]
    tables["plain_longer"] = tables["plain"]
    tables["trm"]["gains"]["plain_longer"] = tables["trm"]["gains"]["plain"]
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    folders = {"answer_report": tmp_path, "alignment_report": only(answered, "alignment_report").folder}
    monkeypatch.setattr(benchmark, "run_pipeline", lambda *asked: (None, folders))
    figures = {figure.name: figure for figure in benchmark.run(Bench("answers", tmp_path))}
    for name in ("trm", "plain"):
        figure = figures[f"{name}_em_gain_over_blind"]
        assert figure.value == pytest.approx(tables[name]["gains"]["blind"]["low"], rel=0.01)
        for kind, found in tables[name]["by_kind"].items():
            said = f"{kind.replace('_', '/')} {found['exact']:.2f} of {found['questions']}, "
            assert said in figure.notes[1]
            assert f") over {found['peer']}" in figure.notes[1].partition(said)[2].partition(";")[0]


def test_every_width_is_judged_by_itself(answered):
    table = json.loads((only(answered, "alignment_report").folder / "retrieval.json").read_text())
    assert list(table["by_width"]) == ["24", "16", "8"]
    for found in table["by_width"].values():
        assert {"text_at_1", "image_at_10", "text_map", "image_map"} <= found.keys()


def test_no_image_is_in_two_splits_and_every_question_is_there(answered):
    shards, index, folder = folders(answered)
    found = QuestionSet(folder)
    items = {split: {one.item for one in found.asked(split)} for split in SPLITS}
    assert (
        not items["train"] & items["validation"] | items["train"] & items["test"] | items["validation"] & items["test"]
    )
    for split in SPLITS:
        listed = [(row["question"], row["answer"], row["row"]) for row in read_rows(shards, index, split)]
        assert [(one.question, one.answer, one.row) for one in found.asked(split)] == listed


def test_what_is_kept_of_an_image_is_what_the_encoder_sees_of_it_alone(answered):
    shards, index, folder = folders(answered)
    network = AlignedRelease.from_release(only(answered, "image_encoder").folder).network
    found = QuestionSet(folder)
    for split in ("train", "test"):
        images = ImageTextDataset(shards, index, split, side=32, fit="pad")
        for place in (0, len(images) // 2, len(images) - 1):
            sample, asked = images[place], found.asked(split)[place]
            assert sample["row"] == asked.row
            with torch.no_grad():
                latents = network.encoder.latents(sample["image"][None])[0]
                tokens = network.encoder.encode_images(sample["image"][None])[0]
            torch.testing.assert_close(found.features(asked.item).float(), latents, atol=2e-3, rtol=2e-3)
            projected = found.features(asked.item).float() @ found.projection()["weight"].T + found.projection()["bias"]
            torch.testing.assert_close(projected, tokens, atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize("name", ["plain-0", "trm-0", "blind-0", "trm-ternary"])
def test_a_batch_answers_what_single_questions_answer_and_greedy_is_what_the_likeliest_tokens_are(answered, name):
    release = model_of(answered, name)
    source = Questions(folders(answered)[2], "test", release.asking, 8)
    samples = [source.sample(k, 0) for k in range(8)]
    features, asked = torch.stack([s.features for s in samples]), [one.question for one in source.asked]
    together = answers(release.network, source.asking, features, asked, Writing(4))
    alone = [answers(release.network, source.asking, features[k][None], [asked[k]], Writing(4))[0] for k in range(8)]
    assert together == alone
    # An answer that greedy decoding writes is one whose every token is the likeliest, and the other way round.
    tokens = release.tokens
    written = [[*tokens.ids(f" {text}"), tokens.end] for text in alone]
    asked_of = [sample.pairs[0][0] for sample in samples]
    rows = [(s.features, [(ids, answer)]) for s, ids, answer in zip(samples, asked_of, written, strict=True)]
    batch = collate([AnswerSample(*row) for row in rows])
    with torch.no_grad():
        logits = release.network(batch)
    greedy = release.network.language.generate(
        *release.network.prompts(features, asked_of),
        max_new_tokens=4, temperature=0.0, top_p=1.0, end=tokens.end,
    )  # fmt: skip
    for k, ids in enumerate(greedy):
        if [*ids, tokens.end] == written[k] and len(ids) < 4:
            assert all_right(logits, batch)[k]


@pytest.mark.parametrize("name", ["plain-0", "trm-0"])
def test_logits_know_nothing_of_later_tokens_and_something_of_the_image(answered, name):
    release = model_of(answered, name)
    source = Questions(folders(answered)[2], "test", release.asking, 4)
    batch = collate([source.sample(0, 0)])
    changed = batch.tokens.clone()
    changed[0, -1] = (changed[0, -1] + 7) % len(release.tokens)
    other = collate([Shuffled(source, 0).sample(0, 0)])
    with torch.no_grad():
        logits = release.network(batch)
        later = release.network(type(batch)(batch.features, changed, batch.attended, batch.learned))
        elsewhere = release.network(other)
    torch.testing.assert_close(logits, later, atol=0, rtol=0)
    assert (logits - elsewhere).abs().max() > 1e-4


def test_a_blind_model_does_not_see(answered):
    release = model_of(answered, "blind-0")
    source = Questions(folders(answered)[2], "test", release.asking, 4)
    with torch.no_grad():
        own = release.network(collate([source.sample(k, 0) for k in range(4)]))
        other = release.network(collate([Shuffled(source, 0).sample(k, 0) for k in range(4)]))
    assert torch.equal(own, other)


def test_a_recursive_decoder_answers_after_every_step_and_beyond_those_of_its_training(answered):
    release = model_of(answered, "trm-0")
    source = Questions(folders(answered)[2], "test", release.asking, 2)
    features, asked = source.sample(0, 0).features[None], [source.asked[0].question]
    told = list(answers_by_depth(release.network, source.asking, features, asked, 9, Writing(3)))
    assert len(told) == 9
    assert told[2] == answers(release.network, source.asking, features, asked, Writing(3)), "three steps, as trained"


def test_the_curve_over_depth_counts_every_question_once(answered):
    release = model_of(answered, "trm-0")
    source = Questions(folders(answered)[2], "test", release.asking, 40)
    batch = collate([source.sample(k, 0) for k in range(40)])
    with torch.no_grad():
        alone = [float(all_right(logits, batch).float().mean()) for logits in release.network.by_depth(batch, 5)]
    assert len({one.item for one in source.asked}) < 40, "images have several"
    found = exact_by_depth(release, source, (1, 3, 5))
    assert found == pytest.approx({1: alone[0], 3: alone[2], 5: alone[4]})


def test_the_curve_over_depth_says_after_which_step_answers_are_right(answered, monkeypatch):
    """A model that is right from its second step on, asked in several batches."""
    release = model_of(answered, "trm-0")
    source = Questions(folders(answered)[2], "test", release.asking, 40)
    monkeypatch.setattr(evaluation, "BATCH", 2 * evaluation.AT_ONCE)
    monkeypatch.setattr(type(release.network), "by_depth", lambda self, batch, steps: iter(range(1, steps + 1)))
    monkeypatch.setattr(evaluation, "all_right", lambda step, batch: torch.full(batch.asked.shape, step >= 2))
    assert exact_by_depth(release, source, (1, 2, 3)) == {1: 0, 2: 1, 3: 1}


def test_questions_are_answered_from_the_command_line(answered, tmp_path):
    from PIL import Image

    picture = tmp_path / "photo.png"
    Image.new("RGB", (80, 60), (200, 30, 30)).save(picture)
    asked = [str(picture), "How many stars are there?", "What colour is it?"]
    trm = next(r for r in only(answered, "answer_report").manifest.inputs if r.name == "trm-0")
    assert answerer_asset(answered, None, recursive=True).key == trm.key, "steps are asked of what recurses"
    assert answerer_asset(answered, None).manifest.config["design"]["vision"], "the blind one has no part in it"
    result = millrace(
        "ask", *asked, "--model", f"answerer/{trm.key}", "--show-steps", "--steps", "2", root=answered.root
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("How many stars are there?") == result.stdout.count("after step 2") == 2
    result = millrace("ask", *asked, "--max-new-tokens", "2", "--beams", "3", root=answered.root)
    assert result.returncode == 0, result.stderr
    plain = next(r for r in only(answered, "answer_report").manifest.inputs if r.name == "plain-0")
    result = millrace("ask", *asked, "--model", f"answerer/{plain.key}", "--steps", "2", root=answered.root)
    assert result.returncode == 2
    assert "does not recurse" in result.stderr
    long = "If you do not look at the small red ones there, how many stars are there?"
    result = millrace("ask", str(picture), long, "--model", f"answerer/{plain.key}", root=answered.root)
    assert result.returncode == 2
    assert "so it would not see 'If you" in result.stderr


def test_decoders_and_encoders_are_judged_again(answered):
    for kind in ("image_encoder", "answerer_packed"):
        asset = only(answered, kind)
        result = millrace("evaluate", asset.name, root=answered.root)
        assert result.returncode == 0, result.stderr


def test_no_model_is_judged_on_images_that_it_knows(answered, tmp_path):
    root = tmp_path / "root"
    linked(answered.root, root)
    splits = {"validation_share": 0.2, "test_share": 0.4}
    config = TrmVlmConfig.model_validate({**CONFIG, "splits": splits, "alignment": None, "answering": None})
    run(PIPELINE, config, root, Silent(), workers="inline")
    index = AssetStore(root).assets("image_text_index")[0]
    assert index.key != only(answered, "image_text_index").key
    fingerprint = AssetStore(root).find(index.name).fingerprint
    questions = of_other_input(root, "image_text_index", key=index.key, fingerprint=fingerprint)
    for kind, on in (("image_encoder", index.name), ("answerer", questions), ("answerer_packed", questions)):
        result = millrace("evaluate", kind, "--on", on, root=root)
        assert result.returncode == 2
        words = rf"[1-9]\d* of the \d+ test images of image_text_index/{index.key[:12]} are among those that {kind}/"
        assert re.search(words, " ".join(result.stderr.split())), result.stderr


def of_other_input(root: Path, kind: str, **changes: str) -> str:
    """Return questions that are said to be made from another asset of a kind."""
    questions = only(AssetStore(root), "question_set")
    other = questions.folder.with_name("f" * 24)
    shutil.copytree(questions.folder, other)
    inputs = tuple(
        record.model_copy(update=changes) if record.kind == kind else record for record in questions.manifest.inputs
    )
    (other / MANIFEST).unlink()
    (other / MANIFEST).write_text(sealed(questions.manifest.model_copy(update={"key": other.name, "inputs": inputs})))
    return str(other)


def test_no_answerer_is_judged_by_what_another_encoder_saw(answered, tmp_path):
    root = tmp_path / "root"
    linked(answered.root, root)
    questions = of_other_input(root, "image_encoder", fingerprint="0")
    report = answered.assets("answer_report")[-1]  # the pipeline's
    answerers = {r.name: r.key for r in report.manifest.inputs if r.kind == "answerer"}
    for name, code in (("plain-0", 2), ("blind-0", 0)):
        result = millrace("evaluate", f"answerer/{answerers[name]}", "--on", questions, root=root)
        assert result.returncode == code, result.stderr
        assert ("keeps what another encoder saw" in " ".join(result.stderr.split())) == (code == 2)


@pytest.mark.long
def test_an_encoder_may_be_aligned_on_other_images_than_those_of_the_questions(answered, tmp_path):
    linked(answered.root, tmp_path / "root", "image_encoder", "alignment_report", "answer*", "question_set")
    captions = {**{name: CONFIG[name] for name in ("image", "images_per_shard", "splits")},
                "source": {**CONFIG["source"], "layout": "cc12m", "images": 40, "seed": 5}}  # fmt: skip
    config = TrmVlmConfig.model_validate({**CONFIG, "alignment_data": captions, "answering": None})
    record = run(PIPELINE, config, tmp_path / "root", Silent(), workers="inline")
    store = AssetStore(tmp_path / "root")
    encoder, report = only(store, "image_encoder"), only(store, "alignment_report")
    (questions, texts) = sorted(store.assets("image_text_index"), key=lambda asset: asset.manifest.created_at)
    for asset in (encoder, report):
        assert texts.key in {made.key for made in asset.manifest.inputs}
        assert questions.key not in {made.key for made in asset.manifest.inputs}
    assert record.state == "Completed"


def test_beams_and_temperature_exclude_each_other(answered, tmp_path):
    result = millrace("ask", "photo.jpg", "What?", "--beams", "2", "--temperature", "0.5", root=answered.root)
    assert (result.returncode, "give one of --beams and --temperature" in result.stderr) == (2, True)


def test_ablations_vary_a_decoder_and_may_have_seeds_of_their_own(tmp_path):
    longer = {"of": "plain", "set": {"training.epochs": 7, "design.decoder.sizes.layers": 1}, "seeds": [7]}
    answering = {**CONFIG["answering"], "seeds": [0, 1], "ablations": {"longer": longer}}
    config = TrmVlmConfig.model_validate({**CONFIG, "answering": answering})
    stages = [outcome.stage for outcome in plan(PIPELINE, config, tmp_path)]
    trained = {stage.removeprefix("answerer_training ") for stage in stages if stage.startswith("answerer_training")}
    assert trained == {"plain-0", "plain-1", "trm-0", "trm-1", "blind-0", "blind-1", "longer-7"}
    recipes = {name: recipe for name, _, recipe in config.answering.trainings()}
    assert recipes["longer"].training == recipes["plain"].training.model_copy(update={"epochs": 7})
    for wrong, why in (
        ({"set": {"design.vision": True}}, "ablation longer sets what plain has already"),
        ({"set": {"training.seed": 7}}, "longer: seeds takes the place of training.seed; write 7 there"),
        ({"set": {"training.epochs.x": 1}}, "ablation longer: training.epochs.x: epochs is a value"),
    ):
        with pytest.raises(ValueError, match=why):
            TrmVlmConfig.model_validate(
                {**CONFIG, "answering": {**answering, "ablations": {"longer": {**longer, **wrong}}}}
            )
    for taken in ("trm-0", "index"):
        packed = {taken: {"decoder": "trm", "recipe": {"ternary": ["*"]}}}
        with pytest.raises(ValueError, match=f"packed: {taken} names something else in reports"):
            TrmVlmConfig.model_validate({**CONFIG, "answering": {**CONFIG["answering"], "packed": packed}})
    with pytest.raises(ValueError, match="ablation longer varies 'plane'"):
        TrmVlmConfig.model_validate(
            {**CONFIG, "answering": {**answering, "ablations": {"longer": {**longer, "of": "plane"}}}}
        )


def test_the_encoder_is_aligned_on_no_image_that_the_questions_keep_for_test():
    splits = CONFIG["splits"]
    for other in ({}, {**splits, "test_share": 0.2}, {**splits, "validation_share": 0.2}, {**splits, "seed": 1}):
        with pytest.raises(ValueError, match=r"set alignment_data\.splits to {'validation_share': 0\.25"):
            TrmVlmConfig.model_validate({**CONFIG, "alignment_data": {"splits": other}})
    other = {"splits": {**splits, "seed": 0}, "images_per_shard": 7}
    assert TrmVlmConfig.model_validate({**CONFIG, "alignment_data": other}).alignment_data is not None


def test_a_run_prepares_what_its_trainings_will_import(tmp_path, monkeypatch):
    config = TrmVlmConfig.model_validate(CONFIG)
    found = {outcome.stage: outcome.trains for outcome in plan(PIPELINE, config, tmp_path)}
    objective, *built = found["alignment_training"]
    assert objective == "tasks.alignment.objective:AlignmentObjective"
    assert "models.vision_language.image_encoder:Aligned" in built
    assert not any(found[stage] for stage in ("image_text_shards", "alignment_report", "answer_report"))

    prepared: list[str] = []
    monkeypatch.setattr(local, "run", lambda *told, **more: None)
    monkeypatch.setattr(local.launch, "prepare", prepared.extend)
    settings = {"profile": "", "engine": "inline", "workers": "inline", "deep": False}
    local.run_here({PIPELINE: config}, tmp_path, Console(quiet=True), **settings)
    assert {objective, *built, "tasks.answering.objective:AnswerObjective"} <= set(prepared)
