"""The city scene of the offline painter: towers with lit windows over water."""

import numpy as np

from tools.painter.brushes import Field, Point, lay, mix, rgb, shine, smooth, stencil, waves
from tools.painter.prompts import Reading
from tools.painter.skies import Light, sky
from tools.painter.water import water


def city(canvas: Field, light: Light, reading: Reading, rng: np.random.Generator) -> None:
    """A skyline in three depths, its windows lit as the hour asks, mirrored in water."""
    _, height, width = canvas.shape
    shore = int(height * 0.7)
    sky(canvas, light, reading, shore, rng)
    lit = {"night": 0.42, "dusk": 0.34, "dawn": 0.12, "golden": 0.16, "day": 0.0}[reading.hour]
    if lit > 0.3:
        level = np.arange(shore, dtype=np.float32)[:, None] / shore
        glow = np.exp(-(1 - level) * 4.5) * (0.85 + 0.3 * waves(rng, width, 3, 2)[None, :])
        shine(canvas, rgb("ff9a52"), glow * (0.3 if light.night else 0.12))
    for distance, tall, wide in ((0.85, 0.34, 0.045), (0.5, 0.44, 0.055), (0.08, 0.36, 0.075)):
        _district(canvas, light, rng, shore, distance, tall * height, wide * height, lit)
    line = np.full(width, shore, np.float32)
    lay(canvas, mix(light.land, light.haze, 0.1) * 0.6, np.ones((2, width)), int(line[0]) - 2)
    lamps = np.zeros((6, width), np.float32)
    if lit > 0.1:
        lamps[2:4, :: max(6, width // 90)] = 1.0
    shine(canvas, rgb("ffc987"), lamps * 1.5, shore - 6)
    water(canvas, light, reading, shore, rng)


def _district(
    canvas: Field,
    light: Light,
    rng: np.random.Generator,
    shore: int,
    distance: float,
    tall: float,
    wide: float,
    lit: float,
) -> None:
    """One rank of towers standing on row `shore`, from near (distance 0) to far (1)."""
    _, height, width = canvas.shape
    unit = height / 1024
    center = width * float(rng.uniform(0.35, 0.65))
    shapes: list[list[Point]] = []
    blocks: list[tuple[int, int, int]] = []
    x = -wide * float(rng.uniform(0.2, 0.8))
    while x < width:
        span = wide * float(rng.uniform(0.6, 1.35))
        crowd = np.exp(-(((x + span / 2 - center) / (width * 0.32)) ** 2))
        rise = tall * (0.3 + 0.75 * float(crowd)) * float(rng.uniform(0.45, 1.12))
        shapes += _tower(x, x + span, shore - rise, float(shore), rng)
        blocks.append((round(x), round(x + span), round(shore - rise)))
        x += span * float(rng.uniform(0.85, 1.12))
    top, cover = stencil((width, shore), shapes)
    rows = cover.shape[0]
    dark = mix(light.land * 0.9, light.haze, 0.72 * distance)
    level = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
    foot = mix(dark, mix(light.haze, light.horizon, 0.5), 0.15 + 0.4 * distance)
    paint = dark[:, None, None] + (foot - dark)[:, None, None] * level**1.6
    face = np.ones((rows, width), np.float32)
    toward = light.at[0]
    for left, right, _ in blocks:  # each tower turns one flank to the light
        a, b = max(left, 0), max(min(right, width), 0)
        ramp = np.linspace(0.84, 1.2, max(b - a, 0), dtype=np.float32)
        face[:, a:b] = ramp if toward > (left + right) / 2 else ramp[::-1]
    lay(canvas, paint * face, cover, top)
    glass = np.zeros((rows, width), np.float32)
    warm = np.zeros((rows, width), np.float32)
    pitch = max(4, round((11 - 5 * distance) * unit))
    for left, right, roof in blocks:
        _windows(glass, warm, left, right, roof - top, pitch, rng)
    if lit > 0:
        on = glass * cover * (warm > 1 - lit)
        share = smooth(1 - lit, 1.0, warm)
        power = (1.5 - 0.9 * distance) * (0.6 if lit < 0.3 else 1.0)
        shine(canvas, rgb("ffb866"), on * (0.35 + 0.8 * share) * power * (warm < 0.97), top)
        shine(canvas, rgb("bfe0ff"), on * power * 0.8 * (warm >= 0.97), top)
    pane = mix(light.horizon, light.zenith, 0.45) * (0.5 if light.night else 0.9)
    lay(canvas, pane, glass * cover * (0.05 if lit > 0.3 else 0.24) * (1 - 0.6 * distance), top)


def _tower(
    left: float, right: float, roof: float, foot: float, rng: np.random.Generator
) -> list[list[Point]]:
    """The outline of a tower: plain, stepped, slanted or with a spire."""
    span, kind = right - left, int(rng.integers(6))
    body: list[Point] = [(left, foot), (left, roof), (right, roof), (right, foot)]
    if kind == 0:
        body[1] = (left, roof + span * float(rng.uniform(0.2, 0.5)))
    elif kind == 1:
        inset, rise = span * 0.2, span * 0.45
        crown = [(left + inset, roof), (left + inset, roof - rise), (right - inset, roof - rise)]
        return [body, [*crown, (right - inset, roof)]]
    elif kind == 2:
        middle, mast = (left + right) / 2, span * float(rng.uniform(0.5, 1.1))
        thin = max(span * 0.016, 0.5)
        return [body, [(middle - thin, roof), (middle, roof - mast), (middle + thin, roof)]]
    elif kind == 3:
        box = span * 0.16
        return [body, [(left + box, roof), (left + box, roof - box), (left + 3 * box, roof - box),
                       (left + 3 * box, roof)]]  # fmt: skip
    return [body]


def _windows(
    glass: Field,
    warm: Field,
    left: int,
    right: int,
    roof: int,
    pitch: int,
    rng: np.random.Generator,
) -> None:
    """Mark one tower's panes in `glass` and how warmly each could glow (0 to 1) in `warm`."""
    rows, width = glass.shape
    margin = max(2, pitch // 3)
    start, stop = left + margin, right - margin
    first = max(roof, 0) + pitch
    columns, floors = (stop - start) // pitch, (rows - first) // pitch
    if columns < 1 or floors < 1:
        return
    mood = rng.random((floors, columns), dtype=np.float32)
    mood = 0.8 * mood + 0.2 * rng.random((floors, 1), dtype=np.float32)  # floors work late together
    pane = np.zeros((pitch, pitch), np.float32)
    pane[: max(2, round(pitch * 0.6)), : max(2, round(pitch * 0.5))] = 1
    area = np.tile(pane, (floors, columns))
    light = np.repeat(np.repeat(mood, pitch, axis=0), pitch, axis=1)
    a, b = max(start, 0), min(start + columns * pitch, width)
    if b > a:
        cut = slice(a - start, b - start)
        glass[first : first + floors * pitch, a:b] = area[:, cut]
        warm[first : first + floors * pitch, a:b] = light[:, cut]
