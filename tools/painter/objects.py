"""Still lifes of the offline painter, and the abstract picture for words that name no scene."""

import numpy as np

from tools.painter.brushes import (
    Field,
    Point,
    clouds,
    curve,
    lay,
    mix,
    rgb,
    shine,
    smooth,
    stencil,
    waves,
)
from tools.painter.prompts import Reading

_ACCENTS = ("1f8a8c", "c8352b", "2f6fc0", "e59a2b", "7a4fb5", "3f8f5a", "d76d86", "22396f")
_WARM = ("ff9d5c", "f7c9a0", "ff7d7d", "8fd6e8", "f2a9d0")

# The parts of a sneaker in profile, heel at 0, toe at 1, in shares of its length.
_UPPER: list[Point] = [
    (0.06, 0.05), (0.035, 0.12), (0.03, 0.22), (0.05, 0.36), (0.1, 0.405), (0.2, 0.385),
    (0.3, 0.4), (0.37, 0.43), (0.44, 0.37), (0.56, 0.275), (0.7, 0.21), (0.86, 0.18),
    (0.945, 0.14), (0.965, 0.09), (0.93, 0.05), (0.5, 0.045),
]  # fmt: skip
_COLLAR: list[Point] = [
    (0.1, 0.395), (0.2, 0.372), (0.3, 0.387), (0.36, 0.42), (0.3, 0.405), (0.2, 0.388),
    (0.12, 0.402),
]  # fmt: skip
_TOE: list[Point] = [
    (0.77, 0.07), (0.8, 0.13), (0.86, 0.18), (0.94, 0.14), (0.958, 0.09), (0.93, 0.06),
]  # fmt: skip
_HEEL: list[Point] = [
    (0.055, 0.06), (0.036, 0.12), (0.034, 0.2), (0.09, 0.2), (0.15, 0.15), (0.17, 0.07),
]  # fmt: skip
_STRIPE: list[Point] = [
    (0.24, 0.09), (0.36, 0.13), (0.5, 0.25), (0.535, 0.235), (0.45, 0.14), (0.33, 0.075),
]  # fmt: skip
_SOLE: list[Point] = [
    (0.0, 0.05), (0.015, 0.085), (0.2, 0.08), (0.45, 0.07), (0.7, 0.075), (0.95, 0.085),
    (1.0, 0.07), (0.975, 0.02), (0.9, 0.0), (0.5, 0.0), (0.06, 0.0),
]  # fmt: skip


def accent(reading: Reading, rng: np.random.Generator) -> Field:
    """The colour word of the prompt, or else a colour that the dice choose."""
    return rgb(reading.colour or _ACCENTS[int(rng.integers(len(_ACCENTS)))])


def studio(canvas: Field, reading: Reading, hue: Field, floor: float) -> None:
    """A seamless backdrop in a pale relative of `hue`, lit from the upper left, and a table."""
    _, height, width = canvas.shape
    night = reading.hour == "night"
    warm = {"golden": "ffd9ae", "dawn": "ffe6df", "dusk": "dcc4e6", "night": "2c3046"}
    wall = mix(
        mix(rgb(warm.get(reading.hour, "f1ece4")), hue, 0.3), [0.8] * 3, 0.0 if night else 0.2
    )
    across = np.linspace(0, 1, width, dtype=np.float32)[None, :]
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    spot = np.exp(-(((across - 0.4) / 0.5) ** 2 + ((down - 0.36) / 0.46) ** 2))
    tone = (0.28 if night else 0.42) + (0.75 if night else 0.62) * spot
    canvas[:] = wall[:, None, None] * tone
    table = mix(wall * 0.9, hue * 0.55, 0.3)
    below = np.clip((down * height - floor) / (height * 0.012), 0, 1)  # the edge is out of focus
    sheen = 0.55 + 0.5 * np.exp(-(((across - 0.42) / 0.42) ** 2)) * smooth(1.25, 0.6, down)
    lay(canvas, table[:, None, None] * sheen, below)


def shadow(canvas: Field, x: float, y: float, wide: float, deep: float, power: float) -> None:
    """A soft contact shadow: an ellipse at (x, y) with half axes `wide` and `deep` in pixels."""
    _, height, width = canvas.shape
    across = ((np.arange(width, dtype=np.float32) - x) / wide)[None, :]
    down = ((np.arange(height, dtype=np.float32) - y) / deep)[:, None]
    dark = np.exp(-((across**2 + down**2) ** 0.8) * 1.3) * np.float32(power)
    canvas *= 1 - dark


