import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.tools import BaseTool, ToolException
from PIL import Image, ImageCms, ImageDraw, PngImagePlugin
from pydantic import ValidationError

from tests.unit.tools.samples import pattern
from tools.edit import adjust, caption, compose_photo, crop, place_logo, resize

MakePicture = Callable[..., str]


def load(file: str) -> Image.Image:
    with Image.open(file) as picture:
        picture.load()
        return picture.copy()


def values(file: str) -> np.ndarray:
    return np.asarray(load(file).convert("RGB"), int)


def test_crop_keeps_exactly_the_pixels_of_the_rectangle(
    picture: MakePicture, tmp_path: Path
) -> None:
    source, file = picture(), str(tmp_path / "out.png")
    crop.invoke({"source": source, "left": 30, "top": 40, "width": 100, "height": 50, "file": file})
    assert (values(file) == values(source)[40:90, 30:130]).all()


def test_crop_outside_the_picture_says_what_fits(picture: MakePicture, tmp_path: Path) -> None:
    wrong = {"left": 400, "top": 0, "width": 100, "height": 50}
    with pytest.raises(ToolException, match="inside 480x360"):
        crop.invoke({"source": picture(), "file": str(tmp_path / "out.png"), **wrong})
    assert not (tmp_path / "out.png").exists()


def test_resize_cover_fills_the_frame_and_contain_shows_everything(
    picture: MakePicture, tmp_path: Path
) -> None:
    source, size = picture(), {"width": 600, "height": 200}
    cover, contain = str(tmp_path / "cover.png"), str(tmp_path / "contain.png")
    resize.invoke({"source": source, "file": cover, **size})
    resize.invoke({"source": source, "file": contain, "fit": "contain", **size})
    assert load(cover).size == load(contain).size == (600, 200)
    whole = np.asarray(load(source).resize((267, 200), Image.Resampling.LANCZOS), int)
    assert np.abs(values(contain)[:, 166:433] - whole).mean() < 2


def test_resize_contain_pads_transparent_pictures_with_transparency(tmp_path: Path) -> None:
    source, file = str(tmp_path / "in.png"), str(tmp_path / "out.png")
    Image.new("RGBA", (100, 100), (200, 30, 30, 128)).save(source)
    resize.invoke({"source": source, "width": 300, "height": 100, "file": file, "fit": "contain"})
    assert load(file).getpixel((5, 50)) == (0, 0, 0, 0)
    assert load(file).getpixel((150, 50)) == (200, 30, 30, 128)


