"""Landscapes of the offline painter: ridges, cities, woods, dunes, and water that mirrors them."""

import numpy as np

from tools.painter.brushes import (
    Field,
    Point,
    below,
    clouds,
    lay,
    mix,
    rgb,
    shine,
    smooth,
    stencil,
    waves,
)
from tools.painter.prompts import Reading
from tools.painter.skies import Light, level_of, sky
from tools.painter.water import water


def sea(canvas: Field, light: Light, reading: Reading, rng: np.random.Generator) -> None:
    """Open water under the sky, with headlands on the horizon."""
    _, height, width = canvas.shape
    horizon = int(height * 0.6)
    sky(canvas, light, reading, horizon, rng)
    for depth, tall in ((0.72, 0.1), (0.5, 0.055)):
        reach = (
            smooth(0.55, 1.0, np.linspace(0, 1, width))
            if light.at[0] < width / 2
            else smooth(0.45, 0.0, np.linspace(0, 1, width))
        )
        bumps = 0.75 + 0.45 * waves(rng, width, 5, 6)
        line = horizon + 2 - height * tall * bumps * reach * (2.2 - depth)
        _ridge(canvas, light, line.astype(np.float32), depth, rng, end=horizon)
    water(canvas, light, reading, horizon, rng)


def mountains(canvas: Field, light: Light, reading: Reading, rng: np.random.Generator) -> None:
    """Ranges that pale with distance, snow on the near ones, and a lake if the words ask for it."""
    _, height, width = canvas.shape
    shore = int(height * 0.7) if reading.water else height
    sky(canvas, light, reading, height * 0.68, rng)
    layers = 5
    for at in range(layers):
        near = at / (layers - 1)
        base = height * (0.5 + (0.16 if reading.water else 0.36) * near)
        tall = height * (0.26 - 0.1 * near)
        line = base - tall * _peaks(rng, width, (1.5 + 0.5 * at) * width / height)
        _ridge(canvas, light, line.astype(np.float32), 1 - near * 0.95, rng, rock=True, end=shore)
    if reading.water:
        line = shore - height * 0.02 * (1 + waves(rng, width, 3, 5))
        _trees(canvas, light, line, height * 0.035, 0.12, rng, end=shore)
        water(canvas, light, reading, shore, rng)


def hills(canvas: Field, light: Light, reading: Reading, rng: np.random.Generator) -> None:
    """Rolling fields with hedges and rows that run to the horizon."""
    _, height, width = canvas.shape
    sky(canvas, light, reading, height * 0.62, rng)
    line = height * (0.55 - 0.07 * waves(rng, width, 3, 4))
    _ridge(canvas, light, line.astype(np.float32), 0.85, rng)
    green = rgb(reading.colour) if reading.colour else rgb("6f9a3f")
    for at in range(4):
        near = at / 3
        line = height * (0.6 + 0.3 * near**1.2 - (0.05 + 0.02 * near) * waves(rng, width, 2.2, 2))
        crop = mix(green, rgb("c9b458") if at % 2 else green * 0.75, 0.45)
        tone = crop * level_of(light) * (0.9 - 0.25 * near)
        _dune(
            canvas,
            light,
            line.astype(np.float32),
            mix(tone, light.haze, 0.55 * (1 - near)),
            rng,
            furrows=0.35 + 0.4 * near,
        )
        if at < 3:
            _hedge(canvas, light, line, height * (0.012 + 0.018 * near), 0.6 * (1 - near), rng)


