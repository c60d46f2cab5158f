"""The patch-token cache: one Zarr v3 group for a data set of fires, ragged by CSR offsets.

S fires; fire i has T_i frames, a crop of H_i x W_i pixels and N_i = Gy_i x Gx_i tokens of P x P pixels, row by row from
the crop's upper left corner. Token grids reach beyond crops at the bottom and on the right (`pad_bottom`, `pad_right`).

    seq/{number,digits,steps,y0,x0,height,width,rows,columns,pad_bottom,pad_right,weather}      (S,)
    off/{token,frame,frametoken,pixel,framepixel}   int64 (S + 1,): where each fire begins in the arrays below
    static/mean       float32 (token, C)     mean over valid pixels, 0 where none
    static/share      float16 (token, C)     valid pixels of each continuous band / P^2
    static/histogram  float16 (token, all K) class shares over valid pixels, categorical bands one after another
    static/class_share float16 (token, Q)    valid pixels of each categorical band / P^2
    token/domain_share, token/footprint      float32 (token,): domain pixels, and pixels inside the crop, / P^2
    fire/share        float16 (frametoken,)  burnt share of a token's domain pixels, frame by frame
    wind/vector       float32 (frame, 3)     speed, sin and cos of the direction it blows from; row t drives t -> t + 1
    wind/valid        bool (frame,)
    px/{fire,target}  uint8 (framepixel,)    packed bits, frame by frame, each frame in ceil(H W / 8) bytes
    px/domain         uint8 (pixel,)         packed bits: inside the crop and the fuel band has a value
    landscape/values, landscape/valid        float32, bool (C, Y, X): continuous bands, 0 where not valid
    landscape/classes uint8 (Q, Y, X)        1 + position among the band's codes, 0 where not valid

`seq/weather` is equal where fires have equal wind rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCHEMA = 1
CHUNK_BYTES = 1 << 20
PAD = "tokens begin at the crop's upper left corner; the grid is padded at the bottom and on the right"
WIND = "speed, sin and cos of the direction it blows from, degrees clockwise from north; row t drives frame t to t + 1"


class CacheWriter:
    """Writes the arrays of a cache, and last what it says of itself; equal data give equal bytes."""

    def __init__(self, folder: Path) -> None:
        import zarr

        self._group = zarr.open_group(folder, mode="a", zarr_format=3)

    def write(self, name: str, data: NDArray[Any]) -> None:
        """Write one array whole, e.g. `seq/steps`."""
        rows = max(1, CHUNK_BYTES // max(1, data[:1].nbytes))
        chunks = (max(1, min(len(data), rows)), *data.shape[1:])
        self._group.create_array(name, data=data, chunks=chunks, overwrite=True)

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Write the attributes."""
        self._group.attrs.put({"schema": SCHEMA, "pad": PAD, "wind": WIND, **attributes})


@dataclass(frozen=True, slots=True)
class Crop:
    """Where a fire lies in the landscape, in pixels, and its token grid."""

    y0: int
    x0: int
    height: int
    width: int
    rows: int
    columns: int

    @property
    def pixels(self) -> tuple[slice, slice]:
        """Rows and columns of the landscape."""
        return slice(self.y0, self.y0 + self.height), slice(self.x0, self.x0 + self.width)


@dataclass(frozen=True, slots=True, eq=False)
class StaticTokens:
    """Pooled bands of one fire, one row per token; see the module for shapes."""

    mean: NDArray[np.float32]
    share: NDArray[np.float16]
    histogram: NDArray[np.float16]
    class_share: NDArray[np.float16]
    domain_share: NDArray[np.float32]
    footprint: NDArray[np.float32]


