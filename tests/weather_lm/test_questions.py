"""Questions about weather windows: against plain numpy, and from the profile to answers."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from configs.weather import Recipe, SplitConfig, WindowConfig
from storage.assets import AssetStore
from storage.question_set import QuestionSet
from storage.window_dataset import WindowDataset
from tasks.answering.scores import kind_of
from tasks.era5.training_set import build_training_set
from tasks.mae.released import MaeRelease
from tasks.weather_questions.asking import Climate, Question, questions_of
from tasks.weather_questions.facts import FACTS, QUANTITIES, facts_of, quantities_of
from tasks.weather_questions.questions import pooled, window_facts
from tests.command import millrace
from tests.era5.stores import write_store
from tests.once import build_once, only

TOTALS = {"tp": "hourly"}
UNITS = {"t2m": "K", "u10": "m s-1", "v10": "m s**-1", "msl": "Pa", "tp": "m"}
ALL = 1000
"""More questions than any window allows."""
QUANTITY = {
    "temperature": "warm|cold|temperature|Celsius", "pressure": "pressure|hectopascal", "rain": "rain|wet|dri",
    "wind": "wind|calm",
}  # fmt: skip
MORE = r"warmer|windier|wetter|higher|more|above"


def physical(fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    fields = {name: values.astype(np.float64) for name, values in fields.items()}
    return {
        "temperature": fields["t2m"] - 273.15, "wind": np.sqrt(fields["u10"] ** 2 + fields["v10"] ** 2),
        "pressure": fields["msl"] / 100, "rain": fields["tp"] * 1000,
    }  # fmt: skip


class Reader:
    """Answers questions from their words and a window's fields; cells one by one."""

    def __init__(self, fields: dict[str, np.ndarray], latitude: np.ndarray, usual: dict[str, float]) -> None:
        self.values, self.latitude, self.usual = physical(fields), latitude, usual
        self.mean = cache(self._mean)

    def _mean(self, quantity: str, place: str = "", steps: tuple[int, int | None] = (0, None)) -> float:
        values = self.values[quantity][slice(*steps)].mean(0)
        rows, columns = values.shape
        total = weights = 0.0
        for y in range(rows):
            for x in range(columns):
                inside = all({
                    "north": y < rows / 2 and y != (rows - 1) / 2, "south": y > (rows - 1) / 2,
                    "west": x < columns / 2 and x != (columns - 1) / 2, "east": x > (columns - 1) / 2,
                    "centre": abs(y - (rows - 1) / 2) <= rows / 4 and abs(x - (columns - 1) / 2) <= columns / 4,
                }[word] for word in place.split())  # fmt: skip
                weight = np.cos(np.deg2rad(self.latitude[y])) * inside
                total, weights = total + weight * values[y, x], weights + weight
        return total / weights

    def answer(self, question: str) -> str:
        quantity = next(name for name, words in QUANTITY.items() if re.search(words, question))
        quarters = {f"{a} {b}": self.mean(quantity, f"{a} {b}") for a in ("north", "south") for b in ("west", "east")}
        places = re.findall(r"(?:the )((?:north|south)(?: west| east)?|west|east)\b", question)
        if question.startswith("Where"):
            least = re.search("coldest|lowest|weakest|calmest|least|driest", question)
            return (min if least else max)(quarters, key=lambda name: quarters[name])
        if question.startswith("How many"):
            level = re.search(r"(minus )?(\d+) (degrees|metres|hecto)", question)
            return str(sum(mean > int(level[2]) * (-1 if level[1] else 1) for mean in quarters.values()))
        if nearest := re.search(r"(highest|lowest|strongest).* nearest (\d)", question):
            extreme = self.values[quantity].min() if nearest[1] == "lowest" else self.values[quantity].max()
            value = int(np.floor(extreme / int(nearest[2]) + 0.5) * int(nearest[2]))
            return str(value) if value >= 0 else f"minus {-value}"
        if "period's mean" in question:
            return "yes" if self.mean(quantity) > self.usual[quantity] else "no"
        if "rise" in question:
            first, last = (self.mean(quantity, "centre", s) for s in ((0, 1), (-1, None)))
            return "rise" if last > first else "fall"
        assert re.search(MORE, question)
        a, b = (self.mean(quantity, place) for place in places)
        if " or " in question or question.startswith("Which"):
            return places[0] if a > b else places[1]
        return "yes" if a > b else "no"


