"""Drawing of scenes, anti-aliased, and the files that hold them: as many kinds as the web has."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageDraw, ImageFont

from tasks.samples.scene_model import COLOURS, GRID, Scene, Thing, scene_random

OVERSAMPLING = 3
RIM = 4
"""Width of the rim around a pattern, in oversampled pixels."""
RADII = {"small": 0.28, "large": 0.42}
"""Radius of a thing as a share of its cell's shorter side."""
JITTER = 0.06
JPEGS: dict[str, dict[str, Any]] = {
    "jpeg": {"quality": 88},
    "jpeg_fine": {"quality": 95, "subsampling": "4:4:4"},
    "jpeg_half": {"quality": 85, "subsampling": "4:2:2"},
    "jpeg_low": {"quality": 60, "subsampling": "4:4:4"},
    "jpeg_copy": {"quality": 75},
    "progressive": {"quality": 88, "progressive": True},
    "grey": {"quality": 88},
    "cmyk": {"quality": 92},
}
TURNED = {
    "turned_3": (3, Image.Transpose.ROTATE_180),
    "turned_6": (6, Image.Transpose.ROTATE_90),
    "turned_8": (8, Image.Transpose.ROTATE_270),
}
"""EXIF orientation, and how pixels are stored that it turns upright."""
FORMATS = (
    "jpeg", "jpeg", "jpeg", "jpeg", "jpeg_fine", "jpeg_half", "jpeg_low", "progressive", *TURNED, "cmyk",
    "png", "png_alpha", "palette", "gif", "webp",
)  # fmt: skip
"""Kinds of files, as often as they stand here; `grey` is for scenes without colours, `jpeg_copy` for copies."""
SUFFIXES = {"png": ".png", "png_alpha": ".png", "palette": ".png", "gif": ".gif", "webp": ".webp"}
PALE = (184, 241)
"""Brightness of the ground; it varies so much that scenes which hold the same things do not pass for duplicates."""
TINT = 14
GRAIN = 12
"""How much lighter or darker specks are, at most."""
SPECK = 2
"""Side of a speck in pixels."""
CROSS = (
    (-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3),
    (0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3),
)  # fmt: skip
Points = list[tuple[float, float]]


def file_format(scene: Scene, seed: int, index: int) -> str:
    """Return the kind of file in which a scene is served."""
    return "grey" if scene.colourless else FORMATS[int(scene_random(seed, index, 1).integers(len(FORMATS)))]


def picture_size(scene: Scene, side: int) -> tuple[int, int]:
    """Return width and height of a scene whose longer side is `side`."""
    return (side, round(side / scene.aspect)) if scene.aspect >= 1 else (round(side * scene.aspect), side)


def draw_scene(scene: Scene, seed: int, index: int, side: int) -> Image.Image:
    """Draw a scene on its pale ground."""
    random = scene_random(seed, index, 2)
    width, height = picture_size(scene, side)
    image = _ground(scene.ground, random, width, height)
    cell_width, cell_height = width / GRID, height / GRID
    shorter = min(cell_width, cell_height)

    def centre(column: int, row: int) -> tuple[float, float]:
        x, y = random.uniform(-JITTER, JITTER, 2) * shorter
        return (column + 0.5) * cell_width + x, (row + 0.5) * cell_height + y

    for thing in scene.things:
        _draw_thing(image, thing, *centre(thing.column, thing.row), RADII[thing.size] * shorter)
    if digit := scene.digit:
        font = ImageFont.load_default(0.8 * shorter)
        place = centre(digit.column, digit.row)
        ImageDraw.Draw(image).text(place, str(digit.value), COLOURS[digit.colour], font, anchor="mm")
    return image