def desert(canvas: Field, light: Light, reading: Reading, rng: np.random.Generator) -> None:
    """Dunes with a lit and a shadowed side."""
    _, height, width = canvas.shape
    sky(canvas, light, reading, height * 0.62, rng)
    sand = mix(rgb("d99a58"), rgb(reading.colour), 0.4) if reading.colour else rgb("d99a58")
    layers = 5
    for at in range(layers):
        near = at / (layers - 1)
        cells = (3.4 - 1.9 * near) * width / height
        crest = 1 - 2 * np.abs(waves(rng, width, cells, 1))
        swell = 0.6 * crest + 0.6 * waves(rng, width, cells * 0.7, 1)
        line = height * (0.57 + 0.34 * near**1.2 - (0.03 + 0.06 * near) * swell)
        line = _blur(line.astype(np.float32), max(2, width // 300))
        tone = mix(sand * level_of(light), light.haze, 0.62 * (1 - near))
        _dune(canvas, light, line.astype(np.float32), tone, rng, ripples=near)


def forest(canvas: Field, light: Light, reading: Reading, rng: np.random.Generator) -> None:
    """Conifers in ranks, each paler than the one before it, with light between them."""
    _, height, width = canvas.shape
    sky(canvas, light, reading, height * 0.75, rng)
    line = height * (0.45 - 0.12 * waves(rng, width, 2.5, 5))
    _ridge(canvas, light, line.astype(np.float32), 0.9, rng, rock=True)
    layers = 6
    for at in range(layers):
        near = at / (layers - 1)
        line = height * (0.54 + 0.4 * near - 0.05 * waves(rng, width, 2.0 + at, 4))
        _trees(canvas, light, line, height * (0.1 + 0.3 * near**1.5), 1 - near, rng)
        if at < layers - 1:
            top = int(height * (0.46 + 0.4 * near))
            fog = clouds(rng, height - top, width, (2.0, 2.5), 4)
            level = np.linspace(0, 1, height - top, dtype=np.float32)[:, None]
            band = smooth(0.0, 0.35, level) * smooth(1.0, 0.5, level)
            veil = mix(light.haze, light.horizon, 0.5)
            lay(canvas, veil, band * (0.16 + 0.5 * fog) * (0.75 - 0.4 * near), top)
    if reading.hour in ("dawn", "golden") and reading.weather not in ("rain", "storm", "snow"):
        _rays(canvas, light, rng)


def _peaks(rng: np.random.Generator, width: int, cells: float) -> Field:
    """The outline of a range, about -0.5 to 1.2: broad massifs, sharp crests, broken rock."""
    massif = waves(rng, width, cells, 2)
    crest = 1 - 2 * np.abs(waves(rng, width, cells * 1.9, 1))
    rock = 1 - 2 * np.abs(waves(rng, width, cells * 6, 5))
    return (0.36 + 0.5 * massif + 0.16 * crest + 0.17 * rock).astype(np.float32)


def _blur(line: Field, reach: int) -> Field:
    """A line softened over `reach` pixels either way."""
    bell = np.hanning(2 * reach + 3).astype(np.float32)
    padded = np.pad(line, reach + 1, mode="edge")
    return np.convolve(padded, bell / bell.sum(), mode="valid").astype(np.float32)


def _ridge(
    canvas: Field,
    light: Light,
    line: Field,
    distance: float,
    rng: np.random.Generator,
    *,
    rock: bool = False,
    end: int | None = None,
) -> None:
    """A range below `line`, from near (distance 0) and dark to far (1) and the colour of haze."""
    _, height, width = canvas.shape
    top, cover, depth = below(line, end or height)
    tone = mix(light.land, light.haze, 0.9 * distance**0.8)
    mist = np.exp(-depth / (height * 0.14))[None]
    foot = mix(light.haze, light.horizon, 0.35)
    paint = tone[:, None, None] * mist + mix(tone, foot, 0.55 * distance + 0.1)[:, None, None] * (
        1 - mist
    )
    if rock:
        rows = cover.shape[0]
        facing = 1.0 if light.at[0] < width / 2 else -1.0
        slope = np.gradient(_blur(line, max(2, width // 160)))
        grain = clouds(rng, rows, width, (rows / height * 16, 22), 5) - np.float32(0.5)
        swerve = depth * (0.55 + 0.16 * grain)  # gullies wander as they run down from the crest
        lean = np.arange(width)[None, :] + facing * swerve
        lit = smooth(-0.55, 0.65, facing * -slope[lean.astype(np.int32) % width] + grain * 0.9)
        sun = mix(light.haze, light.lamp, 0.5) * (0.18 if light.night else 0.5)
        share = lit * np.exp(-depth / (height * 0.2)) * np.float32(0.55 * (1 - 0.45 * distance))
        paint = paint + (sun[:, None, None] - paint) * share
        high = np.clip((height * 0.55 - line) / (height * 0.2), 0, 1)
        snow = smooth(0.0, 0.035, high * 0.13 - depth / height + grain * 0.16 * high - 0.01)
        white = mix(mix(light.haze, light.zenith, 0.3), [0.95, 0.95, 0.98], 0.5)
        shade = (white * (0.3 if light.night else 0.95))[:, None, None] * (0.42 + 0.75 * lit)
        paint = paint + (shade - paint) * snow * np.float32(0.85 - 0.5 * distance)
    lay(canvas, paint, cover, top)


def _dune(
    canvas: Field,
    light: Light,
    line: Field,
    tone: Field,
    rng: np.random.Generator,
    *,
    ripples: float = 0.0,
    furrows: float = 0.0,
) -> None:
    """A soft hill below `line`, one flank lit; `ripples` and `furrows` (0 to 1) texture it."""
    _, height, width = canvas.shape
    top, cover, depth = below(line, height)
    facing = 1.0 if light.at[0] < width / 2 else -1.0
    slope = np.gradient(line)
    bend = waves(rng, width, 3, 2) * height * 0.03
    lean = np.arange(width)[None, :] + facing * (depth * 1.1 + bend[None, :] * depth / height * 6)
    lit = smooth(-0.22, 0.22, -facing * slope[lean.astype(np.int32) % width])
    lit = lit * np.exp(-depth / (height * 0.4)) + 0.45 * (1 - np.exp(-depth / (height * 0.4)))
    if ripples or furrows:
        rows = cover.shape[0]
        warp = clouds(rng, rows, width, (3, 4), 3) * 9
        far = np.sqrt(depth / height + 0.002)
        comb = np.sin(far * (170 if ripples else 90) + warp)
        lit = lit + comb * (0.07 * ripples + 0.1 * furrows) * smooth(0.0, 0.06, depth / height)
        lit = lit + (clouds(rng, rows, width, (rows / 5, width / 5), 1) - 0.5) * 0.12
    dark = mix(tone * 0.3, light.zenith * 0.6, 0.3)
    bright = mix(tone, tone * light.lamp, 0.7) * 1.25
    paint = dark[:, None, None] + (bright - dark)[:, None, None] * np.clip(lit, 0, 1.3)
    lay(canvas, paint, cover, top)


def _trees(
    canvas: Field,
    light: Light,
    line: Field,
    tall: float,
    distance: float,
    rng: np.random.Generator,
    end: int | None = None,
) -> None:
    """A rank of conifers standing on `line`, up to `tall` pixels high."""
    _, height, width = canvas.shape
    shapes: list[list[Point]] = []
    x = -tall * 0.3
    while x < width + tall * 0.3:
        size = tall * float(rng.uniform(0.45, 1.0))
        foot = float(line[int(np.clip(x, 0, width - 1))]) + tall * 0.12
        shapes.append(_conifer(x, foot, size, rng))
        x += size * float(rng.uniform(0.16, 0.42))
    ground = [(float(at), float(line[at])) for at in range(0, width, 8)]
    shapes.append([*ground, (width, float(line[-1])), (width, height), (0, height)])
    top, cover = stencil((width, end or height), shapes, over=2 if width * height > 10**6 else 3)
    rows = cover.shape[0]
    tone = mix(light.land * 0.8, light.haze, 0.88 * distance**0.75)
    level = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
    paint = tone[:, None, None] + (mix(tone, light.haze, 0.5) - tone)[:, None, None] * (
        level**1.5 * np.float32(0.7 * distance + 0.05)
    )
    lay(canvas, np.broadcast_to(paint, (3, rows, width)), cover, top)


def _conifer(x: float, foot: float, size: float, rng: np.random.Generator) -> list[Point]:
    tiers = int(np.clip(size / 9, 5, 15))
    spread = size * float(rng.uniform(0.15, 0.2))
    left: list[Point] = [(x, foot - size)]
    right: list[Point] = []
    for tier in range(1, tiers + 1):
        share = tier / tiers
        y = foot - size * (1 - share * 0.9)
        out = spread * share**0.85 * float(rng.uniform(0.8, 1.15))
        left += [(x - out, y + size * 0.02), (x - out * 0.42, y - size * 0.004)]
        right += [(x + out * float(rng.uniform(0.85, 1.1)), y + size * 0.02), (x + out * 0.42, y)]
    trunk = size * 0.018
    return [*left, (x - trunk, foot), (x + trunk, foot), *reversed(right)]


def _hedge(
    canvas: Field, light: Light, line: Field, tall: float, distance: float, rng: np.random.Generator
) -> None:
    width = canvas.shape[2]
    clump = smooth(0.05, 0.5, waves(rng, width, 6, 3))
    crown = np.abs(waves(rng, width, width / max(tall, 2), 3)) * 0.6 + 0.5
    top, cover, depth = below(
        (line - tall * clump * crown * 1.6).astype(np.float32), canvas.shape[1]
    )
    strip = cover * (depth < (tall * clump * crown * 1.6 + tall * 0.25)[None, :] * (clump > 0.02))
    lay(canvas, mix(light.land * 0.9, light.haze, 0.6 * distance), strip * 0.95, top)


def _rays(canvas: Field, light: Light, rng: np.random.Generator) -> None:
    """Shafts of light fanning out from the sun."""
    _, height, width = canvas.shape
    x, y = light.at
    across = np.arange(width, dtype=np.float32)[None, :] - np.float32(x)
    down = np.arange(height, dtype=np.float32)[:, None] - np.float32(y - height * 0.12)
    angle = np.arctan2(across, down + 1)
    beams = waves(rng, 1024, 26, 3)
    ray = smooth(0.1, 0.9, beams[((angle + np.pi) / (2 * np.pi) * 1023).astype(np.int32)])
    fall = np.exp(-np.hypot(across, down) / (height * 0.42)) * smooth(0, height * 0.2, down)
    shine(canvas, mix(light.lamp, light.horizon, 0.4), ray * fall * 0.55)