def weather(seed: int, shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """Fields with a slope and noise."""
    random = np.random.default_rng(seed)
    _, rows, columns = shape
    y, x, t = np.linspace(-1, 1, rows)[:, None], np.linspace(-1, 1, columns), np.linspace(-1, 1, shape[0])

    def field(mean: float, spread: float) -> np.ndarray:
        slopes = random.normal(0, spread, 3)
        slope = slopes[0] * y + slopes[1] * x + slopes[2] * t[:, None, None]
        return (mean + slope + random.normal(0, spread / 4, shape)).astype(np.float32)

    return {"t2m": field(random.normal(275, 10), 4), "u10": field(4, 4), "v10": field(0, 4),
            "msl": field(101_000, 600), "tp": np.maximum(field(3e-4, 1e-4), 0)}  # fmt: skip


LATITUDE = np.linspace(60, 40, 9)
USUAL = {"temperature": 4.0, "wind": 5.0, "pressure": 1011.0, "rain": 0.3}
LEVELS = {"temperature": (-3, 4, 10), "wind": (3, 5), "pressure": (1008, 1012), "rain": ()}


def asked_of(fields: dict[str, np.ndarray], seed: int, most: int = ALL, usual=USUAL) -> list[Question]:
    facts = {q: facts_of(q.values(fields), LATITUDE) for q in QUANTITIES}
    climates = {q: Climate(usual[q.name], LEVELS[q.name]) for q in QUANTITIES}
    return questions_of(facts, climates, most, [seed])


def test_answers_are_those_of_the_fields_for_every_kind_and_quantity():
    asked = Counter()
    for seed in range(25):
        fields = weather(seed, (4, 9, 10))
        reader = Reader(fields, LATITUDE, USUAL)
        for one in asked_of(fields, seed):
            assert one.answer == reader.answer(one.question), one
            quantity = next(name for name, words in QUANTITY.items() if re.search(words, one.question))
            asked[quantity, kind_of(one.question, one.answer)] += 1
    kinds = {"position", "relation", "yes_no", "trend", "count", "number"}
    assert {kind for _, kind in asked} == kinds
    assert {kind for name, kind in asked if name == "temperature"} == kinds
    assert {kind for name, kind in asked if name == "rain"} == {"position", "relation", "yes_no"}


def test_what_lies_within_noise_is_not_asked():
    flat = {"t2m": 282.15, "u10": 3.0, "v10": 4.0, "msl": 101_310.0, "tp": 1e-4}
    fields = {name: np.full((4, 9, 10), value, np.float32) for name, value in flat.items()}
    here = {"temperature": 9.0, "wind": 5.0, "pressure": 1013.1, "rain": 0.1}
    told = {one.question.split(",")[0]: one.answer for one in asked_of(fields, 0, usual=here)}
    assert not [q for q in told if not q.startswith(("What", "How many"))], "nothing is more than elsewhere, or usual"
    assert not [q for q in told if "5 metres" in q]
    assert told["What is the highest temperature"] == "10"
    assert told["What is the highest pressure"] == "1015"
    for name, value in (("t2m", 285.65), ("msl", 101_260.0)):
        fields[name][:] = value  # 12.5 degrees, between 10 and 15; 1012.6, to 1015 within a twentieth
    told = {one.question.split(",")[0] for one in asked_of(fields, 0, usual=here)}
    assert not [q for q in told if q.startswith("What") and "wind" not in q]
    fields["t2m"][:, :4, :] += 0.4
    assert not [one for one in asked_of(fields, 0, usual=here) if re.search("Where is it|warmer in", one.question)]
    fields["t2m"][:, :4, :] += 0.4
    assert [one for one in asked_of(fields, 0, usual=here) if re.search("warmer", one.question)]


def test_nothing_is_asked_about_what_is_missing():
    fields = weather(0, (4, 9, 10))
    fields["t2m"][:, :4, :5] = np.nan
    facts = dict(zip(FACTS, facts_of(QUANTITIES[0].values(fields), LATITUDE), strict=True))
    assert np.isnan(facts["north west"])
    assert np.isfinite(facts["south east"])
    asked = [one.question for one in asked_of(fields, 0) if re.search(QUANTITY["temperature"], one.question)]
    assert asked
    assert not [q for q in asked if q.startswith(("Where", "How many")) or "north west" in q]


def test_the_same_seed_asks_the_same_and_no_more_than_wanted():
    fields = weather(3, (4, 9, 10))
    assert asked_of(fields, 5, 6) == asked_of(fields, 5, 6)
    assert len(asked_of(fields, 5, 6)) == 6
    assert asked_of(fields, 5, 6) != asked_of(fields, 6, 6)


def asked_about(units: dict[str, str], declared: dict[str, str] = TOTALS) -> list[str]:
    """Return the names of what a store with such channels is asked about; `declared` are accumulations."""
    variables = [{"variable": name, "accumulation": kind} for name, kind in declared.items()]
    return [q.name for q in quantities_of({"units": units, "recipe": {"variables": variables}})]


def test_only_channels_of_the_store_are_asked_about_in_their_units():
    assert asked_about(UNITS) == ["temperature", "wind", "pressure", "rain"]
    assert asked_about({"t2m": "degC", "u10": "m s**-1", "msl": "Pa"}) == ["pressure"]
    with pytest.raises(ValueError, match=r"t2m in K; u10 and v10 in m s\*\*-1; .* none of these, only sst"):
        asked_about({"sst": "K"})


@pytest.mark.parametrize("declared", [{"tp": "since_00utc"}, {"tp": "mean_rate"}, {}])
def test_rain_is_asked_about_where_a_value_holds_the_total_of_its_hour(declared):
    assert asked_about(UNITS, declared) == ["temperature", "wind", "pressure"]
    with pytest.raises(ValueError, match="tp in m, declared hourly, and the store has none of these, only tp"):
        asked_about({"tp": "m"}, declared)


def test_facts_come_from_the_raw_values_of_the_window(tmp_path):
    fields = weather(1, (64, 16, 24))
    data = np.stack([fields[name] for name in UNITS], 1)
    recipe = Recipe.model_validate({"variables": [{"variable": "tp", "accumulation": "hourly"}]})
    store = write_store(tmp_path / "store", data, units=UNITS, recipe=recipe)
    windows = WindowConfig(time=4, height=8, width=10, stride_time=4, stride_height=4, stride_width=7)
    splits = SplitConfig(validation_share=0.2, test_share=0.2)
    build_training_set(store, windows, splits).save(tmp_path / "set")
    test = WindowDataset(tmp_path / "store", tmp_path / "set", "test")
    t, y, x = test.training_set.origin("test", 3)
    box = {name: values[t : t + 4, y : y + 8, x : x + 10] for name, values in fields.items()}
    reader = Reader(box, store.latitude[y : y + 8], {})
    found = window_facts(test, 3)
    for name, row in zip(("temperature", "wind", "pressure", "rain"), found, strict=True):
        facts = dict(zip(FACTS, row, strict=True))
        for place in ("north west", "south east", "north", "east"):
            assert facts[place] == pytest.approx(reader.mean(name, place), rel=1e-6)
        assert facts["mean"] == pytest.approx(reader.mean(name), rel=1e-6)
        assert facts["last"] == pytest.approx(reader.mean(name, "centre", (-1, None)), rel=1e-6)
        assert facts["highest"] == pytest.approx(reader.values[name].max(), rel=1e-6)


def test_tokens_are_averaged_where_there_are_more_than_wanted():
    tokens = torch.randn(2, 4 * 4 * 6, 5)
    grid = tokens.reshape(2, 2, 2, 2, 2, 2, 3, 5)
    expected = grid.mean((2, 4, 6)).reshape(2, 8, 5)
    torch.testing.assert_close(pooled(tokens, (4, 4, 6), (2, 2, 2)), expected)
    assert pooled(tokens, (4, 4, 6), (4, 4, 6)) is tokens


SMALL = [
    "source.days=20", "source.step_hours=6", "source.resolution=3.0", "source.levels=[]",
    "store={chunk_time: 4, chunk_space: 8, shard_time: 24}",
    "windows={time: 4, height: 8, width: 8, stride_time: 4, stride_height: 4, stride_width: 4, cover_edges: true}",
    "splits={validation_share: 0.2, test_share: 0.2}",
    "mae.model={patch: [2, 2, 2], window: [2, 2, 2], width: 12, depths: [1, 1], heads: [2, 2], decoder_width: 12, "
    "decoder_heads: 2}",
    "mae.training={epochs: 1, steps_per_epoch: 3, batch_size: 4, learning_rates: {all: 0.001}}",
    "report_channels=[t2m]", "mae.report_windows=4", "mae.validation_windows=8",
    "questions.recipe={per_window: 8, windows: 40, tokens: [1, 2, 2]}",
    "questions.answering.training={epochs: 1, steps_per_epoch: 2, batch_size: 4, learning_rates: {all: 0.003}}",
    "questions.answering.validation_questions=8",
    "questions.evaluation={questions: 24, max_new_tokens: 3, depths: [1, 2], resamples: 100, pictures: 1}",
    "execution={device: cpu, threads: 1, wandb: {mode: disabled}}",
]  # fmt: skip


def build(root: Path) -> None:
    settings = [word for each in SMALL for word in ("--set", each)]
    done = millrace(
        "run", "weather", "--profile", "questions", "--engine", "inline", "--workers", "inline", *settings, root=root
    )
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.fixture(scope="session")
def asked(tmp_path_factory: pytest.TempPathFactory) -> AssetStore:
    """Assets of the profile `questions`, at small sizes."""
    return AssetStore(build_once(tmp_path_factory, "weather_questions", build))


def windows_of(store: AssetStore, split: str) -> WindowDataset:
    return WindowDataset(only(store, "era5_windows").folder, only(store, "era5_training_set").folder, split)


def test_the_profile_ends_in_answers_that_are_judged_and_shown(asked):
    report = only(asked, "answer_report")
    scores = json.loads((report.folder / "scores.json").read_text())
    assert scores["decoders"].keys() == {"blind", "plain", "trm"}
    assert scores["decoders"]["plain"]["gains"].keys() == {"majority", "blind", "trm"}
    assert {"yes_no", "position", "relation"} <= scores["majority"].keys()
    assert (report.folder / "answers.png").stat().st_size > 1000
    rows = json.loads((report.folder / "plain-0.json").read_text())
    assert len(rows) == 24
    told = millrace("report", "weather", root=asked.root)
    assert told.returncode == 0, told.stderr
    page = Path(re.search(r"report: (\S+)", told.stdout)[1]).read_text()
    assert "answer_report" in page
    assert "exact plain" in page


def test_what_decoders_see_is_what_the_vision_model_sees(asked):
    questions = QuestionSet(only(asked, "question_set").folder)
    network = MaeRelease.from_release(only(asked, "weather_mae").folder).network
    assert (questions.tokens, questions.width, questions.projection()) == (4, 24, {})
    windows = windows_of(asked, "test")
    one = questions.asked("test")[-1]
    sample = windows[one.row]
    with torch.no_grad():
        seen = network.encode_tokens(
            sample["data"][None], **{name: sample[name][None] for name in ("time", "latitude", "longitude")}
        )
    mean = seen.reshape((*network.token_grid, 24)).mean(0).reshape(4, 24)  # over time: tokens [1, 2, 2] are wanted
    torch.testing.assert_close(questions.features(one.item).float(), mean, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("split", ["train", "test"])
def test_windows_of_one_spell_of_weather_are_resampled_together(asked, split):
    found = QuestionSet(only(asked, "question_set").folder).asked(split)
    days = np.array([one.key[:10] for one in found], "datetime64[D]")
    groups = np.array([one.group for one in found])
    assert len(set(days)) > 1
    first = days.min()
    for group in range(groups.max() + 1):
        of_group = days[groups == group]
        assert of_group.min() == first
        assert of_group.max() < first + 10
        later = days[groups > group]
        assert not later.size or later.min() >= first + 10
        first = later.min() if later.size else first


def test_answers_of_the_run_are_those_of_the_store_and_what_is_usual_is_of_training_windows_alone(asked):
    folder = only(asked, "question_set").folder
    group = zarr.open_group(str(only(asked, "era5_windows").folder), mode="r")
    data, names = group["data"], list(group["channel"][:])
    climate = json.loads((folder / "climate.json").read_text())

    def fields(split: str, place: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        t, y, x = windows_of(asked, split).training_set.origin(split, place)
        box = data[t : t + 4, :, y : y + 8, x : x + 8]
        return dict(zip(names, box.swapaxes(0, 1), strict=True)), group["latitude"][y : y + 8]

    training = sorted({one.row for one in QuestionSet(folder).asked("train")})
    assert len(training) == 40
    length = windows_of(asked, "train").training_set.length("train")
    assert training[-1] >= length - 4, "spread over the period"
    readers = [Reader(*fields("train", place), {}) for place in training]
    usual = {name: np.mean([reader.mean(name) for reader in readers]) for name in QUANTITY}
    assert {name: found["mean"] for name, found in climate.items()} == pytest.approx(usual, rel=1e-5)
    for split in ("train", "validation", "test"):
        for one in QuestionSet(folder).asked(split)[::5]:
            assert Reader(*fields(split, one.row), usual).answer(one.question) == one.answer, one


def test_a_model_of_weather_questions_is_asked_about_no_image(asked, tmp_path):
    from PIL import Image

    Image.new("RGB", (80, 60), (200, 30, 30)).save(tmp_path / "photo.png")
    refused = millrace("ask", str(tmp_path / "photo.png"), "Where is it warmest?", root=asked.root)
    assert refused.returncode == 2
    assert "answers questions about weather windows, and millrace ask shows it an image" in refused.stderr


def test_a_model_of_weather_questions_is_judged_again(asked):
    report = only(asked, "answer_report")
    plain = next(record for record in report.manifest.inputs if record.name == "plain-0")
    judged = millrace("evaluate", f"answerer/{plain.key}", root=asked.root)
    assert judged.returncode == 0, judged.stderr
    found = {asset.key: asset for asset in asked.assets("answer_report")}
    del found[report.key]
    (again,) = found.values()
    assert json.loads((again.folder / "scores.json").read_text())["decoders"]["plain"]["seeds"] == {
        "plain-0": json.loads((report.folder / "scores.json").read_text())["decoders"]["plain"]["seeds"]["plain-0"]
    }


def test_questions_need_what_they_are_answered_by(tmp_path):
    refused = millrace("plan", "weather", "--profile", "questions", "--set", "mae=null", root=tmp_path)
    assert refused.returncode == 2
    assert "questions are answered by what mae sees; add it, or leave questions out" in refused.stderr