def test_a_photo_is_turned_upright(tmp_path: Path) -> None:
    source, file = tmp_path / "in.jpg", str(tmp_path / "out.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    pattern(400, 300).save(source, exif=exif)
    crop.invoke(
        {"source": str(source), "left": 0, "top": 0, "width": 300, "height": 400, "file": file}
    )
    assert load(file).size == (300, 400)


def test_nothing_but_pixels_survives_an_edit(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    notes = PngImagePlugin.PngInfo()
    notes.add_text("prompt", "a secret plan")
    exif = Image.Exif()
    exif[0x010F] = "ACME"
    exif.get_ifd(0x8825)[1] = "N"
    pattern(320, 320).save(source, pnginfo=notes, exif=exif)
    for name in ("out.png", "out.jpg", "out.webp"):
        file = tmp_path / name
        adjust.invoke({"source": str(source), "file": str(file)})
        assert not load(str(file)).getexif()
        assert b"secret" not in file.read_bytes()
        assert b"ACME" not in file.read_bytes()


def test_a_wide_gamut_picture_is_converted_to_srgb(tmp_path: Path) -> None:
    source, file = tmp_path / "in.png", str(tmp_path / "out.png")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    pattern(320, 320).save(source, icc_profile=profile)  # foreign: left aside
    adjust.invoke({"source": str(source), "file": file})
    assert (values(file) == values(str(source))).all()


@pytest.mark.parametrize("background", ["white", "black", "noise", "stripes"])
@pytest.mark.parametrize("position", ["top", "center", "bottom"])
def test_a_caption_can_be_read_on_any_background(
    background: str, position: str, tmp_path: Path
) -> None:
    source, file = str(tmp_path / "in.png"), str(tmp_path / "out.png")
    if background == "noise":
        noise = np.random.default_rng(1).integers(0, 256, (360, 640, 3), np.uint8)
        Image.fromarray(noise).save(source)
    elif background == "stripes":
        stripes = Image.new("RGB", (640, 360), "white")
        for x in range(0, 640, 40):
            ImageDraw.Draw(stripes).rectangle((x, 0, x + 19, 360), fill="black")
        stripes.save(source)
    else:
        Image.new("RGB", (640, 360), background).save(source)
    said = caption.invoke(
        {"source": source, "text": "Breathe out", "position": position, "file": file}
    )
    assert float(said.rsplit(" ", 1)[1].split(":")[0]) >= 4.5
    changed = np.abs(values(file) - values(source)).max(axis=2) > 60
    rows = np.flatnonzero(changed.any(axis=1))
    where = {"top": (0, 120), "center": (120, 240), "bottom": (240, 360)}[position]
    assert where[0] - 60 <= rows[0]
    assert rows[-1] <= where[1] + 60


def test_a_long_caption_wraps_and_stays_inside(tmp_path: Path) -> None:
    source, file = str(tmp_path / "in.png"), str(tmp_path / "out.png")
    Image.new("RGB", (640, 640), (20, 20, 20)).save(source)
    text = "The new autumn collection is here, made to move with you wherever you go" * 2
    said = caption.invoke({"source": source, "text": text, "file": file})
    assert "lines" in said
    ink = values(file).max(axis=2) > 200
    columns = np.flatnonzero(ink.any(axis=0))
    assert columns[0] > 20
    assert columns[-1] < 620


def test_typographic_punctuation_is_set_plain_rather_than_as_boxes(
    picture: MakePicture, tmp_path: Path
) -> None:
    source, one, two = picture(), str(tmp_path / "1.png"), str(tmp_path / "2.png")
    caption.invoke({"source": source, "text": "It's here \u2014 now", "file": one})
    caption.invoke({"source": source, "text": "It's here - now", "file": two})
    assert (values(one) == values(two)).all()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cuneiform \U00012000", "U+12000"),
        ("   ", "printable"),
        ("a\x00b", "printable"),
        ("x" * 300, "Shorten"),
    ],
)
def test_text_that_cannot_be_set_is_refused(
    text: str, says: str, picture: MakePicture, tmp_path: Path
) -> None:
    with pytest.raises(ToolException) as refused:
        caption.invoke({"source": picture(), "text": text, "file": str(tmp_path / "out.png")})
    assert says in str(refused.value)
    assert not (tmp_path / "out.png").exists()


