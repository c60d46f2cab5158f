"""Configuration of weather data: raw ERA5 to verified training windows."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from configs.base import Config


def _box(area: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    north, west, south, east = area
    if not (-90 <= south <= north <= 90 and -180 <= west <= 360 and -180 <= east <= 360):
        raise ValueError(f"area is north, west, south, east in degrees, e.g. [60, -15, 30, 30], not {list(area)}")
    return area


Area = Annotated[tuple[float, float, float, float], AfterValidator(_box)]


LATENCY = timedelta(days=6)
"""How far the Climate Data Store lags behind: five days, and one for the day that is not whole yet."""


class SampleSource(Config):
    """ERA5-like files that the pipeline generates itself; nothing is downloaded."""

    kind: Literal["sample"] = "sample"
    seed: int = Field(0, ge=0)
    """Same seed, same bytes."""
    start: date = date(2024, 1, 1)
    """First day."""
    days: int = Field(30, ge=1, le=36_600)
    """Length of the period in days."""
    step_hours: Literal[1, 3, 6] = 1
    """Hours between time steps."""
    north: float = Field(60.0, ge=-90, le=90)
    """Northern edge, degrees."""
    south: float = Field(30.0, ge=-90, le=90)
    """Southern edge, degrees."""
    west: float = Field(-15.0, ge=-180, lt=360)
    """Western edge, degrees east; negative is west of Greenwich."""
    east: float = Field(30.0, ge=-180, le=360)
    """Eastern edge, degrees east."""
    resolution: float = Field(0.5, gt=0, le=10)
    """Grid spacing in degrees."""
    levels: tuple[Annotated[int, Field(ge=1, le=1100)], ...] = (850, 500)
    """Pressure levels of t, r, u, v and z, in hPa; only single levels when empty."""
    layout: Literal["cds", "classic", "single"] = "cds"
    """`cds`: as the new Climate Data Store delivers (monthly; ZIPs named .nc with instant and accum members);
    `classic`: int16-packed NetCDF-3, monthly; `single`: one variable and one time step per file."""

    wordings: int = Field(1, ge=1, le=16)
    """Captions of each day and region, each in other words."""
    preliminary: bool = False
    """Mark the newest third of the last month's steps as ERA5T, as the Climate Data Store does."""

    @model_validator(mode="after")
    def _area(self) -> Self:
        if self.north <= self.south:
            raise ValueError(f"north ({self.north}) must lie north of south ({self.south})")
        if self.east <= self.west:
            raise ValueError(f"east ({self.east}) must be greater than west ({self.west}); write -15, not 345")
        if self.east - self.west > 360:
            raise ValueError(f"west ({self.west}) to east ({self.east}) is more than once around the globe")
        if len(set(self.levels)) < len(self.levels):
            raise ValueError(f"levels {self.levels} name a level twice; list each level once")
        return self


class FilesSource(Config):
    """NetCDF files that are already on disk."""

    kind: Literal["files"] = "files"
    paths: tuple[str, ...] = Field(min_length=1)
    """Files, folders (searched recursively) or globs. What a file holds decides, never its name."""
    on_bad_file: Literal["error", "skip"] = "error"
    """A file that cannot be used ends the run (`error`) or is left out, counted and named (`skip`)."""