class TokenCache:
    """Typed access to a cache. Arrays are read whole when first needed and stay in memory."""

    def __init__(self, folder: Path, attributes: Mapping[str, Any]) -> None:
        self.folder = folder
        self.attributes = attributes
        self.patch: int = attributes["patch"]
        self.continuous: tuple[str, ...] = tuple(attributes["continuous"])
        self.categorical: tuple[tuple[str, tuple[int, ...]], ...] = tuple(
            (name, tuple(codes)) for name, codes in attributes["categorical"]
        )
        self.fuel: int = attributes["fuel"]
        self.cell_metres: float = attributes["cell_metres"]
        self.crs: str = attributes["crs"]
        self.transform: tuple[float, ...] = tuple(attributes["transform"])
        self._arrays: dict[str, NDArray[Any]] = {}

    @classmethod
    def open(cls, folder: Path) -> TokenCache:
        """Open a published cache; `ValueError` where there is none."""
        import zarr

        try:
            attributes = dict(zarr.open_group(folder, mode="r", zarr_format=3).attrs)
        except FileNotFoundError:
            attributes = {}
        if attributes.get("schema") != SCHEMA:
            raise ValueError(f"{folder} is no token cache of schema {SCHEMA}; build it with the stage fire_cache")
        return cls(folder, attributes)

    def array(self, name: str) -> NDArray[Any]:
        """Return a whole array, e.g. `seq/steps`."""
        if name not in self._arrays:
            import zarr

            values = np.asarray(zarr.open_array(self.folder / name, mode="r")[...])
            values.flags.writeable = False
            self._arrays[name] = values
        return self._arrays[name]

    def __len__(self) -> int:
        return len(self.array("seq/number"))

    @cached_property
    def crops(self) -> Sequence[Crop]:
        """The crop of every fire."""
        names = ("y0", "x0", "height", "width", "rows", "columns")
        return [Crop(*row) for row in np.stack([self.array(f"seq/{n}") for n in names], axis=1).tolist()]

    @cached_property
    def steps(self) -> Sequence[int]:
        """Frames of every fire, T."""
        return self.array("seq/steps").tolist()

    @cached_property
    def names(self) -> Sequence[str]:
        """Names of the fires as in the archive, e.g. `sequence_012`."""
        pairs = zip(self.array("seq/number").tolist(), self.array("seq/digits").tolist(), strict=True)
        return [f"sequence_{number:0{digits}d}" for number, digits in pairs]

    def find(self, name: str) -> int:
        """Return the index of a fire by name or number; `ValueError` when it is not in the cache."""
        numbers = self.array("seq/number").tolist()
        digits = name.removeprefix("sequence_")
        if digits.isdecimal() and int(digits) in numbers:
            return numbers.index(int(digits))
        raise ValueError(f"there is no fire {name} in the cache; it has {len(self)} from {self.names[0]} on")

    def _part(self, name: str, offset: str, fire: int) -> NDArray[Any]:
        start, stop = self._offsets[offset][fire : fire + 2]
        return self.array(name)[start:stop]

    @cached_property
    def _offsets(self) -> dict[str, list[int]]:
        return {n: self.array(f"off/{n}").tolist() for n in ("token", "frame", "frametoken", "pixel", "framepixel")}

    def static(self, fire: int) -> StaticTokens:
        """Return the pooled bands of a fire."""
        names = (
            "static/mean", "static/share", "static/histogram", "static/class_share", "token/domain_share",
            "token/footprint",
        )  # fmt: skip
        return StaticTokens(*(self._part(name, "token", fire) for name in names))

    def fire_share(self, fire: int) -> NDArray[np.float16]:
        """Return the burnt share of every token's domain pixels, (T, N)."""
        return self._part("fire/share", "frametoken", fire).reshape(self.steps[fire], -1)

    def wind(self, fire: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return wind (T, 3) and where it was measured (T,)."""
        return self._part("wind/vector", "frame", fire), self._part("wind/valid", "frame", fire)

    def frames(self, fire: int) -> NDArray[np.bool_]:
        """Return all frames of a fire, (T, H, W)."""
        return self._unpack("px/fire", fire, slice(None))

    def target(self, fire: int, step: int) -> NDArray[np.bool_]:
        """Return the target image of one frame, (H, W)."""
        return self._unpack("px/target", fire, slice(step, step + 1))[0]

    def _unpack(self, name: str, fire: int, steps: slice) -> NDArray[np.bool_]:
        crop = self.crops[fire]
        packed = self._part(name, "framepixel", fire).reshape(self.steps[fire], -1)[steps]
        bits = np.unpackbits(packed, axis=1, count=crop.height * crop.width)
        return bits.view(bool).reshape(-1, crop.height, crop.width)

    def domain(self, fire: int) -> NDArray[np.bool_]:
        """Return the pixels inside the crop where the fuel band has a value, (H, W)."""
        crop = self.crops[fire]
        bits = np.unpackbits(self._part("px/domain", "pixel", fire), count=crop.height * crop.width)
        return bits.view(bool).reshape(crop.height, crop.width)

    def arrival(self, fire: int) -> NDArray[np.uint8]:
        """Return the first frame in which every pixel burns, T where none, (H, W)."""
        return self.steps[fire] - self.frames(fire).sum(axis=0, dtype=np.uint8)

    @cached_property
    def burnable(self) -> NDArray[np.bool_]:
        """Pixels of the landscape whose fuel has a value and can burn, (Y, X)."""
        _, codes = self.categorical[self.fuel]
        table = np.array([False, *(code not in self.attributes["decoding"]["unburnable"] for code in codes)])
        return table[self.array("landscape/classes")[self.fuel]]