def turned(
    canvas: Field, x: float, top: float, radius: Field, tone: Field, gloss: float, ends: float
) -> None:
    """A body of revolution: `radius` in pixels per row from row `top`, lit like a studio product.

    `ends` is the height of its bottom ellipse as a share of the radius, as seen from above.
    """
    _, height, width = canvas.shape
    start = round(top)
    rows = min(len(radius), height - start)
    across = np.arange(width, dtype=np.float32)[None, :] - np.float32(x)
    sag = np.sqrt(np.clip(1 - (across / radius.max()) ** 2, 0, 1)) * ends * radius.max()
    place = np.arange(rows, dtype=np.float32)[:, None] - sag + ends * radius.max()
    index = np.clip(place, 0, len(radius) - 1).astype(np.int32)
    reach = radius[index] if ends else radius[:rows, None]
    inside = np.clip(reach - np.abs(across) + 0.5, 0, 1)
    if ends:
        foot = (len(radius) - 1 - ends * radius.max()) + sag
        inside = inside * np.clip(foot - np.arange(rows, dtype=np.float32)[:, None] + 0.5, 0, 1)
    nx = across / np.maximum(reach, 1)
    lit = 0.2 + 0.95 * np.clip(0.72 - 0.62 * (nx + 0.42) ** 2, 0, 1) + 0.16 * smooth(0.7, 1.0, nx)
    bounce = np.exp(-(((nx + 0.5) / 0.085) ** 2)) + 0.35 * np.exp(-(((nx - 0.66) / 0.05) ** 2))
    light = bounce * gloss
    paint = np.stack([tone[c] * lit + light for c in range(3)])
    lay(canvas, paint, inside, start)


def ellipse(x: float, y: float, wide: float, deep: float, steps: int = 120) -> list[Point]:
    """The outline of an ellipse."""
    turn = np.linspace(0, 2 * np.pi, steps, endpoint=False)
    return [(x + wide * float(np.cos(a)), y + deep * float(np.sin(a))) for a in turn]


def fill(canvas: Field, shape: list[Point], colour: Field, power: float = 1.0) -> None:
    """Fill one antialiased outline with a colour."""
    top, cover = stencil((canvas.shape[2], canvas.shape[1]), [shape])
    lay(canvas, colour, cover * np.float32(power), top)


def mirror(canvas: Field, floor: int, power: float) -> None:
    """Reflect what stands above row `floor` in a polished table, fading downwards."""
    height = canvas.shape[1]
    rows = min(height - floor, floor)
    fade = np.exp(-np.linspace(0, 4.5, rows, dtype=np.float32))[:, None] * np.float32(power)
    for plane in canvas:
        plane[floor : floor + rows] += (
            plane[floor - rows : floor][::-1] - plane[floor : floor + rows]
        ) * fade


def bottle(canvas: Field, reading: Reading, rng: np.random.Generator) -> None:
    """A bottle with a label on a polished table."""
    _, height, width = canvas.shape
    unit = min(width, height)
    hue = accent(reading, rng)
    floor = int(height * 0.8)
    studio(canvas, reading, hue, floor - unit * 0.06)
    tall, girth = unit * float(rng.uniform(0.56, 0.63)), unit * float(rng.uniform(0.105, 0.135))
    neck, x = girth * float(rng.uniform(0.3, 0.4)), width / 2
    rows = int(tall)
    level = np.linspace(0, 1, rows, dtype=np.float32)
    radius = neck + (girth - neck) * smooth(0.2, 0.42, level)
    radius = radius * (1 - 0.06 * smooth(0.975, 1.0, level))
    top = floor - rows
    shadow(canvas, x + girth * 0.5, floor, girth * 2.1, unit * 0.03, 0.5)
    turned(canvas, x, top, radius, hue * 0.62, 0.75, 0.12)
    cap = rows // 8
    metal = mix(rgb("c99a3b"), rgb("2a2c31"), float(rng.integers(2)))
    turned(canvas, x, top - cap * 0.3, np.full(cap, neck * 1.18, np.float32), metal, 0.5, 0.12)
    paper = mix(rgb("f3efe6"), hue, 0.06)
    label = np.full(int(tall * 0.27), girth * 1.003, np.float32)
    at = top + tall * 0.52
    turned(canvas, x, at, label, paper * 0.92, 0.1, 0.12)
    for y, wide, tone in ((0.075, 0.32, hue * 0.6), (0.12, 0.5, hue * 0.35), (0.15, 0.22, metal)):
        thick = unit * (0.006 if tone is not metal else 0.003)
        strip = [(x - girth * wide, at + tall * y), (x + girth * wide, at + tall * y)]
        fill(canvas, [*strip, *((a, b + thick) for a, b in reversed(strip))], tone)
    mirror(canvas, floor, 0.34)
    shadow(canvas, x, floor + unit * 0.004, girth * 1.02, unit * 0.008, 0.75)


