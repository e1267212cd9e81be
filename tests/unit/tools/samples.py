"""Pictures drawn for the tests."""

import numpy as np
from PIL import Image


def pattern(width: int, height: int, shift: int = 0) -> Image.Image:
    """A picture in which every pixel tells where it came from, with soft tones all over."""
    y, x = np.mgrid[0:height, 0:width]
    red = 40 + 170 * ((x + shift) % width) / width
    green = 40 + 170 * y / height
    blue = 128 + 60 * np.sin((x + 2 * y + shift) / 9)
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))
