"""Configuration of fire data: the archive, how it is decoded, the token grid and the parts of a split."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from configs.base import Config

BandKind = Literal["continuous", "categorical", "binary", "ignore"]

KNOWN_BANDS: dict[str, BandKind] = {
    **dict.fromkeys(("fuels", "fuel", "forest"), "categorical"),
    **dict.fromkeys(("arqueo", "flora", "paleo"), "categorical"),
    **dict.fromkeys(("elevation", "cbd", "cbh", "ccf", "slope"), "continuous"),
    **dict.fromkeys(("saz", "aspect", "ignitionprobability", "py"), "ignore"),
}
"""Kinds of bands by their description in small letters, where `bands` does not name them. `saz` and `aspect` are
angles, whose mean over a patch means nothing; slope_east and slope_north, from the elevation, say the same better."""

FUEL_BANDS = ("fuels", "fuel", "forest")
ELEVATION_BANDS = ("elevation",)


class FireArchive(Config):
    """An archive of fires on disk, in the raw layout."""

    kind: Literal["archive"] = "archive"
    path: str
    """The folder that holds `landscape/`, `fire_frames/` and `isochrones/`."""
    on_broken: Literal["error", "skip"] = "error"
    """A fire that cannot be used ends the run (`error`) or is left out, counted and named (`skip`)."""


class BandRecipe(Config):
    """What a band of the landscape holds."""

    name: str
    """The band's description in the GeoTIFF."""
    kind: BandKind
    """`continuous` numbers are averaged over a patch, `categorical` codes become class histograms, `binary` is present
    (any value but 0) or absent, and `ignore` leaves the band out."""


class Decoding(Config):
    """How raw files become masks, bands and wind."""

    fire_green: int = Field(231, ge=0, le=255)
    """A pixel burns where the green channel of its colour has this value."""
    target: Literal["isochrones", "fire_frames"] = "isochrones"
    """Which images are to be predicted."""
    bands: tuple[BandRecipe, ...] = ()
    """Kinds of bands; needed only for descriptions that are not well known, such as fuels, elevation, cbd and cbh."""
    fuel_band: str | None = None
    """The band whose valid pixels are the domain; the one described fuels, fuel or Forest when absent."""
    elevation_band: str | None = None
    """The band that slopes are derived from; the one described elevation when absent. Without it, no slopes."""
    unburnable: tuple[int, ...] = (0, 91, 92, 93, 98, 99)
    """Fuel codes that never burn; they stay in the domain, and baselines grow no fire there."""
    nodata: tuple[float, ...] = (-9999.0,)
    """Values that mean "no data" in every band, beside what the file declares and NaN."""
    cell_metres: float | None = Field(None, gt=0)
    """Side of a pixel in metres; from the georeference when absent."""
    wind_speed: str = "WS"
    """Column of the weather files with the wind speed."""
    wind_direction: str = "WD"
    """Column with the direction the wind blows from, in degrees clockwise from north."""

    @model_validator(mode="after")
    def _unique(self) -> Self:
        names = [band.name.lower() for band in self.bands]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"bands names {', '.join(twice)} twice; give each band one kind")
        return self


class Tokens(Config):
    """The token grid."""

    patch: Literal[4, 8, 16] = 16
    """Pixels along the side of a token."""


FireNumber = Annotated[int, Field(ge=0)]


class FireSplits(Config):
    """Training, validation and test, by fire and without leaks between them."""

    method: Literal["blocks", "groups", "lists"] = "blocks"
    """`blocks` cuts the landscape into three bands by where fires begin; `groups` keeps fires together that share a
    weather file or whose crops overlap; `lists` takes the fires named below."""
    validation_share: float = Field(0.18, ge=0, lt=1)
    """Share of the fires for validation, before leaks are taken out."""
    test_share: float = Field(0.25, ge=0, lt=1)
    """Share of the fires for test, before leaks are taken out."""
    axis: Literal["columns", "rows"] = "columns"
    """`blocks`: training, validation and test follow each other from west to east (`columns`) or north to south."""
    keep_apart: Literal["cut", "crop", "burnt", "none"] = "cut"
    """`blocks`: `cut` ends every crop at its part's border, so that no pixel is in two parts, and leaves out fires
    whose beginning the cut takes away; `crop` leaves out fires whose crop overlaps a crop of a later part; `burnt`
    those whose crop holds pixels that burn in a later part. `lists`: checked, except for `cut`."""
    weather: Literal["rows", "file", "none"] = "file"
    """`file`: fires of different parts never have the same weather rows throughout; `rows`: no run of three rows either
    (for files cut from one hourly series); decided by content, never by name."""
    max_overlap: float = Field(0.0, ge=0, lt=1)
    """`groups`: crops belong together when they share more than this of the smaller one."""
    seed: int = Field(0, ge=0)
    """`groups`: which of the equally good assignments."""
    training: tuple[FireNumber, ...] = ()
    """`lists`: numbers of the training fires (sequence_012 is 12)."""
    validation: tuple[FireNumber, ...] = ()
    """`lists`: numbers of the validation fires."""
    test: tuple[FireNumber, ...] = ()
    """`lists`: numbers of the test fires."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share + test_share must leave something for training (below 1)")
        if self.method != "lists":
            if self.training or self.validation or self.test:
                raise ValueError(f"training, validation and test lists need method lists, not {self.method}")
            return self
        if not self.training:
            raise ValueError("method lists needs the numbers of the training fires")
        if self.keep_apart == "cut":
            raise ValueError("method lists cannot cut crops; set keep_apart to crop, burnt or none")
        named = [*self.training, *self.validation, *self.test]
        twice = sorted({n for n in named if named.count(n) > 1})
        if twice:
            raise ValueError(f"fires named twice: {', '.join(map(str, twice))}; a fire has one part")
        return self
