"""Configuration of the `weather` pipeline: raw ERA5 to training windows, to narratives of it, and to answers."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from configs.ablation import Ablation, check_names, with_ablations
from configs.base import Config
from configs.training import Execution
from configs.weather import Recipe, SampleSource, Source, SplitConfig, StoreLayout, WindowConfig
from configs.weather_lm import (
    CaptionConfig,
    Int8Vision,
    LanguageRecipe,
    MaeRecipe,
    NarrationEvaluation,
    NarratorRecipe,
    PackedNarrator,
    SampleCaptions,
)
from configs.weather_questions import WeatherQuestions


class WeatherConfig(Config):
    """Raw ERA5 to a verified window store, and to models that tell its weather in words."""

    source: Source = SampleSource()
    """Where raw files come from."""
    recipe: Recipe = Recipe()
    """Which channels are stored and how."""
    store: StoreLayout = StoreLayout()
    """Chunks and shards of the store."""
    windows: WindowConfig = WindowConfig()
    """Training windows."""
    splits: SplitConfig = SplitConfig()
    """Training, validation and test periods."""
    report_channels: tuple[str, ...] = ()
    """Channels that the report draws maps of, e.g. `[u10, t@850]`; a dozen of all variables and levels when empty."""
    captions: CaptionConfig | None = None
    """Texts by date and region; none stops after the vision model."""
    mae: MaeRecipe | None = None
    """The masked autoencoder; none stops after the data."""
    mae_int8: Int8Vision | None = None
    """The same in 8 bits."""
    languages: dict[str, LanguageRecipe] = Field({})
    """Language models, by a name of your own."""
    narrators: dict[str, NarratorRecipe] = Field({})
    """Adapters to train and compare, by a name of your own; they need captions, mae and languages."""
    ablations: dict[str, Ablation] = Field({})
    """Further adapters, each a variation of one in `narrators`."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)
    """Every adapter is trained once with each seed."""
    packed: dict[str, PackedNarrator] = Field({})
    """Narrators in few bits, by a name of your own."""
    evaluation: NarrationEvaluation = NarrationEvaluation()
    """How narrators are judged."""
    questions: WeatherQuestions | None = None
    """Questions about windows, and decoders that answer them by what `mae` sees; none asks none."""
    execution: Execution = Execution()
    """How trainings are carried out; changes no result, and no key."""

    @model_validator(mode="after")
    def _resolvable(self) -> Self:
        check_names(self.narrators, self.ablations, {name: p.narrator for name, p in self.packed.items()}, "packed")
        if self.mae_int8 and self.mae is None:
            raise ValueError("mae_int8 needs mae; add it, or leave mae_int8 out")
        if self.questions and self.mae is None:
            raise ValueError("questions are answered by what mae sees; add it, or leave questions out")
        trainings = self.trainings()
        for name, _, recipe in trainings:
            if self.captions is None or self.mae is None:
                raise ValueError("narrators need captions and mae; add both, or leave narrators out")
            if recipe.language not in self.languages:
                known = ", ".join(self.languages) or "none"
                raise ValueError(f"narrator {name} is built on {recipe.language!r}, but languages has {known}")
            recipe.prefixer.check_width(self.mae.model.widths[-1])
        recipes = {name: recipe for name, _, recipe in trainings}
        for name, packed in self.packed.items():
            if recipes[packed.narrator].adaptation.four_bit:
                raise ValueError(
                    f"packed.{name}: the language model of {packed.narrator} lies in four bits (NF4), which cannot be "
                    "packed; set its adaptation.four_bit to false"
                )
        of_sample = self.captions is not None and isinstance(self.captions.source, SampleCaptions)
        if of_sample and not isinstance(self.source, SampleSource):
            raise ValueError("captions.source is the sample's, but source is not; name caption files")
        return self

    def trainings(self) -> list[tuple[str, int, NarratorRecipe]]:
        """Return name, seed and recipe of every adapter, ablations resolved."""
        return with_ablations(self.narrators, self.ablations, self.seeds)
