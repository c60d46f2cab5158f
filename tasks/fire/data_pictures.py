"""Pictures and a table of a token cache: fires with their tokens, lengths, a map of the parts, bands."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from storage.files import atomic_path
from storage.fire_split import PARTS, FireSplit
from storage.token_cache import TokenCache
from tasks.figures import subplots
from tasks.fire import palette
from tasks.fire.landscape import SLOPES
from tasks.fire.leaks import burnt_map, region_box
from tasks.fire.parts import ignitions

LEFT_OUT = "#c07f3a"
SHOWN = 4


def choose_fires(cache: TokenCache) -> list[int]:
    """Return a few fires, from the shortest to the longest; of equal length, a large one whose crop has holes."""
    telling = [(1 - float(cache.domain(f).mean())) * int(cache.frames(f)[-1].sum()) for f in range(len(cache))]
    lengths = sorted(set(cache.steps))
    wanted = [lengths[i] for i in sorted({round(k) for k in np.linspace(0, len(lengths) - 1, SHOWN)})]
    return [max((f for f in range(len(cache)) if cache.steps[f] == t), key=lambda f: (telling[f], -f)) for t in wanted]


def shading(cache: TokenCache) -> NDArray[np.float64]:
    """Return how bright the ground is under light from the north-west, 0..1, (Y, X); flat where nothing is known."""
    light = np.full(cache.array("landscape/classes").shape[1:], 0.75)
    if SLOPES[0] in cache.continuous:
        values = cache.array("landscape/values")
        east, north = (values[cache.continuous.index(name)].astype(np.float64) for name in SLOPES)
        steepness = np.sqrt(1 + east**2 + north**2)
        light = np.clip((0.75 + 0.45 * (east - north)) / steepness, 0.15, 1)
    return light


def draw_fires(cache: TokenCache) -> Figure:
    """Draw terrain, fuel, domain, spread over time and token validity of a few fires, one row each."""
    chosen = choose_fires(cache)
    figure, axes = subplots(
        len(chosen), 5, figsize=(15, 2.9 * len(chosen) + 0.4), squeeze=False, layout="constrained"
    )  # fmt: skip
    light = shading(cache)
    for row, fire in zip(axes, chosen, strict=True):
        _terrain(cache, fire, row[0], light)
        _fuel(cache, fire, row[1])
        _domain(cache, fire, row[2])
        _spread(cache, fire, row[3], light)
        _tokens(cache, fire, row[4])
        crop = cache.crops[fire]
        row[0].set_ylabel(f"{cache.names[fire]}\n{crop.height} x {crop.width} px, T = {cache.steps[fire]}", fontsize=8)
        for place in row:
            place.set_xticks([])
            place.set_yticks([])
    titles = (
        "terrain", "fuel classes", "domain", "first frame that burns",
        "domain share of tokens",
    )  # fmt: skip
    for place, title in zip(axes[0], titles, strict=True):
        place.set_title(title, fontsize=10)
    return figure


def _terrain(cache: TokenCache, fire: int, place: Axes, light: NDArray[np.float64]) -> None:
    pixels = cache.crops[fire].pixels
    if "elevation" not in [name.lower() for name in cache.continuous]:
        place.imshow(light[pixels], cmap="gray", vmin=0, vmax=1)
        return
    band = [name.lower() for name in cache.continuous].index("elevation")
    height = cache.array("landscape/values")[band][pixels]
    valid = cache.array("landscape/valid")[band][pixels]
    place.set_facecolor(palette.INVALID)
    low, high = (np.percentile(height[valid], [1, 99]) if valid.any() else (0, 1))  # fmt: skip
    shown, floor = np.where(valid, height, np.nan), low - 0.4 * (high - low)  # no blue: that is for water
    picture = place.imshow(shown, cmap=palette.ELEVATION, vmin=floor, vmax=high)
    place.imshow(np.zeros_like(height), cmap="gray", alpha=np.where(valid, 0.55 * (1 - light[pixels]), 0.0))
    _bar(place, picture, "m")


def _fuel(cache: TokenCache, fire: int, place: Axes) -> None:
    pixels = cache.crops[fire].pixels
    classes = cache.array("landscape/classes")[cache.fuel][pixels]
    _, codes = cache.categorical[cache.fuel]
    burnable = [code not in cache.attributes["decoding"]["unburnable"] for code in codes]
    greens = colormaps["summer"](np.linspace(0, 0.95, max(1, sum(burnable))))
    blues = colormaps["Blues"](np.linspace(0.35, 0.75, max(1, len(codes) - sum(burnable))))
    colours, green, blue = [to_rgb(palette.OUTSIDE)], iter(greens), iter(blues)
    colours += [tuple(next(green if can else blue)[:3]) for can in burnable]
    place.imshow(classes, cmap=ListedColormap(colours), norm=BoundaryNorm(np.arange(-0.5, len(colours)), len(colours)))
    present = [codes[c - 1] for c in np.unique(classes) if c]
    listed = ", ".join(map(str, present[:9])) + (" ..." if len(present) > 9 else "")
    place.set_xlabel(f"{len(present)} codes: {listed}", fontsize=7)


def _domain(cache: TokenCache, fire: int, place: Axes) -> None:
    pixels = cache.crops[fire].pixels
    domain = cache.domain(fire)
    state = np.where(domain, np.where(cache.burnable[pixels], 2, 1), 0)
    colours = ListedColormap([palette.OUTSIDE, "#8fb3d4", palette.UNBURNT])
    place.imshow(state, cmap=colours, vmin=-0.5, vmax=2.5)
    place.set_xlabel(
        f"grey: outside, {1 - domain.mean():.0%}; blue: cannot burn, {(state == 1).mean():.0%}", fontsize=7
    )


def _spread(cache: TokenCache, fire: int, place: Axes, light: NDArray[np.float64]) -> None:
    steps, arrival = cache.steps[fire], cache.arrival(fire).astype(float)
    pixels = cache.crops[fire].pixels
    ground = np.where(cache.domain(fire), 0.55 + 0.45 * light[pixels], 0.78)
    place.imshow(ground, cmap="gray", vmin=0, vmax=1)
    colours = colormaps["inferno_r"].resampled(steps + 2)
    shades = ListedColormap(colours(np.arange(1, steps + 1)))
    arrival[arrival == steps] = np.nan
    norm = BoundaryNorm(np.arange(-0.5, steps), steps)
    picture = place.imshow(arrival, cmap=shades, norm=norm, interpolation="nearest")
    bar = _bar(place, picture, "frame")
    ticks = np.unique(np.linspace(0, steps - 1, min(steps, 5)).round().astype(int))
    bar.set_ticks(ticks.tolist(), labels=[str(t) for t in ticks])
    place.set_xlabel(f"{int((~np.isnan(arrival)).sum()):,} pixels burn", fontsize=7)


def _tokens(cache: TokenCache, fire: int, place: Axes) -> None:
    crop, patch = cache.crops[fire], cache.patch
    share = cache.static(fire).domain_share.reshape(crop.rows, crop.columns)
    extent = (-0.5, crop.columns * patch - 0.5, crop.rows * patch - 0.5, -0.5)
    picture = place.imshow(np.where(share > 0, share, np.nan), cmap="viridis", vmin=0, vmax=1, extent=extent)
    place.set_facecolor(palette.OUTSIDE)
    place.hlines(np.arange(1, crop.rows) * patch - 0.5, -0.5, extent[1], color="white", linewidth=0.3)
    place.vlines(np.arange(1, crop.columns) * patch - 0.5, -0.5, extent[2], color="white", linewidth=0.3)
    place.add_patch(
        Rectangle((-0.5, -0.5), crop.width, crop.height, fill=False, edgecolor=palette.GROWTH, linewidth=1.2)
    )  # fmt: skip
    empty = int((share == 0).sum())
    place.set_xlabel(f"{crop.rows} x {crop.columns} tokens of {patch} px, crop in red, {empty} empty", fontsize=7)
    _bar(place, picture, "")


def _bar(place: Axes, picture: Any, label: str) -> Any:
    bar = place.figure.colorbar(picture, ax=place, shrink=0.8, pad=0.01)
    bar.ax.tick_params(labelsize=6)
    bar.set_label(label, fontsize=7)
    return bar


def draw_lengths(cache: TokenCache, split: FireSplit) -> Figure:
    """Draw how many fires have how many frames, by part."""
    steps = np.array(cache.steps)
    lengths = np.arange(steps.min(), steps.max() + 1)
    figure, place = subplots(figsize=(8, 3.4), layout="constrained")
    base = np.zeros(len(lengths))
    for part in (*PARTS, None):
        chosen = [e.fire for e in split.fires if e.part == part]
        counts = np.array([(steps[chosen] == t).sum() for t in lengths]) if chosen else np.zeros(len(lengths))
        name, colour = (part, palette.PARTS[part]) if part else ("left out", LEFT_OUT)
        place.bar(lengths, counts, bottom=base, color=colour, label=f"{name} ({len(chosen)})", width=0.8)
        base += counts
    place.set_xticks(lengths)
    place.set_xlabel("frames T of a fire")
    place.set_ylabel("fires")
    place.set_title(f"{(steps <= 6).mean():.0%} of {len(steps)} fires have at most 6 frames", loc="left", fontsize=10)
    place.legend(fontsize=8, frameon=False)
    place.spines[["top", "right"]].set_visible(False)
    return figure


def draw_map(cache: TokenCache, split: FireSplit) -> Figure:
    """Draw the landscape with what burns in every part, and where fires begin."""
    classes = cache.array("landscape/classes")[cache.fuel]
    rows, columns = classes.shape
    image = np.repeat((0.35 + 0.65 * shading(cache))[..., None], 3, axis=2)
    image[classes == 0] = to_rgb(palette.OUTSIDE)
    for owner in PARTS:
        entries = split.part(owner)
        burnt = burnt_map(cache, [e.fire for e in entries])
        inside = np.zeros_like(burnt)
        for entry in entries:
            y0, y1, x0, x1 = region_box(cache, entry)
            inside[y0:y1, x0:x1] = True
        image[burnt & inside] = 0.45 * image[burnt & inside] + 0.55 * np.array(to_rgb(palette.PARTS[owner]))
    kilometres = cache.cell_metres / 1000
    figure, place = subplots(figsize=(9, 0.8 + 7 * min(1.4, rows / columns)), layout="constrained")
    place.imshow(
        np.clip(image, 0, 1), interpolation="antialiased", extent=(0, columns * kilometres, rows * kilometres, 0)
    )
    begins = (ignitions(cache) + 0.5) * kilometres
    handles = []
    for part in (None, *PARTS):
        chosen = [e.fire for e in split.fires if e.part == part]
        name, colour = (part, palette.PARTS[part]) if part else ("left out", LEFT_OUT)
        marker: dict[str, Any] = {"marker": "o", "edgecolor": "white"} if part else {"marker": "x"}
        place.scatter(begins[chosen, 1], begins[chosen, 0], s=16, color=colour, linewidth=0.6, **marker)
        label = f"{name} ({len(chosen)})"
        handles.append(Line2D([], [], marker=marker["marker"], linestyle="", color=colour, label=label))
    place.legend(
        handles=[*handles[1:], handles[0]], fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False
    )
    place.tick_params(labelsize=8)
    place.set_xlabel("km from the western edge", fontsize=8)
    place.set_ylabel("km from the northern edge", fontsize=8)
    place.set_title("where fires begin and what burns, by part", loc="left", fontsize=10)
    return figure


def write_bands(cache: TokenCache, path: Path) -> None:
    """Write each band's share of invalid pixels: of the whole landscape, of all crops together, and of what burns."""
    names = [*cache.continuous, *(name for name, _ in cache.categorical)]
    valid = np.concatenate([cache.array("landscape/valid"), cache.array("landscape/classes") > 0])
    kinds = ["continuous"] * len(cache.continuous) + ["categorical"] * len(cache.categorical)
    missing = np.zeros((len(names), 2), np.int64)
    totals = np.zeros(2, np.int64)
    touched = np.zeros(len(names), np.int64)
    for fire, crop in enumerate(cache.crops):
        here = ~valid[:, *crop.pixels]
        burnt = cache.frames(fire)[-1]
        missing += np.stack([here.sum(axis=(1, 2)), (here & burnt).sum(axis=(1, 2))], axis=1)
        totals += (burnt.size, burnt.sum())
        touched += (here & burnt).any(axis=(1, 2))
    header = ["band", "kind", "invalid in landscape", "invalid in crops", "invalid where burnt", "fires burning there"]
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for i, name in enumerate(names):
            shares = [1 - valid[i].mean(), *(missing[i] / np.maximum(totals, 1))]
            writer.writerow([name, kinds[i], *(f"{share:.2%}" for share in shares), touched[i]])
