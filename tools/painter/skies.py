"""Skies of the offline painter, the light they give, and the weather in front of everything."""

from dataclasses import dataclass

import numpy as np

from tools.painter.brushes import Field, clouds, lay, mix, rgb, shine, smooth
from tools.painter.prompts import Hour, Reading

# Colours from the zenith down: zenith, middle, horizon; then the lamp, near land, and distant haze.
_PALETTES: dict[Hour, tuple[str, str, str, str, str, str]] = {
    "dawn": ("5d83bd", "c7b4d8", "ffd9b8", "ffdcae", "2b3350", "e3c3c6"),
    "day": ("1f63bd", "6fabe4", "d3e8f5", "fff3d4", "1d3a33", "b4d0e6"),
    "golden": ("33538f", "d9946b", "ffc572", "ffb24a", "2a1c2e", "efa876"),
    "dusk": ("141d49", "6f4486", "f28b6c", "ff8150", "120f26", "9c5a88"),
    "night": ("071030", "12265a", "37578f", "dfe9ff", "04060d", "22365f"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """The light of a scene: colours in linear light, and where the sun or moon stands in pixels."""

    zenith: Field
    middle: Field
    horizon: Field
    lamp: Field
    land: Field
    haze: Field
    at: tuple[float, float]
    night: bool


def light_of(reading: Reading, size: tuple[int, int], rng: np.random.Generator) -> Light:
    """The light that hour, weather and colour word give a scene of `size` (width, height)."""
    zenith, middle, horizon, lamp, land, haze = (rgb(c) for c in _PALETTES[reading.hour])
    grey = {"rain": 0.55, "storm": 0.6, "mist": 0.4, "snow": 0.45, "cloudy": 0.1}.get(
        reading.weather, 0.0
    )
    if grey:
        level = {"storm": 0.45, "rain": 0.65, "snow": 1.15}.get(reading.weather, 0.95)
        zenith, middle, horizon, haze = (
            mix(tone, np.full(3, float(tone.mean()) * level), grey)
            for tone in (zenith, middle, horizon, haze)
        )
        lamp = mix(lamp, horizon, grey * 0.5)
    if reading.colour and reading.scene not in ("hills", "desert"):  # there it dyes the ground
        hue = rgb(reading.colour)
        hue = hue / max(float(hue.mean()), 0.02)
        zenith, middle, haze = (
            mix(tone, hue * float(tone.mean()), share)
            for tone, share in ((zenith, 0.35), (middle, 0.5), (haze, 0.4))
        )
        land = mix(land, hue * float(land.mean()), 0.35)
    width, height = size
    low = {"dawn": 0.47, "day": 0.16, "golden": 0.46, "dusk": 0.56, "night": 0.2}[reading.hour]
    side = rng.choice((0.28, 0.36, 0.64, 0.72))
    at = (float(side) * width, (low + float(rng.uniform(-0.03, 0.03))) * height)
    return Light(
        zenith=zenith,
        middle=middle,
        horizon=horizon,
        lamp=lamp,
        land=land,
        haze=haze,
        at=at,
        night=reading.hour == "night",
    )


def level_of(light: Light) -> float:
    """How bright daylight colours look under this light."""
    return 0.05 if light.night else float(np.clip(light.horizon.mean() * 1.25, 0.25, 1.0))


def sky(
    canvas: Field, light: Light, reading: Reading, horizon: float, rng: np.random.Generator
) -> None:
    """Fill the canvas with sky down to `horizon` (pixels), and its colour below it."""
    _, height, width = canvas.shape
    unit = min(width, height)
    t = np.minimum(np.arange(height, dtype=np.float32) / np.float32(horizon), 1)
    upper, lower = smooth(0.0, 0.62, t), smooth(0.45, 1.0, t)
    rows = mix(light.zenith, light.zenith, 0)[:, None] * (1 - upper) + light.middle[:, None] * upper
    rows = rows * (1 - lower) + light.horizon[:, None] * lower
    canvas[:] = rows[:, :, None]

    x, y = light.at
    across = (np.arange(width, dtype=np.float32) - np.float32(x))[None, :] / unit
    down = (np.arange(height, dtype=np.float32) - np.float32(y))[:, None] / unit
    far = np.sqrt(across**2 + down**2)
    veiled = {"storm": 0.12, "rain": 0.2, "mist": 0.6, "snow": 0.4}.get(reading.weather, 1.0)
    if light.night:
        if veiled > 0.3:
            _stars(canvas, horizon, rng)
        shine(canvas, light.lamp, 0.16 * veiled * np.exp(-far / 0.11) + 0.05 * np.exp(-far / 0.4))
        _moon(canvas, far, across, down, light, veiled, unit)
    else:
        flat = np.sqrt((across * 0.55) ** 2 + (down * 1.6) ** 2)  # light hugs the horizon
        shine(canvas, light.lamp, veiled * (0.5 * np.exp(-far / 0.13) + 0.22 * np.exp(-flat / 0.3)))
        radius = {"day": 0.03, "dawn": 0.036}.get(reading.hour, 0.044)
        disc = np.clip((radius - far) * unit + 0.5, 0, 1)
        lay(canvas, mix(light.lamp * 5, [4.5, 4.2, 3.6], 0.35), disc * min(veiled * 1.2, 1.0))
        shine(canvas, light.lamp, veiled * 0.9 * np.exp(-np.maximum(far - radius, 0) / 0.02))
    amount = {"clear": 0.18, "cloudy": 0.4} if light.night else {"clear": 0.36, "cloudy": 0.56}
    amount |= {"mist": 0.35, "snow": 0.6, "rain": 0.75, "storm": 0.8}
    _clouds(canvas, light, amount[reading.weather], horizon, far, rng)


def _stars(canvas: Field, horizon: float, rng: np.random.Generator) -> None:
    width = canvas.shape[2]
    rows = int(horizon)
    field = np.zeros((rows, width), np.float32)
    count = int(rows * width / 1500)
    xs, ys = rng.integers(1, width - 1, count), (rng.random(count) ** 1.3 * (rows - 3)).astype(int)
    power = (rng.pareto(2.2, count) * 0.16 + 0.05).clip(0, 2.6).astype(np.float32)
    np.add.at(field, (ys + 1, xs), power)
    bright = power > 0.7
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        np.add.at(field, (ys[bright] + 1 + dy, xs[bright] + dx), power[bright] * 0.35)
    milky = clouds(rng, rows, width, (2.2, 3.0), 6)
    slope = rng.uniform(0.35, 0.7) * rng.choice((-1, 1))
    line = np.linspace(-0.5, 0.5, width)[None, :] * slope + 0.36
    band = np.exp(-(((np.linspace(0, 1, rows)[:, None] - line) / 0.17) ** 2)).astype(np.float32)
    fade = smooth(1.0, 0.55, np.linspace(0, 1, rows))[:, None]
    dust = band * fade * (0.25 + milky**2)
    shine(canvas, [0.85, 0.9, 1.0], field * (0.8 + 1.2 * fade))
    shine(canvas, [0.075, 0.08, 0.13], dust)


def _moon(
    canvas: Field, far: Field, across: Field, down: Field, light: Light, veiled: float, unit: int
) -> None:
    radius = 0.052
    disc = np.clip((radius - far) * unit + 0.5, 0, 1)
    z = np.sqrt(np.clip(1 - (far / radius) ** 2, 0, 1))
    shade = np.clip((across / radius) * 0.45 - (down / radius) * 0.3 + z * 0.85, 0.04, 1)
    seas = np.sin(across * 150 + 2 * np.sin(down * 110)) * np.cos(down * 130 + 1.0)
    tone = shade * (1.0 - 0.16 * smooth(0.1, 0.7, seas)) * 1.25
    lay(canvas, [tone * channel for channel in light.lamp], disc * min(veiled * 1.3, 1.0))


def _clouds(
    canvas: Field,
    light: Light,
    amount: float,
    horizon: float,
    far: Field,
    rng: np.random.Generator,
) -> None:
    """Clouds in perspective: wide sheets overhead, thin streaks near the horizon."""
    rows, width = int(horizon), canvas.shape[2]
    height = canvas.shape[1]
    texture = clouds(rng, 384, width, (5.0, 2.2 * width / height), 6)
    level = np.linspace(0, 1, rows, dtype=np.float32)
    place = (1 - (1 - level) ** 0.55 * 0.98) if rows > 1 else level
    deep = np.clip(place * 383, 0, 382.99)
    upper = deep.astype(np.int32)
    part = (deep - upper)[:, None]
    density = texture[upper] * (1 - part) + texture[upper + 1] * part
    cut = 1.0 - amount
    cover = smooth(cut, cut + 0.38, density)
    lift = max(2, rows // 40)
    lit = np.clip((density - density[np.maximum(np.arange(rows) - lift, 0)]) * 2.2 + 0.5, 0, 1)
    near = np.exp(-far[:rows] / 0.35)
    ends = smooth(1.0, 0.8, level)[:, None] * smooth(-0.25, 0.3, level)[:, None]
    dim = 0.35 if light.night else (0.5 if amount > 0.7 else 0.8)
    bright = mix(light.horizon, light.lamp, 0.55) * (0.6 if light.night else 1.05)
    dark = mix(light.middle, light.zenith, 0.35) * dim
    glow = lit * (0.55 + 0.45 * near) + 0.5 * near * (1 - cover)
    paint = [d + (b - d) * np.clip(glow, 0, 1.4) for d, b in zip(dark, bright, strict=True)]
    lay(canvas[:, :rows], paint, cover * ends * (0.55 if light.night else 0.82))


def weather(canvas: Field, light: Light, reading: Reading, rng: np.random.Generator) -> None:
    """What falls or hangs between the viewer and the scene."""
    _, height, width = canvas.shape
    unit = min(width, height)
    if reading.weather == "mist":
        veil = clouds(rng, height, width, (5.0, 2.0), 4)
        level = np.linspace(0, 1, height, dtype=np.float32)[:, None]
        band = np.exp(-(((level - 0.55) / 0.16) ** 2))
        lay(canvas, mix(light.haze, light.horizon, 0.5), 0.06 + 0.5 * veil * band)
    elif reading.weather in ("rain", "storm"):
        _rain(canvas, light, rng)
    elif reading.weather == "snow":
        _snow(canvas, unit, rng)
    if reading.weather == "storm":
        lay(canvas, light.zenith * 0.25, smooth(0.5, 0.0, np.linspace(0, 1, height))[:, None] * 0.5)


def _rain(canvas: Field, light: Light, rng: np.random.Generator) -> None:
    _, height, width = canvas.shape
    streaks = np.zeros((height, width), np.float32)
    for length, share, power in ((height // 40, 0.004, 0.16), (height // 18, 0.0012, 0.3)):
        drops = (rng.random((height, width), dtype=np.float32) < share).astype(np.float32)
        total = np.cumsum(drops, axis=0)
        total[length:] -= total[:-length].copy()
        slant = (np.arange(height) // 7)[:, None]
        columns = (np.arange(width)[None, :] + slant) % width
        streaks += power * np.minimum(np.take_along_axis(total, columns, axis=1), 1)
    soft = (np.roll(streaks, 1, axis=1) + 2 * streaks + np.roll(streaks, -1, axis=1)) / 4
    shine(canvas, mix(light.horizon, light.haze, 0.5), soft * 0.42)


def _snow(canvas: Field, unit: int, rng: np.random.Generator) -> None:
    _, height, width = canvas.shape
    for radius, per in ((0.0011, 5000), (0.0022, 12000), (0.0048, 60000)):
        size = max(radius * unit, 0.7)
        reach = int(size * 2) + 2
        grid = np.arange(-reach, reach + 1, dtype=np.float32)
        flake = smooth(size * 1.6, size * 0.3, np.hypot(grid[:, None], grid[None, :]))
        count = max(12, width * height // per)
        xs = rng.integers(reach, max(width - reach, reach + 1), count)
        ys = rng.integers(reach, max(height - reach, reach + 1), count)
        for x, y, power in zip(xs, ys, rng.uniform(0.25, 0.8, count), strict=True):
            spot = canvas[:, y - reach : y + reach + 1, x - reach : x + reach + 1]
            if spot.shape[1:] == flake.shape:
                spot += (np.float32(0.95) - spot) * flake * np.float32(power)