def cup(canvas: Field, reading: Reading, rng: np.random.Generator) -> None:
    """A cup of coffee on a saucer, steaming."""
    _, height, width = canvas.shape
    unit = min(width, height)
    hue = accent(reading, rng)
    floor, x = height * 0.76, width * 0.48
    studio(canvas, reading, hue, height * 0.6)
    wide, tall = unit * 0.2, unit * 0.24
    glaze = mix(hue, [0.9, 0.88, 0.84], 0.15 if reading.colour else 0.55)
    shadow(canvas, x + wide * 0.35, floor + unit * 0.035, wide * 2.3, unit * 0.075, 0.6)
    fill(canvas, ellipse(x, floor + unit * 0.012, wide * 1.68, unit * 0.082), glaze * 0.42)
    fill(canvas, ellipse(x, floor, wide * 1.68, unit * 0.08), glaze * 0.86)
    fill(canvas, ellipse(x, floor - unit * 0.004, wide * 1.5, unit * 0.066), glaze * 0.66)
    shadow(canvas, x + wide * 0.25, floor + unit * 0.006, wide * 1.0, unit * 0.03, 0.7)
    ring = (x + wide * 1.05, floor - tall * 0.55)
    outer = ellipse(*ring, wide * 0.46, tall * 0.34)
    inner = ellipse(ring[0] - wide * 0.02, ring[1], wide * 0.3, tall * 0.215)
    handle = [*outer, outer[0], inner[0], *reversed(inner)]
    fill(canvas, handle, glaze * 0.55)
    top = floor - tall
    level = np.linspace(0, 1, int(tall + unit * 0.03), dtype=np.float32)
    radius = wide * (1 - 0.42 * level**2.6)
    turned(canvas, x, top, radius.astype(np.float32), glaze, 0.22, 0.14)
    fill(canvas, ellipse(x, top + wide * 0.03, wide, wide * 0.27), glaze * 1.0)
    fill(canvas, ellipse(x, top + wide * 0.045, wide * 0.94, wide * 0.24), glaze * 0.4)
    brew = ellipse(x, top + wide * 0.085, wide * 0.9, wide * 0.2)
    fill(canvas, brew, rgb("3a1d0d"))
    fill(
        canvas,
        ellipse(x - wide * 0.12, top + wide * 0.1, wide * 0.6, wide * 0.11),
        rgb("a8713f"),
        0.6,
    )
    fill(
        canvas,
        ellipse(x - wide * 0.2, top + wide * 0.09, wide * 0.3, wide * 0.05),
        rgb("e2bd8c"),
        0.7,
    )
    _steam(canvas, x, top + wide * 0.05, unit, rng)


def _steam(canvas: Field, x: float, y: float, unit: int, rng: np.random.Generator) -> None:
    rows = int(min(y, unit * 0.42))
    level = np.linspace(1, 0, rows, dtype=np.float32)  # 0 at the cup
    across = np.arange(canvas.shape[2], dtype=np.float32)[None, :]
    for start in (-0.07, 0.0, 0.075):
        bend = waves(rng, rows, 2.6, 2) * level * unit * 0.055 + start * unit + x
        spread = unit * (0.007 + 0.026 * level)[:, None]
        wisp = np.exp(-(((across - bend[:, None]) / spread) ** 2))
        fade = smooth(0.0, 0.12, level) * smooth(1.0, 0.3, level)
        shine(canvas, [0.5, 0.49, 0.48], wisp * fade[:, None] * 0.42, int(y) - rows)


