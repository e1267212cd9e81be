"""What can be measured about a still picture: its pixels, and what hides beside them."""

from math import gcd
from pathlib import Path

import numpy as np
from langchain_core.tools import ToolException
from numpy.typing import NDArray
from PIL import ExifTags, Image

from tools.shared.findings import Finding, error, info, warning
from tools.shared.pictures import FORMATS, decode, flat

_SMALL = 320  # pixels on the shorter side; less looks soft on every channel
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
# EXIF tags that name a person or one certain camera.
_PERSONAL = (
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
    ExifTags.Base.HostComputer,
    ExifTags.Base.XPAuthor,
)
_PERSONAL_SUB = (
    ExifTags.Base.CameraOwnerName,
    ExifTags.Base.BodySerialNumber,
    ExifTags.Base.LensSerialNumber,
    ExifTags.Base.UserComment,
    ExifTags.Base.MakerNote,
)


def picture_findings(path: Path) -> list[Finding]:
    """Everything found about the picture in a file that begins like a picture."""
    try:
        picture = decode(path, "the picture")
    except ToolException as refused:
        return [error("undecodable", str(refused))]
    findings = [info("resolution", f"{picture.width}x{picture.height}, {shape(*picture.size)}.")]
    if min(picture.size) < _SMALL:
        findings.append(
            warning("small", f"The shorter side has {min(picture.size)} pixels, under {_SMALL}.")
        )
    if picture.mode == "RGBA":
        findings += _transparency(picture)
    if not _cut_out(picture):
        # What lies behind a cut-out decides how it looks, so its tones are judged where it is used.
        findings += tone_findings(luminance(flat(picture)))
    return findings + _hidden(path)


def shape(width: int, height: int) -> str:
    """The aspect ratio in words, such as "aspect 16:9"."""
    common = gcd(width, height)
    across, down = width // common, height // common
    if max(across, down) > 50:
        return f"aspect {width / height:.2f}:1"
    return f"aspect {across}:{down}"


def luminance(picture: Image.Image) -> NDArray[np.uint8]:
    """8-bit luma of a picture, at most 1024 pixels a side; details finer than that don't matter."""
    grey = picture.convert("L")
    grey.thumbnail((1024, 1024), Image.Resampling.BOX)
    return np.asarray(grey)


def tone_findings(luma: NDArray[np.uint8]) -> list[Finding]:
    """Blank, black, clipped or flat, judged by 8-bit luma of shape (rows, columns)."""
    low, middle, high = (float(np.percentile(luma, p)) for p in (1, 50, 99))
    if luma.size == 0 or high - low < 4:
        return [error("blank", f"One flat tone (luma {middle:.0f} of 255): there is no picture.")]
    if high < 24:
        return [error("black", f"Nearly black: 99 % of it is below luma {high:.0f} of 255.")]
    findings: list[Finding] = []
    inner = _inside_bars(luma)
    if inner.size < 0.98 * luma.size:
        findings.append(info("bars", f"Black bars take {1 - inner.size / luma.size:.0%} of it."))
        return findings + tone_findings(inner)
    white, dark = float(np.mean(luma >= 253)), float(np.mean(luma <= 2))
    rim = np.concatenate([luma[0], luma[-1], luma[:, 0], luma[:, -1]])
    if np.mean(rim >= 250) > 0.8:
        findings.append(info("white-background", f"White background, {white:.0%} of the picture."))
    elif white > 0.08:
        findings.append(warning("overexposed", f"{white:.0%} of the picture is clipped to white."))
    if dark > 0.4:
        findings.append(warning("underexposed", f"{dark:.0%} of the picture is clipped to black."))
    if high - low < 40:
        findings.append(
            warning(
                "low-contrast", f"Tones span only {high - low:.0f} of 255 steps: it looks flat."
            )
        )
    return findings


def _cut_out(picture: Image.Image) -> bool:
    """Whether some pixels are fully transparent."""
    return picture.mode == "RGBA" and bool((np.asarray(picture.getchannel("A")) == 0).any())


def _inside_bars(luma: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture without black rows and columns at its edges; there must be a picture inside."""
    rows = np.flatnonzero(luma.max(axis=1) >= 24)
    columns = np.flatnonzero(luma.max(axis=0) >= 24)
    return luma[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _transparency(picture: Image.Image) -> list[Finding]:
    alpha = np.asarray(picture.getchannel("A"))
    clear = alpha == 0
    if clear.all():
        return [error("invisible", "Every pixel is fully transparent.")]
    if not clear.any():
        return [info("transparency", "Has an alpha channel.")]
    under = np.asarray(picture.convert("RGB"))[clear]
    if float(under.std(axis=0).max()) > 12:
        # An eraser often changes alpha only: what was "removed" is one click away.
        return [
            warning("hidden-pixels", f"A picture hides under the transparent {clear.mean():.0%}.")
        ]
    return [info("transparency", f"{clear.mean():.0%} is fully transparent.")]


def _hidden(path: Path) -> list[Finding]:
    """Metadata and other bytes that leave with the file but don't show."""
    findings: list[Finding] = []
    with Image.open(path, formats=FORMATS) as picture:
        picture.load()
        exif = picture.getexif()
        details = exif.get_ifd(ExifTags.IFD.Exif)
        if exif.get_ifd(ExifTags.IFD.GPSInfo):
            findings.append(warning("gps", "EXIF says where it was taken (GPS position)."))
        if any(tag in exif for tag in _PERSONAL) or any(tag in details for tag in _PERSONAL_SUB):
            findings.append(
                warning("personal-metadata", "EXIF names a person, a device or free notes.")
            )
        if exif:
            findings.append(info("exif", f"Carries EXIF, {len(exif) + len(details)} entries."))
        packet = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp") or b""
        xmp = packet.encode() if isinstance(packet, str) else bytes(packet)
        if xmp:
            findings.append(info("xmp", f"Carries XMP, {len(xmp):,} bytes."))
        if b"GPSL" in xmp:
            findings.append(warning("gps", "XMP says where it was taken (GPS position)."))
        texts = {k: v for k, v in getattr(picture, "text", {}).items() if "xmp" not in k.lower()}
        comment = picture.info.get("comment")
        if texts or comment:
            size = sum(len(v) for v in texts.values()) + len(comment or b"")
            findings.append(
                warning(
                    "embedded-text",
                    f"Carries {len(texts) + bool(comment)} embedded texts, {size:,} characters.",
                )
            )
        is_png = picture.format == "PNG"
    if is_png:
        data = path.read_bytes()
        behind = len(data) - (data.find(_PNG_END) + len(_PNG_END))
        if behind > 0:
            findings.append(
                warning("trailing-data", f"{behind:,} bytes follow the end of the picture.")
            )
    return findings