class CdsSource(Config):
    """The Copernicus Climate Data Store, through the official `cdsapi` client and its `~/.cdsapirc`."""

    kind: Literal["cds"] = "cds"
    start: date
    """First day."""
    end: date | Literal["latest"]
    """Last day, included; `latest` follows the data, which appears five days late."""
    single_level: tuple[str, ...] = ()
    """Variables of `reanalysis-era5-single-levels`, by their CDS names, e.g. `2m_temperature`."""
    pressure_level: tuple[str, ...] = ()
    """Variables of `reanalysis-era5-pressure-levels`, by their CDS names, e.g. `relative_humidity`."""
    levels: tuple[int, ...] = ()
    """Pressure levels in hPa for `pressure_level`."""
    hours: tuple[Annotated[int, Field(ge=0, le=23)], ...] = Field(tuple(range(24)), min_length=1)
    """Hours of the day (UTC)."""
    area: Area | None = None
    """North, west, south, east in degrees; the globe when absent. West may be negative, or lie east of `east`."""
    grid: float | None = Field(None, gt=0)
    """Grid spacing in degrees; the native 0.25 when absent."""
    max_fields: int = Field(20_000, ge=744)
    """Largest request in fields (variables x levels x hours); larger months are split by variable, then by level.
    The CDS documents 120,000 but takes less as NetCDF: users saw 20,832 accepted and 31,248 refused."""
    url: str | None = None
    """Another address of the CDS API; `~/.cdsapirc` or CDSAPI_URL when absent."""

    @model_validator(mode="after")
    def _request(self) -> Self:
        if self.end != "latest" and self.end < self.start:
            raise ValueError(f"end ({self.end}) lies before start ({self.start})")
        if not (self.single_level or self.pressure_level):
            raise ValueError("name at least one variable in single_level or pressure_level")
        if self.pressure_level and not self.levels:
            raise ValueError("pressure_level needs levels, e.g. levels: [850, 500]")
        return self

    def until(self, today: date) -> CdsSource:
        """Return the source with `latest` replaced by the last day that is surely there."""
        return self.model_copy(update={"end": today - LATENCY}) if self.end == "latest" else self

    @property
    def last_day(self) -> date:
        """The last day; `latest` has to be resolved by `until` before."""
        assert self.end != "latest", "the period is open; call until(today) first"
        return self.end


class ArcoSource(Config):
    """The public ARCO-ERA5 Zarr (analysis-ready, cloud-optimised), read through xarray."""

    kind: Literal["arco"] = "arco"
    start: date
    """First day."""
    end: date
    """Last day, included."""
    variables: tuple[str, ...] = Field(min_length=1)
    """Names in the store, e.g. `2m_temperature`, `geopotential`."""
    levels: tuple[int, ...] = ()
    """Pressure levels in hPa for variables that have them; all when empty."""
    area: Area | None = None
    """North, west, south, east in degrees; the globe when absent. West may be negative, or lie east of `east`."""
    url: str = "gs://gcp-public-data-arco-era5/ar/full_37-1h-0p25deg-chunk-1.zarr-v3"
    """Address or folder of the store."""

    @model_validator(mode="after")
    def _period(self) -> Self:
        if self.end < self.start:
            raise ValueError(f"end ({self.end}) lies before start ({self.start})")
        return self


Source = Annotated[SampleSource | FilesSource | CdsSource | ArcoSource, Field(discriminator="kind")]


Accumulation = Literal["hourly", "since_00utc", "mean_rate"]


class VariableRecipe(Config):
    """One variable of the store; with levels it becomes one channel per level."""

    variable: str
    """Short name in the files, e.g. `u10`, `t`, `tp`."""
    levels: tuple[int, ...] | None = None
    """Pressure levels in hPa, in channel order; all that the files have when absent."""
    accumulation: Accumulation | None = None
    """What one value holds: the last `hourly` step (ERA5), everything `since_00utc` (ERA5-Land; of monthly means the
    whole day), or already a `mean_rate`. Files cannot tell the first two apart, so accumulated variables must say it.
    """
    rate: bool = False
    """Store accumulated values as rates per second (J m**-2 becomes W m**-2)."""
    nan: Literal["keep", "error"] | float = "keep"
    """NaN policy: keep them (the loader masks them), refuse them, or fill them with this number."""
    keepbits: int | None = Field(None, ge=1, le=23)
    """Mantissa bits that are kept (bit rounding); all when absent."""


def _variable_by_name(value: Any) -> Any:
    return {"variable": value} if isinstance(value, str) else value


