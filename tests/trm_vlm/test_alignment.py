"""Image encoders: nested spaces, gathered rows, what is trained, and collapse."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from tokenizers.processors import TemplateProcessing
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from configs.alignment import AlignedConfig, AlignmentRecipe, PerceiverConfig, PooledConfig
from configs.vision_language import ClipVisionConfig, Square, VitConfig, VitSizes
from flows.commands.see import read_image
from models.build import build
from models.vision_language.image_encoder import cosines
from models.vision_language.vision import CLIP_LARGE, ClipVision
from storage.image_text_dataset import ImageTextDataset
from storage.shard_index import first_of_each_image
from tasks.alignment.objective import AlignmentObjective, ShownAndTold, effective_rank
from tasks.alignment.samples import AlignedImages, TextIds, collate, told
from tasks.samples.scene_drawing import RADII
from tasks.samples.scene_model import GRID, make_scene
from tasks.text.tokens import train_tokenizer
from tasks.training.share import gather_with_gradient
from tests.once import only
from tests.trm_vlm.tiny import ALIGNMENT, ENCODER

SIZES = {"side": 32, "patch": 8, "hidden": 16, "layers": 1, "heads": 2, "intermediate": 16}


def aligned(compared="mean", **encoder):
    torch.manual_seed(0)
    text = {"kind": "small", "vocabulary": 320, "hidden": 16, "layers": 1, "heads": 2, "longest": 12}
    model = {"encoder": {**ENCODER, **encoder}, "text": text, "compared": compared}
    return build(AlignedConfig.model_validate(model), 320)


@pytest.mark.parametrize("width", [24, 8])
def test_nats_are_those_of_clip_on_the_first_channels(width):
    model = aligned()
    images, texts = torch.randn(5, 24), torch.randn(5, 24)
    (found,) = model.nats(images[:, None], texts, slice(0, 5), torch.arange(5), [width])
    seen, said = (F.normalize(x[:, :width], dim=-1) for x in (images, texts))
    logits = model.log_scale.exp() * seen @ said.T
    labels = torch.arange(5)
    expected = (
        F.cross_entropy(logits, labels, reduction="none") + F.cross_entropy(logits.T, labels, reduction="none")
    ) / 2
    torch.testing.assert_close(found, expected)


def test_an_image_of_an_equal_text_is_no_negative():
    model = aligned()
    images = torch.randn(1, 24).expand(4, -1)
    (found,) = model.nats(images[:, None], images, slice(0, 4), torch.zeros(4, dtype=torch.int64), [24])
    torch.testing.assert_close(found, torch.zeros(4))
    apart = torch.eye(4, 24)
    (found,) = model.nats(apart[:, None], apart[[1, 0, 2, 3]], slice(0, 4), torch.tensor([7, 7, 1, 2]), [24])
    assert found[:2].max() < 20, "either of the two is right"


def test_a_text_is_found_among_those_that_are_not_said_and_finds_any_image_of_which_it_is_said():
    model = aligned()
    images, texts, same = torch.randn(3, 24), torch.randn(6, 24), [0, 1, 2, 0, 3, 4]
    found = model.nats(images[:, None], texts, slice(0, 3), torch.tensor(same), [16])[0].tolist()
    seen, said = (F.normalize(x[:, :16], dim=-1) for x in (images, texts))
    score = (model.log_scale.exp() * seen @ said.T).exp().tolist()
    numbers = [{0, 1}, {2, 0}, {3, 4}]
    for image in range(3):
        wrong = sum(score[image][n] for n in range(6) if same[n] not in numbers[image])
        nats = []
        for n in (2 * image, 2 * image + 1):
            right = sum(score[i][n] for i in range(3) if same[n] in numbers[i])
            nats.append(-math.log(score[image][n] / (score[image][n] + wrong)))
            nats.append(-math.log(right / sum(score[i][n] for i in range(3))))
        assert found[image] == pytest.approx(sum(nats) / 4, abs=1e-4)


@pytest.mark.parametrize("compared", ["mean", "tokens"])
def test_a_text_is_compared_with_the_mean_of_the_tokens_or_with_the_one_it_fits_best(compared):
    model = aligned(compared)
    images, texts = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8), torch.randn(4, 24)
    tokens = model.encoder.encode_images(images)
    found = cosines(model.image_vectors(images), texts, 16)
    for image in range(3):
        for text in range(4):
            each = [F.cosine_similarity(token[:16], texts[text, :16], dim=0) for token in tokens[image]]
            mean = F.cosine_similarity(tokens[image].mean(0)[:16], texts[text, :16], dim=0)
            torch.testing.assert_close(found[image, text], max(each) if compared == "tokens" else mean)


@pytest.mark.parametrize("vectors", [1, 5])
def test_all_that_is_said_of_an_image_is_compared_with_it(vectors):
    images, texts, of_image = torch.randn(3, vectors, 8), torch.randn(6, 8), torch.tensor([0, 0, 0, 1, 2, 2])
    said = F.normalize(texts[:, :4], dim=-1)
    if vectors == 1:
        means = torch.stack([said[of_image == k].mean(0) for k in range(3)])
        expected = F.cosine_similarity(images[:, :, :4], means[None], dim=-1)
    else:
        each = F.cosine_similarity(images[:, :, None, :4], said[None, None], dim=-1).amax(1)
        expected = torch.stack([each[:, of_image == k].mean(1) for k in range(3)], 1)
    torch.testing.assert_close(ShownAndTold(images, texts, of_image, torch.arange(3)).scores(4), expected)


@pytest.mark.parametrize("resampler", [
    PerceiverConfig(tokens=5, width=16, layers=2, heads=2), PooledConfig(tokens=5, width=16, heads=2)])  # fmt: skip
def test_an_image_becomes_so_many_tokens_that_differ(resampler):
    model = aligned(resampler=resampler.model_dump())
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    tokens = model.encoder.encode_images(images)
    assert tokens.shape == (3, 5, 24)
    assert (tokens[0, 0] - tokens[0, 1]).abs().max() > 1e-3
    torch.testing.assert_close(tokens[1:2], model.encoder.encode_images(images[1:2]), atol=1e-5, rtol=1e-5)


def _rank(rank: int, folder: str, images, texts, same) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = aligned()
    mine = slice(3 * rank, 3 * rank + 3)
    own = images[mine].clone().requires_grad_()
    gathered, rows = gather_with_gradient(own)
    said, _ = gather_with_gradient(texts.view(6, -1, 24)[mine].flatten(0, 1))
    which, _ = gather_with_gradient(same.view(6, -1)[mine].flatten())
    assert rows == mine
    sum(nats.sum() for nats in model.nats(gathered, said, rows, which, [24, 8])).backward()
    torch.save(own.grad, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("same", [[0, 1, 2, 3, 4, 0], [0, 1, 2, 3, 4, 0, 5, 6, 7, 7, 8, 9]])
def test_two_ranks_have_the_loss_and_the_gradient_of_one(tmp_path, same):
    torch.manual_seed(1)
    images, texts, same = torch.randn(6, 2, 24), torch.randn(len(same), 24), torch.tensor(same)
    torch.multiprocessing.start_processes(_rank, (str(tmp_path), images, texts, same), nprocs=2, start_method="fork")
    whole = images.clone().requires_grad_()
    sum(nats.sum() for nats in aligned().nats(whole, texts, slice(0, 6), same, [24, 8])).backward()
    found = torch.cat([torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)])
    torch.testing.assert_close(found, whole.grad, atol=1e-6, rtol=1e-5)


def test_the_rank_of_embeddings_tells_collapse():
    equal = torch.randn(1, 8).expand(20, -1)
    assert effective_rank(equal) == pytest.approx(1, abs=1e-6)
    assert effective_rank(torch.eye(8)) == pytest.approx(8)
    assert effective_rank(torch.eye(8) * torch.arange(1, 9)[:, None]) == pytest.approx(8), "length is nothing"


@pytest.mark.long
def test_a_loss_that_stands_at_chance_is_told(answered):
    objective = objective_of(answered)
    chance = (math.log(4) + math.log(10)) / 2  # a text among 4 images, and among 9 that are said of others
    flat = {"whole": chance, "nested": chance}
    assert not any(objective.remark(step, flat) for step in range(200))
    assert "collapsed" in objective.remark(200, flat)
    learning = objective_of(answered)
    assert not any(learning.remark(step, {"whole": 1.0, "nested": 1.0}) for step in range(300))


def objective_of(store, **changes) -> AlignmentObjective:
    encoder = only(store, "image_encoder").folder
    return AlignmentObjective({
        "shards": str(only(store, "image_text_shards").folder), "index": str(only(store, "image_text_index").folder),
        "tokenizer": str(encoder / "tokenizer"), "recipe": {**ALIGNMENT, **changes},
    })  # fmt: skip


@pytest.mark.parametrize("compared", ["mean", "tokens"])
def test_the_whole_loss_compares_all_channels_and_the_nested_one_the_first(answered, compared):
    objective = objective_of(answered, model={**ALIGNMENT["model"], "compared": compared})
    torch.manual_seed(0)
    model = objective.build()
    source = objective.source("train")
    batch = objective.collate([source.sample(k, k) for k in range(6)])
    losses = objective.losses(model, batch)
    with torch.no_grad():
        images, texts = model.image_vectors(batch.images), model.text_vectors(batch.tokens, batch.attended)
        by_width = [nats.sum() for nats in model.nats(images, texts, slice(0, 6), batch.same, [24, 16, 8])]
    torch.testing.assert_close(losses["whole"].detach(), by_width[0])
    torch.testing.assert_close(losses["nested"].detach(), (by_width[1] + by_width[2]) / 2)
    for term, channels in (("whole", 24), ("nested", 16)):
        for layer in (model.encoder.projection, model.text.project):
            (gradient,) = torch.autograd.grad(losses[term], layer.weight, retain_graph=True)
            assert gradient.any(1).tolist() == [channel < channels for channel in range(24)]


def test_every_part_that_is_trained_gets_gradient(answered):
    objective = objective_of(answered)
    torch.manual_seed(0)
    model = objective.build()
    source = objective.source("train")
    batch = objective.collate([source.sample(k, k) for k in range(6)])
    sum(objective.losses(model, batch).values()).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert without == []
    grouped = {id(p) for group in objective.groups(model).values() for p in group}
    assert grouped == {id(p) for p in model.parameters() if p.requires_grad}


def test_training_draws_texts_about_an_image_anew_and_evaluation_takes_all(answered):
    shards, index = (only(answered, kind).folder for kind in ("image_text_shards", "image_text_index"))
    ids = TextIds(only(answered, "image_encoder").folder / "tokenizer", 400)
    everything = AlignedImages(shards, index, "train", Square(32, "pad"), ids)
    few = AlignedImages(shards, index, "train", Square(32, "pad"), ids, texts=3)
    many = AlignedImages(shards, index, "train", Square(32, "pad"), ids, texts=20)
    whole = everything.sample(0, 1)
    assert whole.same == everything.sample(0, 2).same
    assert len(set(whole.same)) > 3
    drawn = [few.sample(0, seed).same for seed in range(4)]
    assert len({tuple(one) for one in drawn}) > 1
    assert all(len(set(one)) == 3 and set(one) < set(whole.same) for one in drawn)
    again = many.sample(0, 1).same
    assert len(again) == 20
    assert set(again) == set(whole.same), "again where there are fewer"
    batch = collate([few.sample(k, k) for k in range(4)])
    assert batch.of_image.tolist() == [k for k in range(4) for _ in range(3)]
    assert told(("", "a cat")) == "a cat"
    assert told(("Is it?", "yes")) == "Is it? yes."


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_what_lies_at_the_end_of_a_long_image_is_seen_unless_the_tower_crops(tmp_path, fit):
    pixels = np.full((40, 120, 3), 200, np.uint8)
    seen = []
    for number, left in enumerate(((255, 0, 0), (0, 0, 255))):
        pixels[:, :20] = left
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        encoder = aligned(tower={**ENCODER["tower"], "fit": fit}).encoder.eval()
        image = read_image(tmp_path / f"{number}.png", encoder.square)
        with torch.no_grad():
            seen.append((image, encoder(image[None])))
    (one, encoded), (other, encoded_too) = seen
    assert one.shape == (3, 32, 32)
    assert torch.equal(one, other) == torch.equal(encoded, encoded_too) == (fit == "crop")


def test_the_middle_square_of_scenes_lacks_much_of_what_is_asked():
    """The figures of the README."""
    lacking = cut = things = 0
    for scene in (make_scene(0, number) for number in range(3000)):
        longer = max(scene.aspect, 1 / scene.aspect)
        low, high = 0.5 - 0.5 / longer, 0.5 + 0.5 / longer  # what is kept of the longer side
        for thing in scene.things if longer > 1 else ():
            centre = ((thing.column if scene.aspect > 1 else thing.row) + 0.5) / GRID
            radius = RADII[thing.size] / GRID / longer
            lacking += not low <= centre <= high
            cut += low <= centre <= high and (centre - radius < low or centre + radius > high)
        things += len(scene.things)
    assert (round(lacking / things, 2), round(cut / things, 2)) == (0.23, 0.22)


def test_samples_are_what_their_encoder_sees_of_whole_images(answered):
    shards, index = (only(answered, kind).folder for kind in ("image_text_shards", "image_text_index"))
    objective = objective_of(answered)
    objective.build()
    found = objective.source("train")
    whole = ImageTextDataset(shards, index, "train", side=32, fit="pad")
    places = first_of_each_image(whole.index.entries)
    assert len(found) == len(places)
    for number, place in enumerate(places):
        assert torch.equal(found.sample(number, 0).image, whole[int(place)]["image"])


def test_a_stem_leaves_as_many_patches_to_a_tower_and_refuses_what_it_cannot_shrink():
    patched, stemmed = (
        build(VitConfig(pretrained=None, sizes=VitSizes.model_validate({**SIZES, "stem": stem})))
        for stem in ((), (8, 12))
    )
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert patched(images).shape == stemmed(images).shape == (2, 1 + patched.patches, 16)
    assert (patched.square, patched.patches) == (stemmed.square, stemmed.patches) == (Square(32, "pad"), 16)
    with pytest.raises(ValueError, match="16 times smaller, which must divide patch"):
        VitSizes.model_validate({**SIZES, "stem": (8, 8, 8, 8)})


def test_a_pretrained_clip_is_taken_from_a_whole_one_and_stays_frozen(tmp_path):
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 8}  # fmt: skip
    text = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 40,
    }
    torch.manual_seed(0)
    whole = CLIPModel(CLIPConfig(vision_config=vision, text_config=text)).eval()
    whole.save_pretrained(tmp_path / "clip")
    tower = build(ClipVisionConfig(pretrained=str(tmp_path / "clip"))).eval()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (ClipVisionConfig().mean, ClipVisionConfig().std))
    with torch.no_grad():
        expected = whole.vision_model(pixel_values=(images / 255 - mean) / std).last_hidden_state
        torch.testing.assert_close(tower(images), expected, atol=1e-5, rtol=1e-5)
    assert (tower.side, tower.patches, tower.width) == (32, 16, 16)
    recipe = AlignmentRecipe.model_validate({
        **ALIGNMENT, "train_tower": False,
        "model": {**ALIGNMENT["model"], "encoder": {**ENCODER, "tower": {
            "kind": "clip", "pretrained": str(tmp_path / "clip")}}},
        "training": {**ALIGNMENT["training"], "learning_rates": {"resampler": 1e-3, "text": 1e-3}}})  # fmt: skip
    assert recipe.groups() == ("resampler", "text")
    with pytest.raises(ValueError, match="random must be trained"):
        AlignmentRecipe.model_validate({**ALIGNMENT, "train_tower": False, "training": {
            **ALIGNMENT["training"], "learning_rates": {"resampler": 1e-3, "text": 1e-3}}})  # fmt: skip
    with pytest.raises(ValueError, match="must fall and begin below"):
        AlignmentRecipe.model_validate({**ALIGNMENT, "widths": [8, 16]})


def test_the_full_size_is_that_of_clip_large():
    assert VitSizes(side=336, patch=14, hidden=1024, layers=24, heads=16, intermediate=4096) == CLIP_LARGE
    with torch.device("meta"):
        tower = ClipVision(ClipVisionConfig(pretrained=None))
    assert tower.patches == 576
    assert 302e6 < sum(p.numel() for p in tower.parameters()) < 305e6


def test_texts_are_cut_as_the_tokenizer_would_and_keep_its_marks(tmp_path):
    train_tokenizer(["a red circle", "how many stars are there"], 300, tmp_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(tmp_path))
    rust = tokenizer.backend_tokenizer
    rust.post_processor = TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    rust.enable_padding(length=20)
    rust.enable_truncation(3)
    tokenizer.save_pretrained(str(tmp_path))
    ids = TextIds(tmp_path, 9)
    for text in ("", "a star", "how many red stars are there, and how many circles?"):
        expected = AutoTokenizer.from_pretrained(str(tmp_path)).encode(text, truncation=True, max_length=9)
        assert ids(text) == expected
        assert (expected[0], expected[-1]) == (0, 1)
        assert len(expected) <= 9
