"""The edit stage: still pictures with Pillow. Sources are read, never changed."""

from typing import Annotated, Literal

from langchain_core.tools import tool
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps
from pydantic import Field

from tools.shared.files import refusal
from tools.shared.lettering import Position, lay_out, set_caption
from tools.shared.pictures import open_picture, save_picture

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]
Side = Annotated[int, Field(ge=1, le=8192)]
Factor = Annotated[float, Field(ge=0.0, le=3.0, allow_inf_nan=False)]


@tool(parse_docstring=True)
def crop(
    source: str,
    left: Annotated[int, Field(ge=0)],
    top: Annotated[int, Field(ge=0)],
    width: Side,
    height: Side,
    file: str,
) -> str:
    """Cut a rectangle out of a picture.

    Args:
        source: The picture to cut from.
        left: Distance of the rectangle from the left edge, in pixels.
        top: Distance of the rectangle from the top edge, in pixels.
        width: Width of the rectangle in pixels; left + width must not exceed the picture's width.
        height: Height of the rectangle in pixels; top + height must not exceed the picture's.
        file: Where to write the result (.png, .jpg or .webp).
    """
    picture = open_picture(source)
    if left + width > picture.width or top + height > picture.height:
        raise refusal(
            "the rectangle leaves the picture",
            got=f"{width}x{height} at ({left}, {top})",
            expected=f"a rectangle inside {picture.width}x{picture.height}",
            do="Choose a smaller rectangle, or move it up or left.",
        )
    save_picture(picture.crop((left, top, left + width, top + height)), file)
    return f"Cropped to {width}x{height}."


