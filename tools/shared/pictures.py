"""Opening pictures without trusting them, and saving pictures without leaking anything."""

import io
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from tools.shared.files import existing, refusal, written

MAX_PIXELS = 50_000_000  # a 50-megapixel photo is real; beyond it, memory is the target
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")  # no EPS, PDF or others that run programs
_SUFFIXES = {"": "PNG", ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def open_picture(source: str, name: str = "source") -> Image.Image:
    """The still picture in a file, upright, in sRGB, as RGB or RGBA, fully decoded.

    Raises ToolException for what is missing, no picture, truncated, animated or larger than
    MAX_PIXELS; `name` is the argument the error speaks of.
    """
    return decode(existing(source, name), name)


def decode(source: Path | BinaryIO, name: str) -> Image.Image:
    """Like open_picture, for a path known to be a regular file or for an open file."""
    expected = "one whole still picture (PNG, JPEG, WebP, TIFF, BMP or GIF)"
    try:
        with Image.open(source, formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise refusal(
                    f"{name} is too large",
                    got=f"{width}x{height} pixels",
                    expected=f"at most {MAX_PIXELS:,} pixels",
                    do="Use a smaller picture.",
                )
            frames = int(getattr(picture, "n_frames", 1))
            if frames > 1:
                raise refusal(
                    f"{name} is animated",
                    got=f"{frames} frames",
                    expected=expected,
                    do="Use a still, or treat it as a video.",
                )
            picture.load()
            return _plain(picture)
    except UnidentifiedImageError:
        raise refusal(
            f"{name} is not a picture",
            got="a file in no known picture format",
            expected=expected,
            do="Pass a picture; for a video use the video tools.",
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise refusal(
            f"{name} is too large",
            got="a picture that unpacks to far more than fits",
            expected=f"at most {MAX_PIXELS:,} pixels",
            do="Use a smaller picture.",
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError) as broken:  # Pillow's ways to say "damaged"
        raise refusal(
            f"{name} cannot be decoded",
            got=f"a damaged or truncated picture ({type(broken).__name__})",
            expected=expected,
            do="Export or download it again.",
        ) from None


def save_picture(picture: Image.Image, file: str) -> None:
    """Write a picture whole or not at all, in the format of the suffix (none means PNG).

    Carries pixels only: no EXIF, XMP, comments or text chunks of the source survive.
    """
    suffix = Path(file).suffix.lower()
    if suffix not in _SUFFIXES:
        raise refusal(
            "file has the wrong suffix",
            got=f"'{suffix[:16]}'",
            expected=".png, .jpg or .webp",
            do="Choose one of these suffixes.",
        )
    clean = picture.copy()
    clean.info = {}
    with written(file) as scratch:
        if _SUFFIXES[suffix] == "JPEG":
            flat(clean).save(scratch, "JPEG", quality=92, optimize=True, progressive=True)
        elif _SUFFIXES[suffix] == "WEBP":
            clean.save(scratch, "WEBP", quality=92)
        else:
            clean.save(scratch, "PNG", compress_level=6)


def flat(picture: Image.Image) -> Image.Image:
    """The picture as RGB, transparency laid over white."""
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    paper = Image.new("RGB", picture.size, "white")
    paper.paste(picture, mask=picture.getchannel("A"))
    return paper


def _plain(picture: Image.Image) -> Image.Image:
    """Upright sRGB in mode RGB, or RGBA where there is transparency."""
    profile = picture.info.get("icc_profile")
    upright = ImageOps.exif_transpose(picture)
    seen = upright.has_transparency_data
    if upright.mode.startswith("I") or upright.mode == "F":
        # Pillow's own conversion clips 16-bit samples to white instead of scaling them.
        upright = upright.convert("F").point(lambda level: level / 257).convert("L")
    if profile and upright.mode in ("RGB", "CMYK", "L"):
        # A broken or foreign profile is left aside: the numbers are the best guess there is.
        with suppress(ImageCms.PyCMSError, OSError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            target = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(upright, source, target, outputMode="RGB")
            upright = converted or upright
    return upright.convert("RGBA" if seen else "RGB")