def test_letters_that_no_installed_font_has_are_refused_by_code_point(
    picture: MakePicture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.shared.lettering._FALLBACKS", ())  # a machine without fonts
    with pytest.raises(ToolException, match=r"got U\+00E9, expected letters of an installed font"):
        caption.invoke({"source": picture(), "text": "café", "file": str(tmp_path / "out.png")})


@pytest.mark.parametrize("corner", ["top-left", "top-right", "bottom-left", "bottom-right"])
def test_a_logo_keeps_its_transparency_and_its_margin(corner: str, tmp_path: Path) -> None:
    source, logo, file = (str(tmp_path / name) for name in ("in.png", "logo.png", "out.png"))
    Image.new("RGB", (500, 400), (0, 0, 200)).save(source)
    mark = Image.new("RGBA", (200, 100))
    ImageDraw.Draw(mark).rectangle((0, 0, 99, 99), fill=(255, 0, 0, 128))
    ImageDraw.Draw(mark).rectangle((180, 0, 199, 99), fill=(255, 255, 0, 255))
    mark.save(logo)
    place_logo.invoke(
        {"source": source, "logo": logo, "corner": corner, "scale": 0.2, "file": file}
    )
    result = load(file)
    left = 16 if corner.endswith("left") else 500 - 100 - 16
    top = 16 if corner.startswith("top") else 400 - 50 - 16
    assert result.getpixel((left - 4, top + 25)) == (0, 0, 200)
    half = np.array(result.getpixel((left + 20, top + 25)))
    assert np.abs(half - (128, 0, 100)).max() <= 2
    assert result.getpixel((left + 70, top + 25)) == (0, 0, 200)
    assert result.getpixel((left + 95, top + 25)) == (255, 255, 0)


def test_an_invisible_logo_is_refused(picture: MakePicture, tmp_path: Path) -> None:
    logo = str(tmp_path / "logo.png")
    Image.new("RGBA", (20, 20)).save(logo)
    with pytest.raises(ToolException, match="invisible"):
        place_logo.invoke({"source": picture(), "logo": logo, "file": str(tmp_path / "out.png")})


def test_adjust_changes_what_it_says_and_nothing_at_one(
    picture: MakePicture, tmp_path: Path
) -> None:
    source, file = picture(), str(tmp_path / "out.png")
    adjust.invoke({"source": source, "file": file})
    assert (values(file) == values(source)).all()
    adjust.invoke({"source": source, "file": file, "brightness": 1.2})
    assert values(file).mean() > values(source).mean() * 1.1
    adjust.invoke({"source": source, "file": file, "saturation": 0.0})
    assert np.ptp(values(file), axis=2).max() == 0


def test_a_photo_becomes_a_card_with_round_corners_border_and_shadow(tmp_path: Path) -> None:
    source, photo, file = (str(tmp_path / name) for name in ("in.png", "photo.png", "out.png"))
    Image.new("RGB", (800, 600), (90, 160, 90)).save(source)
    Image.new("RGB", (300, 300), (200, 40, 40)).save(photo)
    said = compose_photo.invoke(
        {"source": source, "photo": photo, "position": "center", "scale": 0.5, "file": file}
    )
    result = load(file)
    assert said == "Placed the photo center as a 300x300 card."
    left, top = (800 - 300) // 2, (600 - 300) // 2
    assert result.getpixel((400, 300)) == (200, 40, 40)
    border, outside, under = (
        np.asarray(result.getpixel(at))
        for at in ((left + 2, 300), (left + 1, top + 1), (400, top + 300 + 8))
    )
    assert border.min() > 245
    assert outside.max() < 200  # of the round corner
    assert under.sum() < sum((90, 160, 90)) * 0.85  # the shadow
    assert result.getpixel((10, 10)) == (90, 160, 90)


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims to be huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def animated() -> bytes:
    file = io.BytesIO()
    frames = [pattern(64, 64, 9 * at) for at in range(3)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def whole(kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    pattern(320, 240).save(file, kind)
    return file.getvalue()


BAD = {
    "not a picture": (b"hello, this is text", "not a picture"),
    "empty": (b"", "cannot be read"),
    "truncated png": (whole()[:-2000], "damaged or truncated"),
    "truncated jpeg": (whole("JPEG")[:-2000], "damaged or truncated"),
    "flipped bits": (whole()[:300] + b"\xff" * 200 + whole()[500:], "damaged or truncated"),
    "bomb": (bomb(60_000, 60_000), "too large"),
    "smaller bomb": (bomb(8000, 8000), "too large"),
    "animated": (animated(), "animated"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize(
    ("tool", "rest"),
    [
        (crop, {"left": 0, "top": 0, "width": 9, "height": 9}),
        (resize, {"width": 9, "height": 9}),
        (caption, {"text": "hi"}),
        (adjust, {}),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_bad_sources_are_refused_and_leave_no_output(
    tool: BaseTool, rest: dict[str, Any], name: str, tmp_path: Path
) -> None:
    data, says = BAD[name]
    source = tmp_path / "in.png"
    source.write_bytes(data)
    with pytest.raises(ToolException, match=says):
        tool.invoke({"source": str(source), "file": str(tmp_path / "out.png"), **rest})
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("source", ["missing.png", ".", "a\x00b", "x" * 5000])
def test_sources_that_are_no_files_are_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(ToolException, match="cannot be read"):
        adjust.invoke({"source": str(tmp_path / source), "file": str(tmp_path / "out.png")})


def test_a_second_picture_is_named_in_the_error(picture: MakePicture, tmp_path: Path) -> None:
    with pytest.raises(ToolException, match="photo cannot be read"):
        compose_photo.invoke(
            {
                "source": picture(),
                "photo": str(tmp_path / "no.png"),
                "file": str(tmp_path / "o.png"),
            }
        )


def test_a_failed_edit_leaves_the_earlier_output_as_it_was(
    picture: MakePicture, tmp_path: Path
) -> None:
    file = tmp_path / "out.png"
    file.write_bytes(b"earlier")
    with pytest.raises(ToolException):
        adjust.invoke({"source": str(tmp_path / "no.png"), "file": str(file)})
    assert file.read_bytes() == b"earlier"


@pytest.mark.parametrize(
    ("tool", "wrong"),
    [
        (crop, {"left": -1, "top": 0, "width": 9, "height": 9}),
        (resize, {"width": 0, "height": 9}),
        (resize, {"width": 9, "height": 9, "fit": "stretch"}),
        (adjust, {"brightness": float("nan")}),
        (adjust, {"contrast": 9.0}),
        (caption, {"text": "hi", "position": "left"}),
    ],
)
def test_arguments_out_of_range_are_refused(
    tool: BaseTool, wrong: dict[str, Any], picture: MakePicture, tmp_path: Path
) -> None:
    with pytest.raises(ValidationError):
        tool.invoke({"source": picture(), "file": str(tmp_path / "out.png"), **wrong})
