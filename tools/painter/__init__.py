"""The offline painter: a picture for any prompt, without network, model or keys."""

import numpy as np
from PIL import Image

from tools.painter.brushes import develop
from tools.painter.cities import city
from tools.painter.lands import desert, forest, hills, mountains, sea
from tools.painter.objects import abstract, bottle, cup, shoe
from tools.painter.prompts import dice, read
from tools.painter.skies import light_of, weather

_LANDS = {
    "sea": sea,
    "mountains": mountains,
    "hills": hills,
    "desert": desert,
    "forest": forest,
    "city": city,
}
_OBJECTS = {"bottle": bottle, "cup": cup, "shoe": shoe, "abstract": abstract}


def paint(prompt: str, width: int, height: int, seed: int) -> Image.Image:
    """An RGB picture of `width` x `height` pixels that depends on the words of `prompt`.

    The same prompt (letter case and spacing aside), size and seed give the same pixels in any
    process; another seed gives another picture of the same scene.
    """
    rng = dice(prompt, seed)
    reading = read(prompt, rng)
    canvas = np.zeros((3, height, width), np.float32)
    if reading.scene in _LANDS:
        light = light_of(reading, (width, height), rng)
        _LANDS[reading.scene](canvas, light, reading, rng)
        weather(canvas, light, reading, rng)
    else:
        _OBJECTS[reading.scene](canvas, reading, rng)
    return develop(canvas, rng, grain=1.6)
