"""The render stage: stills to video, video to video, video to still, with PyAV."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Annotated, TypeAlias

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from langchain_core.tools import tool
from PIL import Image, ImageOps
from pydantic import Field

from tools.shared.files import refusal, written
from tools.shared.pictures import flat, open_picture, save_picture
from tools.shared.progress import report
from tools.shared.transcoding import convert
from tools.shared.videos import (
    MAX_SECONDS,
    add_h264,
    frame_rate,
    open_mp4,
    open_video,
    start_of,
    upright,
    video_errors,
)

Even = Annotated[int, Field(ge=64, le=3840, multiple_of=2)]
Plate: TypeAlias = tuple[Image.Image, ...]  # Y, Cb and Cr, each of mode "L"

_ZOOM = 0.10  # how much nearer the camera comes during one still


@tool(parse_docstring=True)
def render_video(
    stills: Annotated[list[str], Field(min_length=1, max_length=24)],
    file: str,
    seconds_each: Annotated[float, Field(ge=0.5, le=20, allow_inf_nan=False)] = 3.0,
    width: Even = 1280,
    height: Even = 720,
    fps: Annotated[int, Field(ge=10, le=60)] = 24,
) -> str:
    """Make a video from still pictures: slow camera moves and soft crossfades, no sound.

    Args:
        stills: The pictures in order, 1 to 24; each fills the frame and is trimmed where it must.
        file: Where to write the video (.mp4).
        seconds_each: How long each picture is on screen, in seconds, 0.5 to 20; the video lasts
            the number of pictures times this.
        width: Width in pixels, even, 64 to 3840.
        height: Height in pixels, even, 64 to 3840.
        fps: Frames per second, 10 to 60.
    """
    _mp4_only(file)
    each = max(2, round(seconds_each * fps))
    if len(stills) * each > MAX_SECONDS * fps or width * height > 3840 * 2160:
        raise refusal(
            "the video is too large",
            got=f"{len(stills) * seconds_each:g} s of {width}x{height}",
            expected=f"at most {MAX_SECONDS:g} s of 3840x2160",
            do="Use fewer stills, less time, or smaller frames.",
        )
    # All stills are looked at before a frame is encoded: bad ones should fail fast.
    plates = [_plate(still, f"stills[{at}]", width, height) for at, still in enumerate(stills)]
    total = len(plates) * each
    rate = Fraction(fps)
    with written(file) as scratch, open_mp4(scratch) as out:
        stream = add_h264(out, width, height, rate)
        for number, frame in enumerate(_frames(plates, each, width, height, fps)):
            frame.pts, frame.time_base = number, 1 / rate
            out.mux(stream.encode(frame))
            if (number + 1) % fps == 0 or number + 1 == total:
                report("render_video", number + 1, total)
        out.mux(stream.encode())
    return f"Rendered {len(plates)} stills to {total / fps:g} s of {width}x{height} at {fps} fps."


@tool(parse_docstring=True)
def transcode(source: str, width: Even, height: Even, file: str) -> str:
    """Bring a video to another frame size as H.264 mp4, sound included.

    The whole picture is shown; black bars fill the rest of the frame. Location and other notes
    that the source carries are not copied.

    Args:
        source: The video to convert, up to 600 seconds.
        width: Width of the result in pixels, even, 64 to 3840.
        height: Height of the result in pixels, even, 64 to 3840.
        file: Where to write the result (.mp4).
    """
    _mp4_only(file)
    with open_video(source) as (container, stream), written(file) as scratch:
        rate = frame_rate(stream)
        with open_mp4(scratch) as out:
            frames, sound = convert(container, stream, out, width, height, rate)
    return (
        f"Converted to {width}x{height}, {float(frames / rate):.1f} s at {float(rate):g} fps, "
        f"{'with' if sound else 'without'} sound."
    )


@tool(parse_docstring=True)
def thumbnail(
    source: str,
    second: Annotated[float, Field(ge=0, allow_inf_nan=False)],
    file: str,
) -> str:
    """Save one frame of a video as a picture.

    Args:
        source: The video to take the frame from.
        second: Where in the video, in seconds from its start; less than its duration.
        file: Where to write the picture (.png, .jpg or .webp).
    """
    picture: Image.Image | None = None
    with open_video(source) as (container, stream), video_errors("source"):
        start, step = start_of(stream), 1 / float(frame_rate(stream))
        if stream.time_base is not None:
            ticks = round((second + start) / stream.time_base)
            container.seek(ticks, stream=stream, backward=True)
        shown, last = None, 0.0
        # The frame on screen at `second` is the last one that began by then.
        for frame in container.decode(stream):
            began = (frame.time or 0.0) - start
            if shown is not None and began > second + 1e-6:
                break
            shown, last = frame, began
        if shown is not None and second < last + step:
            picture = upright(shown)
    if picture is None:
        raise refusal(
            "second lies behind the end",
            got=f"{second:g} s",
            expected=f"less than {last + step:.2f} s",
            do="Choose an earlier second.",
        )
    save_picture(picture, file)
    return f"Saved the frame at {second:g} s, {picture.width}x{picture.height}."


def _plate(source: str, name: str, width: int, height: int) -> Plate:
    """A still trimmed to the frame's shape, large enough for the camera to move in, in YCbCr 4:2:0.

    The camera moves over planes of the video's own colour space: a third of the work of RGB.
    """
    size = (2 * round(width * (1 + _ZOOM) / 2), 2 * round(height * (1 + _ZOOM) / 2))
    picture = ImageOps.fit(flat(open_picture(source, name)), size, Image.Resampling.LANCZOS)
    frame: av.VideoFrame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
    samples = (
        frame.reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        .to_ndarray()
        .reshape(-1)
    )
    wide, tall = size
    luma, chroma = wide * tall, wide * tall // 4
    return (
        Image.fromarray(samples[:luma].reshape(tall, wide)),
        Image.fromarray(samples[luma : luma + chroma].reshape(tall // 2, wide // 2)),
        Image.fromarray(samples[luma + chroma :].reshape(tall // 2, wide // 2)),
    )


def _frames(
    plates: list[Plate], each: int, width: int, height: int, fps: int
) -> Iterator[av.VideoFrame]:
    """Every frame of the video; neighbours overlap in a crossfade centred on the cut."""
    half = min(round(fps * 0.35), each // 3) if len(plates) > 1 else 0
    span = each + 2 * half
    for number in range(len(plates) * each):
        shot, at = divmod(number, each)
        planes = _view(plates[shot], shot, (at + half) / (span - 1), width, height)
        other, share = shot, 0.0
        if at >= each - half and shot + 1 < len(plates):
            other, share = shot + 1, (at - (each - half) + 0.5) / (2 * half)
        elif at < half and shot > 0:
            other, share = shot - 1, (half - at - 0.5) / (2 * half)
        if other != shot:
            t = (number - other * each + half) / (span - 1)
            others = _view(plates[other], other, t, width, height)
            eased = share * share * (3 - 2 * share)
            planes = tuple(Image.blend(a, b, eased) for a, b in zip(planes, others, strict=True))
        samples = np.concatenate([np.asarray(plane).reshape(-1) for plane in planes])
        yield av.VideoFrame.from_ndarray(samples.reshape(height * 3 // 2, width), format="yuv420p")


def _view(plate: Plate, shot: int, t: float, width: int, height: int) -> tuple[Image.Image, ...]:
    """The planes that the camera sees of a plate at `t` (0 to 1) of its move."""
    zoom = (1 + _ZOOM) / (1 + _ZOOM * (t if shot % 2 == 0 else 1 - t))
    luma = plate[0]
    wide, tall = min(width * zoom, luma.width), min(height * zoom, luma.height)
    # Pans alternate between the diagonals. The box is fractional: whole pixels would judder.
    drift = 0.2 + 0.6 * t
    x = (luma.width - wide) * (drift if shot % 4 < 2 else 1 - drift)
    y = (luma.height - tall) * (drift if shot % 2 else 1 - drift)
    box = (x, y, x + wide, y + tall)
    half = (x / 2, y / 2, (x + wide) / 2, (y + tall) / 2)
    small = (width // 2, height // 2)
    return (
        luma.resize((width, height), Image.Resampling.BICUBIC, box=box),
        plate[1].resize(small, Image.Resampling.BICUBIC, box=half),
        plate[2].resize(small, Image.Resampling.BICUBIC, box=half),
    )


def _mp4_only(file: str) -> None:
    if not file.lower().endswith(".mp4"):
        raise refusal(
            "file has the wrong suffix",
            got=f"'{Path(file).suffix[:16]}'",
            expected=".mp4",
            do="Choose a name that ends in .mp4.",
        )