def shoe(canvas: Field, reading: Reading, rng: np.random.Generator) -> None:
    """A sneaker in profile."""
    _, height, width = canvas.shape
    unit = min(width, height)
    hue = accent(reading, rng)
    size, floor = unit * 0.74, height * 0.74
    left = width / 2 - size / 2
    studio(canvas, reading, hue, floor - unit * 0.1)

    def at(points: list[Point]) -> list[Point]:
        return [(left + x * size, floor - y * size) for x, y in points]

    shadow(canvas, width / 2, floor + unit * 0.004, size * 0.56, unit * 0.026, 0.85)
    upper = curve(at(_UPPER))
    top, cover = stencil((width, height), [upper])
    rows = cover.shape[0]
    level = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
    weave = clouds(rng, rows, width, (rows / 4, width / 4), 1) - 0.5
    across = (np.arange(width, dtype=np.float32)[None, :] - left) / size
    lit = 1.05 - 0.62 * level**1.3 - 0.22 * smooth(0.55, 1.0, across) * level + 0.07 * weave
    lit = lit + 0.3 * np.exp(-(((across - 0.3) / 0.22) ** 2 + ((level - 0.3) / 0.22) ** 2))
    lay(canvas, hue[:, None, None] * lit, cover, top)
    pale, dark = mix(rgb("f4f1ea"), hue, 0.05), hue * 0.3
    for outline, tone in (
        (_COLLAR, dark),
        (_TOE, pale * 0.72),
        (_HEEL, dark),
        (_STRIPE, pale * 0.9),
    ):
        fill(canvas, curve(at(outline)), tone)
    for step in range(5):
        x, y = 0.405 + step * 0.055, 0.375 - step * 0.036
        fill(canvas, curve(at([(x, y + 0.014), (x + 0.012, y + 0.022), (x - 0.045, y - 0.066),
                               (x - 0.06, y - 0.07)]), 8), pale)  # fmt: skip
    sole = curve(at(_SOLE))
    top, cover = stencil((width, height), [sole])
    level = np.linspace(0, 1, cover.shape[0], dtype=np.float32)[:, None]
    lay(canvas, pale[:, None, None] * (1.0 - 0.55 * level + 0 * across), cover, top)
    line = at([(0.005, 0.03), (0.99, 0.03), (0.985, 0.022), (0.01, 0.022)])
    fill(canvas, line, hue, 0.85)
    mirror(canvas, int(floor), 0.25)


def abstract(canvas: Field, reading: Reading, rng: np.random.Generator) -> None:
    """Folded sheets of colour, each casting a soft shadow on the one behind."""
    _, height, width = canvas.shape
    night = reading.hour == "night"
    first = accent(reading, rng)
    turn = int(rng.integers(1, 3))
    second = mix(np.roll(first, turn), rgb(_WARM[int(rng.integers(len(_WARM)))]), 0.6)
    ground = mix(first * 0.25, rgb("0d1024"), 0.5) if night else mix(first, rgb("fff4ea"), 0.7)
    across = np.linspace(0, 1, width, dtype=np.float32)[None, :]
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    warp = clouds(rng, height, width, (1.6, 1.6), 2)
    flow = np.clip(0.55 * across + 0.6 * down + 0.6 * (warp - 0.5), 0, 1)
    canvas[:] = ground[:, None, None] + (mix(ground, second, 0.75) - ground)[:, None, None] * flow
    sheets = 7
    for sheet in range(sheets):
        near = sheet / (sheets - 1)
        swing = waves(rng, width, 1.7, 1) * 0.13 + waves(rng, width, 0.9, 1) * 0.14
        line = (0.24 + 0.66 * near + swing + (across[0] - 0.5) * 0.22) * height
        depth = np.arange(height, dtype=np.float32)[:, None] - line[None, :]
        canvas *= 1 - 0.34 * np.exp(-np.maximum(-depth, 0) / (height * 0.035)) * (depth < 1)
        tone = mix(mix(second, rgb("fff0e0"), 0.2), first * (0.5 if night else 0.85), near)
        tone = np.clip(tone + 0.9 * (tone - tone.mean()) * (near - near**2) * 3, 0.01, 1)
        body = np.clip(depth / (height * 0.42), 0, 1) ** 0.7
        slope = np.gradient(line) * 1.1
        crest = np.exp(-np.maximum(depth, 0) / (height * 0.012)) * (0.16 - 0.14 * slope)[None, :]
        sheen = (1.12 - 0.55 * body) * (1 - 0.35 * slope)[None, :]
        paint = [channel * sheen + np.maximum(crest, 0) for channel in tone]
        lay(canvas, paint, np.clip(depth + 0.5, 0, 1))
