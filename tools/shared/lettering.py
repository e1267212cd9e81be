"""Setting a caption so that it can be read over any picture."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from tools.shared.files import refusal

Position: TypeAlias = Literal["top", "bottom", "center"]
Font: TypeAlias = ImageFont.FreeTypeFont
Colour: TypeAlias = tuple[float, float, float]

CONTRAST = 5.0  # a little over WCAG 2.2 level AA for text of any size (4.5:1)
_FALLBACKS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf")
# What a writing model types and the bundled font may lack, and the plain form that says the same.
_PLAIN = {
    0x2018: "'",
    0x2019: "'",
    0x201C: '"',
    0x201D: '"',
    0x201E: '"',
    0x2013: "-",
    0x2014: "-",
    0x2026: "...",
    0x00A0: " ",
}
# Ink and the scrim under it, as display values: white on dark, or dark on light.
_INKS = (((1.0, 1.0, 1.0), (0.0, 0.0, 0.0)), ((0.07, 0.08, 0.1), (1.0, 1.0, 1.0)))
_SCRIMS = np.linspace(0.0, 0.96, 25)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A caption laid out for one picture: lines, font, line height and margin in pixels."""

    lines: tuple[str, ...]
    font: Font
    leading: int
    margin: int


def lay_out(text: str, size: tuple[int, int]) -> Setting:
    """Wrap and scale `text` for a picture of `size`: as large as reads well, never over 40 % of it.

    Raises ToolException if it can't be read at any size, or no font here has its characters.
    """
    width, height = size
    margin = max(4, round(min(width, height) * 0.06))
    room, tallest = width - 2 * margin, height * 0.4
    smallest = max(9, round(min(width, height) * 0.022))
    pixels = max(smallest, round(min(width, height) * 0.085))
    text = _drawable(text)
    while pixels >= smallest:
        font = _font(text, pixels)
        lines = _wrap(text, font, room)
        leading = round(pixels * 1.28)
        if lines and leading * len(lines) <= tallest:
            return Setting(lines=lines, font=font, leading=leading, margin=margin)
        pixels = min(pixels - 1, round(pixels * 0.94))
    raise refusal(
        "text is too long for this picture",
        got=f"{len(text)} characters on {width}x{height} pixels",
        expected="text that fits 40 % of the height in readable letters",
        do="Shorten the text or use a larger picture.",
    )


def set_caption(
    picture: Image.Image, setting: Setting, position: Position
) -> tuple[Image.Image, float]:
    """The picture (RGB) with the caption set, and the contrast ratio that the text has (1 to 21).

    Ink is white or near-black, whichever needs the fainter scrim: a soft band behind the text, just
    strong enough that the least favourable tenth of what lies there still gives CONTRAST.
    """
    width, height = picture.size
    block = setting.leading * len(setting.lines)
    top = {
        "top": setting.margin,
        "center": (height - block) // 2,
        "bottom": height - setting.margin - block,
    }[position]
    letters = Image.new("L", picture.size)
    pen = ImageDraw.Draw(letters)
    for at, line in enumerate(setting.lines):
        middle = top + setting.leading * at + setting.leading / 2
        pen.text((width / 2, middle), line, font=setting.font, fill=255, anchor="mm")
    pixels = np.asarray(picture, np.float32) / 255
    behind = pixels[max(top, 0) : min(top + block, height)]
    needed = [(_scrim(behind, *pair), pair) for pair in _INKS]
    # White unless dark ink needs clearly less: white reads as a caption, dark as part of the page.
    strength, (ink, scrim) = needed[1] if needed[1][0] + 0.12 < needed[0][0] else needed[0]
    veil = _band(height, top, block, setting.leading, position) * np.float32(strength)
    shaded = pixels + (np.asarray(scrim, np.float32) - pixels) * veil
    halo = letters.filter(ImageFilter.GaussianBlur(max(1.0, setting.leading * 0.12)))
    soft = np.asarray(halo, np.float32)[:, :, None] / 255 * np.float32(0.45)
    shaded += (np.asarray(scrim, np.float32) - shaded) * soft
    ratio = _contrast(shaded[max(top, 0) : min(top + block, height)], ink)
    result = Image.fromarray((np.clip(shaded, 0, 1) * 255 + 0.5).astype(np.uint8))
    red, green, blue = (round(255 * level) for level in ink)
    result.paste((red, green, blue), mask=letters)
    return result, ratio


