"""Opening videos without trusting them, and writing H.264 mp4."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

import av
from av.container import InputContainer, OutputContainer
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from PIL import Image

from tools.shared.files import existing, refusal

MAX_PIXELS = 8192 * 4352  # per frame
MAX_SECONDS = 600.0
# Self-contained files only. Playlists (hls, dash, concat) name other files and addresses to open.
_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,ogg,gif"
_EXPECTED = "a whole video file (mp4, mov, webm, mkv, avi, ts, ogv or gif)"


@contextmanager
def open_video(source: str, name: str = "source") -> Iterator[tuple[InputContainer, VideoStream]]:
    """Yield the container and first video stream of a file; errors become ToolException.

    FFmpeg gets an open file instead of a name, only self-contained formats, and a refusal for every
    further file or address, so that a hostile "video" cannot make it read or fetch something else.
    """
    path = existing(source, name)
    with path.open("rb") as file:
        with video_errors(name):
            container = av.open(
                file,
                mode="r",
                io_open=_nothing_else,
                container_options={"format_whitelist": _DEMUXERS, "protocol_whitelist": "none"},
                options={"max_pixels": str(MAX_PIXELS)},
                metadata_errors="replace",
            )
        with container:
            if not container.streams.video:
                raise refusal(
                    f"{name} has no pictures",
                    got="no video stream",
                    expected=_EXPECTED,
                    do="Pass a video.",
                )
            stream = container.streams.video[0]
            if not 0 < stream.width * stream.height <= MAX_PIXELS:
                raise refusal(
                    f"{name} has an unusable frame size",
                    got=f"{stream.width}x{stream.height} pixels",
                    expected=f"at most {MAX_PIXELS:,} pixels",
                    do="Use a smaller video.",
                )
            yield container, stream


@contextmanager
def video_errors(name: str) -> Iterator[None]:
    """Turn FFmpeg's errors about the input called `name` into ToolException."""
    try:
        yield
    except (av.FFmpegError, EOFError) as broken:
        raise refusal(
            f"{name} cannot be decoded",
            got=f"a damaged file, or no video ({type(broken).__name__})",
            expected=_EXPECTED,
            do="Export or download it again; for a picture use the picture tools.",
        ) from None


def seconds(container: InputContainer, stream: VideoStream) -> float | None:
    """The duration that the file claims, in seconds, or None if it claims none."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration is not None else None


def frame_rate(stream: VideoStream) -> Fraction:
    """The average frames per second of a stream, 25 if it names none, at most 60."""
    rate = stream.average_rate or stream.base_rate or Fraction(25)
    return min(max(Fraction(rate), Fraction(1)), Fraction(60)).limit_denominator(1001)


def start_of(stream: VideoStream) -> float:
    """When the first frame of a stream is shown, in seconds of its own clock."""
    if stream.start_time is None or stream.time_base is None:
        return 0.0
    return float(stream.start_time * stream.time_base)


def upright(frame: av.VideoFrame) -> Image.Image:
    """A frame as RGB the way a player shows it: phones film sideways and note the rotation."""
    picture: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
    return picture.rotate(frame.rotation, expand=True) if frame.rotation % 360 else picture


def open_mp4(path: Path) -> OutputContainer:
    """An mp4 whose index comes first, so that players can start before the download ends."""
    return av.open(str(path), mode="w", format="mp4", options={"movflags": "+faststart"})


def add_h264(container: OutputContainer, width: int, height: int, rate: Fraction) -> VideoStream:
    """Add a stream that every player takes: H.264 High, 4:2:0, tagged BT.709, limited range."""
    stream = container.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "20"})
    assert isinstance(stream, VideoStream)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    codec = stream.codec_context
    codec.time_base = 1 / rate
    codec.gop_size = math.ceil(rate * 2)
    codec.colorspace = Colorspace.ITU709
    codec.color_primaries = ColorPrimaries.BT709
    codec.color_trc = ColorTrc.BT709
    codec.color_range = ColorRange.MPEG
    return stream


def _nothing_else(url: str, flags: int, options: object) -> NoReturn:
    raise PermissionError("a media file asked for another file or address; that is not opened")
