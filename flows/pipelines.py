"""The pipelines that exist, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.base import Config
from configs.image_text import ImageTextConfig
from configs.weather_pipeline import WeatherConfig
from configs.wildfire import WildfireConfig
from flows.image_text import image_text
from flows.weather import weather
from flows.wildfire import wildfire


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A named wiring of stages and the configuration that it takes."""

    name: str
    title: str
    config: type[Config]
    wire: Callable[[Any], Any]

    def page(self, root: Path) -> Path:
        """Return where its report goes."""
        return root / "reports" / f"{self.name}.html"


PIPELINES = {
    pipeline.name: pipeline
    for pipeline in [
        Pipeline(
            "weather", "Raw ERA5 to verified training windows, and to the weather in words", WeatherConfig, weather
        ),
        Pipeline("wildfire", "Raw fire archives to trained and judged spread models", WildfireConfig, wildfire),
        Pipeline("microvlm", "Image URLs with captions to verified WebDataset shards", ImageTextConfig, image_text),
        Pipeline("trm_vlm", "Image URLs with questions to verified WebDataset shards", ImageTextConfig, image_text),
    ]
}


ALL = "all"


def find_pipelines(name: str) -> list[Pipeline]:
    """Return a pipeline by its name, or every one for `all`."""
    return list(PIPELINES.values()) if name == ALL else [find_pipeline(name)]


def find_pipeline(name: str) -> Pipeline:
    """Return a pipeline by its name."""
    try:
        return PIPELINES[name]
    except KeyError:
        raise ValueError(f"there is no pipeline {name!r}; there are: {', '.join(PIPELINES)}") from None