def _ground(kind: str, random: np.random.Generator, width: int, height: int) -> Image.Image:
    """Return pale colours that flow into each other, different for every scene; speckled ones are grainy as well."""
    rows, columns = (2, 3) if kind == "graded" else (4, 5)
    shades = random.integers(*PALE, (rows, columns, 1)) + random.integers(-TINT, TINT + 1, (rows, columns, 3))
    ground = Image.fromarray(shades.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    if kind != "speckled":
        return ground
    grain = random.integers(-GRAIN, GRAIN + 1, (-(-height // SPECK), -(-width // SPECK), 1))
    fine = grain.repeat(SPECK, 0).repeat(SPECK, 1)[:height, :width]
    return Image.fromarray(np.clip(np.asarray(ground) + fine, 0, 255).astype(np.uint8))


def _draw_thing(image: Image.Image, thing: Thing, x: float, y: float, radius: float) -> None:
    """Paint a thing through the mask of its shape and, unless it is plain, of its pattern."""
    size = math.ceil(2 * radius) * OVERSAMPLING
    mask = Image.new("L", (size, size))
    OUTLINES[thing.shape](ImageDraw.Draw(mask), radius * OVERSAMPLING)
    corner = round(x - radius), round(y - radius)
    colour = COLOURS[thing.colour]
    _paint(image, colour, mask, corner)
    if thing.pattern != "plain":
        lighter = tuple(round(0.35 * c + 0.65 * 255) for c in colour)
        holes = _pattern(thing.pattern, size) & _within(mask)
        _paint(image, lighter, Image.fromarray(holes.astype(np.uint8) * 255), corner)


def _within(mask: Image.Image) -> NDArray[np.bool_]:
    """Return the inside of a shape, without the rim that keeps its outline clear."""
    import cv2

    rim = np.ones((2 * RIM + 1, 2 * RIM + 1), np.uint8)
    return cv2.erode(np.asarray(mask), rim, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0


def _paint(image: Image.Image, colour: tuple[int, ...], mask: Image.Image, corner: tuple[int, int]) -> None:
    """Paint a colour through an oversampled mask."""
    small = mask.reduce(OVERSAMPLING)
    image.paste(Image.new("RGB", small.size, colour), corner, small)


def _pattern(name: str, size: int) -> NDArray[np.bool_]:
    """Return where a pattern leaves the thing's colour for a lighter one, (size, size)."""
    step = max(4 * OVERSAMPLING, size // 7)
    y, x = np.indices((size, size))
    if name == "striped":
        return (x + y) // step % 2 == 1
    if name == "checkered":
        return (x // step + y // step) % 2 == 1
    return (x % (2 * step) - step) ** 2 + (y % (2 * step) - step) ** 2 < (0.55 * step) ** 2


def _polygon(points: Callable[[], Points]) -> Callable[[ImageDraw.ImageDraw, float], None]:
    """Return a drawer of a polygon that is given within -1..1."""
    return lambda draw, radius: draw.polygon([((x + 1) * radius, (y + 1) * radius) for x, y in points()], 255)


def _star() -> Points:
    angles = [math.pi * (k / 5 - 0.5) for k in range(10)]
    return [(math.cos(a) * (1 - 0.52 * (k % 2)), math.sin(a) * (1 - 0.52 * (k % 2))) for k, a in enumerate(angles)]


def _heart() -> Points:
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x = 16 * np.sin(angles) ** 3
    y = 13 * np.cos(angles) - 5 * np.cos(2 * angles) - 2 * np.cos(3 * angles) - np.cos(4 * angles)
    return list(zip((x / 17).tolist(), (-(y + 2.5) / 17).tolist(), strict=True))


def _ring(draw: ImageDraw.ImageDraw, radius: float) -> None:
    draw.ellipse((0, 0, 2 * radius, 2 * radius), 255)
    inner = 0.55 * radius
    draw.ellipse((radius - inner, radius - inner, radius + inner, radius + inner), 0)


OUTLINES: dict[str, Callable[[ImageDraw.ImageDraw, float], None]] = {
    "circle": lambda draw, radius: draw.ellipse((0, 0, 2 * radius, 2 * radius), 255),
    "ring": _ring,
    "square": _polygon(lambda: [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]),
    "diamond": _polygon(lambda: [(0, -1), (0.7, 0), (0, 1), (-0.7, 0)]),
    "triangle": _polygon(lambda: [(0, -0.95), (0.95, 0.8), (-0.95, 0.8)]),
    "star": _polygon(_star),
    "heart": _polygon(_heart),
    "cross": _polygon(lambda: list(CROSS)),
}


def encode(image: Image.Image, kind: str) -> bytes:
    """Return a picture as a file of one of the kinds; equal pictures give equal bytes."""
    buffer = io.BytesIO()
    if kind in TURNED:
        orientation, transpose = TURNED[kind]
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        image.transpose(transpose).save(buffer, "JPEG", quality=92, exif=exif)
    elif kind in JPEGS:
        modes = {"grey": "L", "cmyk": "CMYK"}
        image.convert(modes.get(kind, "RGB")).save(buffer, "JPEG", **JPEGS[kind])
    elif kind == "webp":
        image.save(buffer, "WEBP", quality=90)
    elif kind in ("palette", "gif"):
        palette = image.quantize(256, Image.Quantize.MAXCOVERAGE)  # other methods merge the colours of small things
        palette.save(buffer, "GIF" if kind == "gif" else "PNG")
    else:
        (_with_round_corners(image) if kind == "png_alpha" else image).save(buffer, "PNG")
    return buffer.getvalue()


def _with_round_corners(image: Image.Image) -> Image.Image:
    """Return a picture whose corners are transparent."""
    alpha = Image.new("L", image.size)
    box = (0, 0, image.width - 1, image.height - 1)
    ImageDraw.Draw(alpha).rounded_rectangle(box, 0.05 * min(image.size), 255)
    rounded = image.convert("RGBA")
    rounded.putalpha(alpha)
    return rounded