def _scrim(behind: np.ndarray, ink: Colour, scrim: Colour) -> float:
    """The faintest scrim, 0 to 1, that gives CONTRAST over the pixels behind the text."""
    sample = behind[::2, ::2] if behind.shape[0] > 8 else behind
    for strength in _SCRIMS:
        veiled = sample + (np.asarray(scrim, np.float32) - sample) * np.float32(strength)
        if _contrast(veiled, ink) >= CONTRAST:
            return float(strength)
    return float(_SCRIMS[-1])


def _band(height: int, top: int, block: int, leading: int, position: Position) -> np.ndarray:
    """How much of the scrim each row gets, 0 to 1, shape (height, 1, 1): full behind the text."""
    rows = np.arange(height, dtype=np.float32)
    fade = leading * 2.0
    above = np.clip((rows - (top - fade)) / fade, 0, 1)
    under = np.clip(((top + block + fade) - rows) / fade, 0, 1)
    if position == "top":
        above = np.ones_like(rows)
    if position == "bottom":
        under = np.ones_like(rows)
    level = np.minimum(above, under)
    return np.asarray(level * level * (3 - 2 * level))[:, None, None]


def _contrast(pixels: np.ndarray, ink: Colour) -> float:
    """The WCAG contrast ratio of ink to the tenth of the pixels nearest to it in luminance."""
    own = float(_luminance(np.asarray(ink, np.float32)))
    worst = float(np.percentile(_luminance(pixels), 90 if own > 0.5 else 10))
    return (max(own, worst) + 0.05) / (min(own, worst) + 0.05)


def _luminance(display: np.ndarray) -> np.ndarray:
    """Relative luminance (0 to 1) of sRGB display values, as WCAG 2.2 defines it."""
    linear = np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)
    return np.asarray(linear @ np.array([0.2126, 0.7152, 0.0722], np.float32))


def _wrap(text: str, font: Font, room: int) -> tuple[str, ...]:
    """Lines of at most `room` pixels, broken between words, evened out; () if a word is wider."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        words = paragraph.split()
        if any(font.getlength(word) > room for word in words):
            return ()
        greedy = _fill(words, font, room)
        if len(greedy) > 1:  # the narrowest measure that needs no further line: no orphaned words
            low, high = room / 2, float(room)
            while high - low > room / 50:
                half = (low + high) / 2
                if len(_fill(words, font, half)) <= len(greedy):
                    high = half
                else:
                    low = half
            greedy = _fill(words, font, high)
        lines += greedy
    return tuple(lines)


def _fill(words: list[str], font: Font, room: float) -> list[str]:
    lines: list[str] = []
    for word in words:
        if lines and font.getlength(f"{lines[-1]} {word}") <= room:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    return lines


def _drawable(text: str) -> str:
    """The text in plain punctuation where the bundled font lacks the typographic one."""
    kept = " ".join(text.split(" ")).strip()
    missing = _missing(kept, _bundled(24))
    return "".join(c.translate(_PLAIN) if c in missing else c for c in kept)


def _font(text: str, pixels: int) -> Font:
    """The bundled font, or else the first common system font that has every character of `text`."""
    bundled = _bundled(pixels)
    missing = _missing(text, bundled)
    if not missing:
        return bundled
    for name in _FALLBACKS:
        try:
            font = ImageFont.truetype(name, pixels)
        except OSError:  # not installed here
            continue
        if not _missing(text, font):
            return font
    raise refusal(
        "text has characters that no font here can draw",
        got=" ".join(f"U+{ord(c):04X}" for c in sorted(missing)[:8]),
        expected="letters of an installed font (the bundled one has basic Latin only)",
        do="Write the text without them, or install a font such as DejaVu Sans.",
    )


def _bundled(pixels: int) -> Font:
    font = ImageFont.load_default(pixels)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise refusal(
            "captions cannot be drawn",
            got="a Pillow without FreeType",
            expected="a Pillow wheel from PyPI",
            do="Tell the operator to reinstall Pillow.",
        )
    return font


def _missing(text: str, font: Font) -> set[str]:
    """The characters of `text` that come out as the font's empty box."""
    box = font.getmask("\U0010ffff")
    empty = (box.size, bytes(box))
    return {
        c
        for c in set(text)
        if not c.isspace() and ((mask := font.getmask(c)).size, bytes(mask)) == empty
    }