@tool(parse_docstring=True)
def resize(
    source: str,
    width: Side,
    height: Side,
    file: str,
    fit: Literal["cover", "contain"] = "cover",
) -> str:
    """Bring a picture to an exact size without distorting it.

    Args:
        source: The picture to resize.
        width: Width of the result in pixels, 1 to 8192.
        height: Height of the result in pixels, 1 to 8192.
        file: Where to write the result (.png, .jpg or .webp).
        fit: "cover" fills the frame and trims what sticks out evenly on both sides; "contain"
            shows the whole picture, and fills the rest of the frame with a blurred copy of it
            (or with transparency, if the picture has any).
    """
    picture = open_picture(source)
    if fit == "cover":
        result = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    else:
        whole = ImageOps.contain(picture, (width, height), Image.Resampling.LANCZOS)
        result = _backdrop(picture, width, height)
        result.paste(whole, ((width - whole.width) // 2, (height - whole.height) // 2))
    save_picture(result, file)
    return f"Resized from {picture.width}x{picture.height} to {width}x{height} ({fit})."


@tool(parse_docstring=True)
def caption(
    source: str,
    text: Annotated[str, Field(min_length=1, max_length=300)],
    file: str,
    position: Position = "bottom",
) -> str:
    """Set a line of text over a picture so that it can be read on any background.

    Args:
        source: The picture to write on.
        text: The words, 1 to 300 characters. They wrap and scale by themselves; a line break
            starts a new line.
        file: Where to write the result (.png, .jpg or .webp).
        position: Where the text stands.
    """
    if not text.strip() or not text.replace("\n", " ").isprintable():
        raise refusal(
            "text cannot be set",
            got="only spaces, or invisible control characters",
            expected="printable text",
            do="Pass the words of the caption.",
        )
    picture = open_picture(source)
    setting = lay_out(text, picture.size)
    alpha = picture.getchannel("A") if picture.mode == "RGBA" else None
    result, contrast = set_caption(picture.convert("RGB"), setting, position)
    if alpha is not None:
        result.putalpha(alpha)
    save_picture(result, file)
    count = len(setting.lines)
    return (
        f"Set the caption at the {position} in {count} {'line' if count == 1 else 'lines'}, "
        f"contrast {contrast:.1f}:1."
    )


@tool(parse_docstring=True)
def place_logo(
    source: str,
    logo: str,
    file: str,
    corner: Corner = "bottom-right",
    scale: Annotated[float, Field(ge=0.02, le=0.5, allow_inf_nan=False)] = 0.16,
) -> str:
    """Place a logo in a corner of a picture.

    Args:
        source: The picture to put the logo on.
        logo: The logo, ideally a PNG with a transparent background; its transparency is kept.
        file: Where to write the result (.png, .jpg or .webp).
        corner: The corner it stands in, with a margin of 4 % of the shorter side.
        scale: Width of the logo as a share of the picture's width, 0.02 to 0.5. A tall logo is
            kept within half of the picture's height.
    """
    picture, mark = open_picture(source), open_picture(logo, "logo").convert("RGBA")
    visible = mark.getchannel("A").getbbox()
    if visible is None:
        raise refusal(
            "logo is invisible",
            got="a fully transparent picture",
            expected="a logo with visible pixels",
            do="Pass another logo.",
        )
    mark = mark.crop(visible)
    ratio = min(picture.width * scale / mark.width, picture.height * 0.5 / mark.height)
    size = (max(1, round(mark.width * ratio)), max(1, round(mark.height * ratio)))
    mark = mark.resize(size, Image.Resampling.LANCZOS)
    margin = round(min(picture.size) * 0.04)
    x = margin if corner.endswith("left") else picture.width - mark.width - margin
    y = margin if corner.startswith("top") else picture.height - mark.height - margin
    result = picture.convert("RGBA")
    result.alpha_composite(mark, (max(x, 0), max(y, 0)))
    save_picture(result.convert(picture.mode), file)
    return f"Placed the logo {corner}, {mark.width}x{mark.height} pixels."


@tool(parse_docstring=True)
def adjust(
    source: str,
    file: str,
    brightness: Factor = 1.0,
    contrast: Factor = 1.0,
    saturation: Factor = 1.0,
) -> str:
    """Change brightness, contrast and saturation of a picture.

    Args:
        source: The picture to change.
        file: Where to write the result (.png, .jpg or .webp).
        brightness: 1 leaves it as it is, 0 is black, 1.2 is 20 % brighter; 0 to 3.
        contrast: 1 leaves it as it is, 0 is flat grey, 1.2 is 20 % more; 0 to 3.
        saturation: 1 leaves it as it is, 0 is black and white, 1.2 is 20 % more; 0 to 3.
    """
    picture = open_picture(source)
    alpha = picture.getchannel("A") if picture.mode == "RGBA" else None
    result = ImageEnhance.Brightness(picture.convert("RGB")).enhance(brightness)
    result = ImageEnhance.Contrast(result).enhance(contrast)
    result = ImageEnhance.Color(result).enhance(saturation)
    if alpha is not None:
        result.putalpha(alpha)
    save_picture(result, file)
    return f"Adjusted brightness {brightness:g}, contrast {contrast:g}, saturation {saturation:g}."


@tool(parse_docstring=True)
def compose_photo(
    source: str,
    photo: str,
    file: str,
    position: Literal["left", "center", "right"] = "right",
    scale: Annotated[float, Field(ge=0.1, le=0.9, allow_inf_nan=False)] = 0.42,
) -> str:
    """Place a photo, such as a customer's portrait, as a framed card on a background picture.

    The card has rounded corners, a thin white border and a soft shadow.

    Args:
        source: The background picture.
        photo: The photo to place on it; it is shown whole.
        file: Where to write the result (.png, .jpg or .webp).
        position: Where the card stands, centred in height.
        scale: Largest share of the background's width and height that the card takes, 0.1 to 0.9.
    """
    picture = open_picture(source).convert("RGBA")
    inset = open_picture(photo, "photo").convert("RGBA")
    limit = max(8, round(picture.width * scale)), max(8, round(picture.height * scale))
    border = max(1, round(min(limit) * 0.016))
    inner = (max(1, limit[0] - 2 * border), max(1, limit[1] - 2 * border))
    inset = ImageOps.contain(inset, inner, Image.Resampling.LANCZOS)
    card = Image.new("RGBA", (inset.width + 2 * border, inset.height + 2 * border), "white")
    card.alpha_composite(inset, (border, border))
    radius = max(2, round(min(card.size) * 0.06))
    # The frame inside the border is rounded too, or the photo's corners would show over it.
    window = _rounded(inset.size, max(1, radius - border))
    card.paste((255, 255, 255, 255), (border, border), mask=ImageOps.invert(window))
    shape = _rounded(card.size, radius)
    card.putalpha(shape)

    margin = round(picture.width * 0.06)
    x = {
        "left": margin,
        "center": (picture.width - card.width) // 2,
        "right": picture.width - card.width - margin,
    }[position]
    x = min(max(x, 0), max(picture.width - card.width, 0))
    y = (picture.height - card.height) // 2
    blur = max(2.0, min(card.size) * 0.045)
    shade = Image.new("L", picture.size)
    shade.paste(shape, (x, y + round(blur * 0.7)))
    shade = shade.filter(ImageFilter.GaussianBlur(blur)).point(lambda level: level * 0.5)
    dark = Image.new("RGBA", picture.size, (0, 0, 0, 255))
    dark.putalpha(shade)
    picture.alpha_composite(dark)
    picture.alpha_composite(card, (x, y))
    opaque = picture.getchannel("A").getextrema()[0] == 255
    save_picture(picture.convert("RGB") if opaque else picture, file)
    return f"Placed the photo {position} as a {card.width}x{card.height} card."


def _backdrop(picture: Image.Image, width: int, height: int) -> Image.Image:
    """What fills the frame around a picture that is shown whole."""
    if picture.mode == "RGBA":
        return Image.new("RGBA", (width, height))
    small = ImageOps.fit(picture, (max(1, width // 8), max(1, height // 8)))
    soft = small.filter(ImageFilter.GaussianBlur(max(small.size) / 40))
    filled = soft.resize((width, height), Image.Resampling.BICUBIC)
    return ImageEnhance.Brightness(filled).enhance(0.72)


def _rounded(size: tuple[int, int], radius: int) -> Image.Image:
    """A rounded rectangle as an antialiased mask, drawn fourfold and reduced."""
    sheet = Image.new("L", (size[0] * 4, size[1] * 4))
    area = (0, 0, size[0] * 4 - 1, size[1] * 4 - 1)
    ImageDraw.Draw(sheet).rounded_rectangle(area, radius * 4, fill=255)
    return sheet.reduce(4)
