"""The material of the demo, drawn here: a brand mark and a customer's portrait.

Both are synthetic, so that the demo can show customer data without holding any.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

_FINE = 3  # drawn this much larger and reduced, for smooth edges
_INK = (18, 42, 54, 255)
_PAPER = (255, 255, 255, 236)


def draw_logo(path: Path) -> None:
    """Writes the mark of the invented brand "Aurora" as a PNG with a transparent background."""
    width, height = 760 * _FINE, 240 * _FINE
    sheet = Image.new("RGBA", (width, height), (255, 255, 255, 0))
    pen = ImageDraw.Draw(sheet)
    pen.rounded_rectangle((0, 0, width - 1, height - 1), 60 * _FINE, fill=_PAPER)
    _sun(pen, 120 * _FINE, 124 * _FINE)
    _wordmark(pen, 226 * _FINE, 78 * _FINE, 84 * _FINE)
    sheet.reduce(_FINE).save(path)


def _sun(pen: ImageDraw.ImageDraw, x: int, y: int) -> None:
    """A half sun over three ridges."""
    for radius, colour in ((76, (255, 209, 128, 255)), (58, (255, 150, 84, 255)),
                           (40, (234, 88, 72, 255))):  # fmt: skip
        r = radius * _FINE
        pen.pieslice((x - r, y - r, x + r, y + r), 180, 360, fill=colour)
    for row, (half, thick) in enumerate(((76, 12), (54, 11), (30, 10))):
        top = y + (16 + row * 24) * _FINE
        box = (x - half * _FINE, top, x + half * _FINE, top + thick * _FINE)
        pen.rounded_rectangle(box, thick * _FINE // 2, fill=_INK)


def _wordmark(pen: ImageDraw.ImageDraw, x: int, y: int, height: int) -> None:
    """AURORA in monoline capitals, drawn from strokes: no font needs to be installed."""
    start = x
    stroke, width, gap = height // 6, int(height * 0.72), int(height * 0.27)
    for letter in "AURORA":
        left, right, top, foot = x, x + width, y, y + height
        if letter == "A":
            peak = (left + right) // 2
            pen.line([(left, foot), (peak, top), (right, foot)], _INK, stroke, joint="curve")
            bar = top + int(height * 0.68)
            pen.line([(left + width // 5, bar), (right - width // 5, bar)], _INK, stroke * 4 // 5)
        elif letter == "U":
            pen.arc((left, foot - width, right, foot), 0, 180, _INK, stroke)
            for side in (left + stroke // 2, right - stroke // 2):
                pen.line([(side, top), (side, foot - width // 2)], _INK, stroke)
        elif letter == "O":
            pen.ellipse((left - stroke // 3, top, right + stroke // 3, foot), None, _INK, stroke)
        else:
            pen.line([(left + stroke // 2, top), (left + stroke // 2, foot)], _INK, stroke)
            bowl = int(height * 0.56)
            pen.arc((right - bowl, top, right, top + bowl), -90, 90, _INK, stroke)
            for line in (top + stroke // 2, top + bowl - stroke // 2):
                pen.line([(left, line), (right - bowl // 2, line)], _INK, stroke)
            pen.line([(left + width // 2, top + bowl), (right, foot)], _INK, stroke)
        x = right + gap
    pen.rectangle((start, y + height + 1, x, y + height + stroke), fill=_PAPER)  # even feet


def draw_customer(path: Path) -> None:
    """Writes the portrait of a customer who does not exist, as a JPEG."""
    width, height = 720, 900
    ramp = np.linspace(0, 1, height)[:, None, None]
    sky = (1 - ramp) * np.array([246, 214, 178]) + ramp * np.array([158, 176, 190])
    picture = Image.fromarray(np.broadcast_to(sky, (height, width, 3)).astype(np.uint8))
    picture = picture.resize((width * 2, height * 2))
    _blurred_hills(picture)
    _person(picture)
    picture = picture.resize((width, height), Image.Resampling.LANCZOS, box=(160, 400, 1280, 1800))
    grain = np.random.default_rng(7).normal(0, 3.0, (height, width, 1))
    pixels = np.clip(np.asarray(picture, np.float32) + grain, 0, 255)
    Image.fromarray(pixels.astype(np.uint8)).save(path, "JPEG", quality=92)


def _blurred_hills(picture: Image.Image) -> None:
    hills = picture.copy()
    pen = ImageDraw.Draw(hills)
    x = np.arange(0, 1441, 16)
    for base, rise, colour in ((1080, 120, (150, 164, 168)), (1240, 90, (112, 136, 132)),
                               (1430, 60, (84, 110, 98))):  # fmt: skip
        y = base + rise * np.sin(x / 260 + base) + rise / 3 * np.sin(x / 97 + base)
        ridge = [(float(a), float(b)) for a, b in zip(x, y, strict=True)]
        pen.polygon([*ridge, (1440, 1800), (0, 1800)], fill=colour)
    picture.paste(hills.filter(ImageFilter.GaussianBlur(18)))


def _person(picture: Image.Image) -> None:
    """A runner in a jacket and a cap, lit from the left."""
    skin, shade, hair = (224, 172, 136), (196, 140, 108), (74, 48, 38)
    layer = Image.new("RGBA", picture.size)
    pen = ImageDraw.Draw(layer)
    pen.ellipse((452, 560, 1000, 1290), fill=hair)  # hair behind the head
    jacket = Image.new("L", picture.size)
    cut = ImageDraw.Draw(jacket)
    cut.rounded_rectangle((150, 1330, 1290, 2300), 260, fill=255)
    cut.polygon([(360, 1360), (560, 1250), (880, 1250), (1080, 1360), (720, 1500)], fill=255)
    jacket = jacket.filter(ImageFilter.GaussianBlur(16)).point(lambda level: 255 * (level > 127))
    layer.paste((30, 92, 104, 255), mask=jacket)
    half = Image.new("L", picture.size)
    half.paste(jacket.crop((720, 0, 1440, 1800)), (720, 0))
    layer.paste((24, 78, 90, 255), mask=half)
    pen.polygon([(590, 1110), (850, 1110), (880, 1290), (720, 1400), (560, 1290)], fill=shade)
    pen.polygon([(540, 1262), (720, 1420), (900, 1262), (960, 1300), (720, 1520), (480, 1300)],
                fill=(245, 150, 80))  # fmt: skip
    pen.line([(720, 1500), (720, 1800)], (16, 60, 70), 10)
    pen.ellipse((490, 600, 950, 1190), fill=skin)
    cheek = Image.new("RGBA", picture.size)
    ImageDraw.Draw(cheek).ellipse((700, 640, 1010, 1200), fill=(*shade, 150))
    cheek = cheek.filter(ImageFilter.GaussianBlur(50))
    cheek.putalpha(Image.composite(cheek.getchannel("A"), Image.new("L", picture.size),
                                   layer.getchannel("A")))  # fmt: skip
    layer.alpha_composite(cheek)
    _face(ImageDraw.Draw(layer), hair, shade)
    _cap(ImageDraw.Draw(layer))
    picture.paste(layer.filter(ImageFilter.GaussianBlur(1.4)), mask=layer.getchannel("A"))


def _face(
    pen: ImageDraw.ImageDraw, hair: tuple[int, int, int], shade: tuple[int, int, int]
) -> None:
    for x in (622, 818):
        pen.ellipse((x - 44, 868, x + 44, 920), fill=(250, 246, 240))
        pen.ellipse((x - 24, 868, x + 24, 918), fill=(74, 96, 92))
        pen.ellipse((x - 11, 882, x + 11, 904), fill=(22, 22, 26))
        pen.ellipse((x - 14, 878, x - 4, 888), fill=(255, 255, 255))
        pen.arc((x - 48, 858, x + 48, 940), 195, 345, hair, 10)
        pen.arc((x - 66, 812, x + 66, 900), 215, 325, hair, 14)
    pen.arc((676, 900, 764, 1010), 40, 140, shade, 10)
    pen.chord((640, 1010, 800, 1110), 8, 172, fill=(250, 244, 238))
    pen.arc((632, 1000, 808, 1114), 8, 172, (176, 84, 78), 12)


def _cap(pen: ImageDraw.ImageDraw) -> None:
    pen.pieslice((474, 520, 966, 1040), 180, 360, fill=(245, 150, 80))
    pen.chord((440, 712, 1000, 850), 180, 360, fill=(222, 124, 58))
    pen.ellipse((706, 514, 734, 536), fill=(222, 124, 58))