class Recipe(Config):
    """Which channels the store has and how raw values become stored ones."""

    variables: tuple[
        Annotated[VariableRecipe, BeforeValidator(_variable_by_name, json_schema_input_type=str | VariableRecipe)], ...
    ] = ()
    """Channels in their order, as names or as mappings; every variable that the files have when empty."""
    step_hours: int | None = Field(None, ge=1, le=744)
    """Hours between time steps; the greatest common step of all files when absent. Declare it where files come and go:
    a time that does not fit is then an error that names its file, and never a finer time axis."""

    @model_validator(mode="after")
    def _unique(self) -> Self:
        names = [v.variable for v in self.variables]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"variable named twice: {', '.join(twice)}; list its levels in one entry")
        return self

    def accumulation_of(self, variable: str) -> Accumulation | None:
        """Return what one value of a variable is declared to hold; None where nothing is declared."""
        return next((v.accumulation for v in self.variables if v.variable == variable), None)


class StoreLayout(Config):
    """Chunks and shards of the window store, in steps and grid cells."""

    chunk_time: int = Field(4, ge=1)
    """Time steps per inner chunk; best equal to windows.stride_time."""
    chunk_space: int = Field(32, ge=1)
    """Rows and columns per inner chunk; best equal to the spatial strides."""
    shard_time: int = Field(24, ge=1)
    """Time steps per shard: the piece that is written whole, and rewritten when a month is added to it."""
    shard_chunks: tuple[int, int] = (8, 9)
    """Inner chunks per shard along latitude and longitude."""
    codec: Literal["lz4", "zstd", "none"] = "lz4"
    """Blosc compressor of the inner chunks (with byte shuffle), or none."""
    level: int = Field(5, ge=1, le=9)
    """Compression level."""

    @model_validator(mode="after")
    def _whole_chunks(self) -> Self:
        if self.shard_time % self.chunk_time:
            raise ValueError(f"shard_time ({self.shard_time}) must be a multiple of chunk_time ({self.chunk_time})")
        return self


class WindowConfig(Config):
    """Training windows: boxes of the store, found by arithmetic."""

    time: int = Field(8, ge=1)
    """Window length in time steps."""
    height: int = Field(64, ge=1)
    """Window height in grid rows."""
    width: int = Field(64, ge=1)
    """Window width in grid columns."""
    stride_time: int = Field(4, ge=1)
    """Steps between windows."""
    stride_height: int = Field(32, ge=1)
    """Rows between windows."""
    stride_width: int = Field(32, ge=1)
    """Columns between windows."""
    anchor: Literal["first", "middle", "last"] = "last"
    """Which step's date names the window."""
    time_start: date | datetime | None = None
    """Use steps from here on; a date means its 00:00 UTC."""
    time_end: date | datetime | None = None
    """Use steps up to here; a date includes the whole day."""
    cover_edges: bool = False
    """Add windows flush with the last row and column where the stride does not reach them."""
    wrap_longitude: bool = False
    """On a global grid, let windows run across the date line seam."""
    max_nan_share: float = Field(0.0, ge=0, le=1)
    """Leave a window out when any of its channels has a larger share of NaN."""


class Period(Config):
    """A closed stretch of time; a date as `end` includes the whole day."""

    start: date
    end: date

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.end < self.start:
            raise ValueError(f"end ({self.end}) lies before start ({self.start})")
        return self


class SplitConfig(Config):
    """Training, validation and test as blocks of time, the same for all variables, with a gap between."""

    validation_share: float = Field(0.15, ge=0, lt=1)
    """Share of the time axis for validation."""
    test_share: float = Field(0.15, ge=0, lt=1)
    """Share of the time axis for test, at its end."""
    cycles: int = Field(1, ge=1)
    """How often train, validation and test follow each other; more than 1 mixes seasons."""
    gap: int | None = Field(None, ge=1)
    """Steps left out between blocks; the window length when absent, and never less. Weather lasts for days: with less
    than about five, the windows at both sides of it are alike."""
    train: tuple[Period, ...] = ()
    """Explicit training periods; with these the shares are not used."""
    validation: tuple[Period, ...] = ()
    """Explicit validation periods."""
    test: tuple[Period, ...] = ()
    """Explicit test periods."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if (self.validation or self.test) and not self.train:
            raise ValueError("explicit periods need train too")
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share + test_share must leave something for training (below 1)")
        return self
