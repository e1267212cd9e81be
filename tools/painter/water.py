"""Water of the offline painter: a rippled mirror."""

import numpy as np

from tools.painter.brushes import Field, clouds, lay, mix, rgb, shine, smooth
from tools.painter.prompts import Reading
from tools.painter.skies import Light, level_of


def water(
    canvas: Field, light: Light, reading: Reading, horizon: int, rng: np.random.Generator
) -> None:
    """Mirror what stands above `horizon` in rippled water below it."""
    _, height, width = canvas.shape
    rows = height - horizon
    depth = (np.arange(rows, dtype=np.float32) + np.float32(0.5))[:, None] / rows
    far = 1 / (depth + np.float32(0.03))
    side = 512
    swell = clouds(rng, side, side, (14, 7), 5) - np.float32(0.5)
    across = (np.arange(width, dtype=np.float32)[None, :] - width / 2) / height
    u = (across * far * 60 + side * 0.31).astype(np.int32) % side
    v = np.broadcast_to((far * 70).astype(np.int32) % side, u.shape)
    rough = {"storm": 1.9, "rain": 1.4, "mist": 0.5}.get(reading.weather, 1.0)
    rough *= 1.0 if reading.scene == "sea" else 0.55
    ripple = swell[v, u] * rough
    fine = swell[(v * 3) % side, (u * 2) % side] * rough
    tilt = ripple + fine * 0.6
    lift = depth * horizon * 0.9 * (1 + 0.3 * tilt) + tilt * height * 0.1 * depth**0.6
    source = np.clip(horizon - 1 - np.abs(lift), 0, horizon - 1).astype(np.int32)
    slide = (ripple * height * 0.035 * (0.25 + depth)).astype(np.int32)
    column = np.clip(np.arange(width)[None, :] + slide, 0, width - 1)
    index = source * width + column
    deep = light.zenith * (0.5 if light.night else 0.38)
    if not light.night:
        deep = mix(deep, rgb("0e4a5a") * level_of(light), 0.45)
    # Grazing water mirrors, steep water shows its own depth (Fresnel).
    mirror = np.clip(0.93 - 0.62 * depth**0.8 + 0.35 * tilt, 0.18, 0.97)
    for plane, tone in zip(canvas, deep, strict=True):
        seen = np.ascontiguousarray(plane[:horizon]).reshape(-1)[index]
        plane[horizon:] = tone * (1 - mirror) + seen * mirror * np.float32(0.92)
    x = light.at[0]
    path = np.exp(-(((np.arange(width)[None, :] - x) / (width * (0.03 + 0.12 * depth))) ** 2))
    if reading.weather not in ("rain", "storm", "mist"):
        crest = smooth(0.2, 0.5, fine + ripple * 0.5)
        strength = 0.7 if light.night else 1.5
        shine(canvas, light.lamp, path * crest * strength * (1 - 0.6 * depth), horizon)
    haze = np.exp(-depth * rows / (height * 0.02))
    lay(canvas, mix(light.horizon, light.haze, 0.5), haze * 0.45, horizon)
