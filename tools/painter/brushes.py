"""Brushes of the offline painter: colour, noise and layers on a canvas of linear light.

A canvas is a float32 array of shape (3, height, width) in linear light, where 1.0 is paper white
and lamps go beyond it; planes are contiguous because that is ten times faster to blend than pixels.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

Field: TypeAlias = NDArray[np.float32]
Point: TypeAlias = tuple[float, float]

_TABLE = 8192  # entries of the tone curve; finer than 8-bit output and grain can show


def rgb(code: str) -> Field:
    """The linear light of an sRGB colour such as "ffb347", as an array of shape (3,)."""
    display = np.array([int(code[at : at + 2], 16) for at in (0, 2, 4)], np.float32) / 255
    linear = np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)
    return np.asarray(linear, np.float32)


def mix(one: ArrayLike, other: ArrayLike, share: float) -> Field:
    """`one` with `share` (0 to 1) of it replaced by `other`."""
    first, second = np.asarray(one, np.float32), np.asarray(other, np.float32)
    return (first + (second - first) * np.float32(share)).astype(np.float32)


def smooth(low: float, high: float, value: ArrayLike) -> Field:
    """0 below `low`, 1 above `high`, an S-curve between; `low` above `high` turns it round."""
    t = np.clip((np.asarray(value, np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def waves(rng: np.random.Generator, length: int, cells: float, octaves: int) -> Field:
    """Fractal noise along a line, -1 to 1, with `cells` large features over `length`."""
    at = np.arange(length, dtype=np.float32) / np.float32(max(length, 1))
    total, weight, scale = np.zeros(length, np.float32), 1.0, 0.0
    for _ in range(octaves):
        knots = rng.uniform(-1, 1, int(np.ceil(cells)) + 3).astype(np.float32)
        place = at * np.float32(cells)
        cell = place.astype(np.int32)
        t = place - cell
        t = t * t * (3 - 2 * t)
        total += np.float32(weight) * (knots[cell] * (1 - t) + knots[cell + 1] * t)
        scale, weight, cells = scale + weight, weight * 0.5, cells * 2.03
    return np.asarray(np.tanh(total / np.float32(scale) * np.float32(1.9)), np.float32)


def clouds(
    rng: np.random.Generator, height: int, width: int, cells: tuple[float, float], octaves: int
) -> Field:
    """Fractal noise over a plane, 0 to 1, with `cells` (down, across) large features."""
    down, across = cells
    total, weight = np.zeros((height, width), np.float32), 1.0
    for _ in range(octaves):
        rows, columns = int(np.ceil(down)) + 3, int(np.ceil(across)) + 3
        knots = Image.fromarray(rng.random((rows, columns), dtype=np.float32))
        box = (1.0, 1.0, 1.0 + min(across, columns - 2), 1.0 + min(down, rows - 2))
        octave = knots.resize((width, height), Image.Resampling.BICUBIC, box=box)
        total += np.float32(weight) * np.asarray(octave, np.float32)
        weight, down, across = weight * 0.5, down * 2, across * 2
    low, high = (np.float32(edge) for edge in np.percentile(total[::4, ::4], (1, 99)))
    spread = max(float(high - low), 1e-6)
    return np.asarray(np.clip((total - low) / np.float32(spread), 0, 1), np.float32)


def lay(canvas: Field, colour: ArrayLike, cover: ArrayLike, top: int = 0) -> None:
    """Paint `colour` over the canvas from row `top` down where `cover` (0 to 1) says so.

    `colour` has shape (3,) or (3, rows, width); `cover` broadcasts to (rows, width).
    """
    paint = np.asarray(colour, np.float32)
    mask = np.asarray(cover, np.float32)
    rows = canvas.shape[1] - top if mask.ndim < 2 or mask.shape[0] == 1 else mask.shape[0]
    for plane, tint in zip(canvas, paint, strict=True):
        area = plane[top : top + rows]
        area += (tint - area) * mask


def shine(canvas: Field, colour: ArrayLike, light: ArrayLike, top: int = 0) -> None:
    """Add light of a colour of shape (3,) to the canvas from row `top` down."""
    glow = np.asarray(light, np.float32)
    for plane, tint in zip(canvas, np.asarray(colour, np.float32), strict=True):
        plane[top : top + glow.shape[0]] += tint * glow


def below(line: Field, height: int) -> tuple[int, Field, Field]:
    """What lies below a horizon line given in pixel rows, one per column.

    Returns the first row touched, the antialiased cover of the rows from there down, and the depth
    of each of their pixels under the line in pixels.
    """
    top = int(np.clip(np.floor(line.min()) - 1, 0, height - 1))
    rows = np.arange(top, height, dtype=np.float32)[:, None]
    depth = rows - line[None, :] + np.float32(0.5)
    return top, np.clip(depth, 0, 1), np.maximum(depth, 0)


def stencil(
    size: tuple[int, int], shapes: Sequence[Sequence[Point]], over: int = 3
) -> tuple[int, Field]:
    """The cover of filled polygons in pixel coordinates, antialiased by `over`-fold supersampling.

    Returns the first row touched and the cover of the rows from there down to the last one.
    """
    width, height = size
    top = int(np.clip(min(y for shape in shapes for _, y in shape) - 1, 0, height - 1))
    bottom = int(np.clip(max(y for shape in shapes for _, y in shape) + 2, top + 1, height))
    sheet = Image.new("L", (width * over, (bottom - top) * over))
    draw = ImageDraw.Draw(sheet)
    for shape in shapes:
        draw.polygon([(x * over, (y - top) * over) for x, y in shape], fill=255)
    return top, np.asarray(sheet.reduce(over), np.float32) / np.float32(255)


def curve(points: Sequence[Point], steps: int = 16) -> list[Point]:
    """A closed Catmull-Rom curve through `points`, with `steps` points per span."""
    knots = np.array(points, np.float64)
    before, after, beyond = (np.roll(knots, by, axis=0) for by in (1, -1, -2))
    t = (np.arange(steps) / steps)[None, :, None]
    a, b, c, d = (part[:, None, :] for part in (before, knots, after, beyond))
    spans = 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )
    return [(float(x), float(y)) for x, y in spans.reshape(-1, 2)]


def develop(canvas: Field, rng: np.random.Generator, grain: float) -> Image.Image:
    """The finished 8-bit sRGB picture: vignette, filmic shoulder, and grain that hides banding.

    `grain` is its standard deviation in 8-bit steps.
    """
    _, height, width = canvas.shape
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :] ** 2
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None] ** 2
    vignette = 1 - np.float32(0.30) * smooth(0.5, 2.1, across + down)
    light = np.linspace(0, 4, _TABLE, dtype=np.float32)
    # Linear up to 0.6, then a shoulder that reaches white softly: suns bloom instead of clipping.
    toned = np.where(light < 0.6, light, 0.6 + 0.4 * (1 - np.exp(-(light - 0.6) / 0.4)))
    display = np.where(toned <= 0.0031308, toned * 12.92, 1.055 * toned ** (1 / 2.4) - 0.055)
    table = (display * 255).astype(np.float32)
    noise = rng.standard_normal((height, width), dtype=np.float32) * np.float32(grain)
    pixels = np.empty((height, width, 3), np.uint8)
    for at, plane in enumerate(canvas):
        steps = np.clip(plane * vignette * np.float32((_TABLE - 1) / 4), 0, _TABLE - 1)
        toned_plane = table[steps.astype(np.uint16)] + noise
        pixels[:, :, at] = np.clip(toned_plane + np.float32(0.5), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels)
