"""From one video to another: decode, turn upright, fit, encode, with sound."""

from fractions import Fraction

import av
from av.audio.resampler import AudioResampler
from av.container import InputContainer, OutputContainer
from av.filter import Graph
from av.video.stream import VideoStream
from langchain_core.tools import ToolException

from tools.shared.files import refusal
from tools.shared.progress import report
from tools.shared.videos import MAX_SECONDS, add_h264, seconds, start_of, video_errors

_TURNS = {90: "transpose=cclock", 270: "transpose=clock", 180: "hflip,vflip"}


def convert(
    container: InputContainer,
    stream: VideoStream,
    out: OutputContainer,
    width: int,
    height: int,
    rate: Fraction,
) -> tuple[int, bool]:
    """Write `stream` and the first sound track to `out`, fitted into `width` x `height` pixels.

    Returns the number of frames written and whether there is sound. Raises ToolException for a
    source that is damaged, has no frame, or is longer than MAX_SECONDS by its own clock.
    """
    length = seconds(container, stream) or 0.0
    _within(length)
    video = add_h264(out, width, height, rate)
    heard = container.streams.audio[0] if container.streams.audio else None
    audio = out.add_stream("aac", rate=48_000, layout="stereo") if heard is not None else None
    resampler = AudioResampler(format="fltp", layout="stereo", rate=48_000)
    graph: Graph | None = None
    count, start = 0, start_of(stream)
    packets = container.demux([each for each in (stream, heard) if each is not None])
    while True:
        with video_errors("source"):
            packet = next(packets, None)
            decoded = packet.decode() if packet is not None else []
        if packet is None:
            break
        for frame in decoded:
            if not isinstance(frame, av.VideoFrame | av.AudioFrame):
                continue
            # By each frame's time, not the header's word: the rate filter would fill any gap.
            _within((frame.time or 0.0) - start)
            if isinstance(frame, av.VideoFrame):
                if graph is None:
                    graph = _fitting(stream, frame, width, height, rate)
                graph.vpush(frame)
                before, count = count, _drain(graph, out, video, count)
                if count // round(rate * 2) != before // round(rate * 2):
                    report("transcode", count, max(count, round(length * rate)))
            elif audio is not None:
                for sound in resampler.resample(frame):
                    out.mux(audio.encode(sound))
    if graph is None:
        raise refusal(
            "source has no pictures",
            got="a video stream without a frame",
            expected="a whole video file",
            do="Export or download it again.",
        )
    graph.vpush(None)
    count = _drain(graph, out, video, count)
    out.mux(video.encode())
    if audio is not None:
        for sound in resampler.resample(None):
            out.mux(audio.encode(sound))
        out.mux(audio.encode())
    report("transcode", count, count)
    return count, audio is not None


def _fitting(
    stream: VideoStream, frame: av.VideoFrame, width: int, height: int, rate: Fraction
) -> Graph:
    """A filter graph: constant rate, upright, square pixels, whole picture, black bars."""
    steps = [f"fps={rate}"]
    aspect = stream.sample_aspect_ratio
    if aspect and aspect != 1:
        steps.append(f"scale=trunc(iw*{aspect.numerator}/{aspect.denominator}/2)*2:ih")
    turn = _TURNS.get(frame.rotation % 360)
    if turn:
        steps.append(turn)
    steps.append(
        f"scale={width}:{height}:force_original_aspect_ratio=decrease:force_divisible_by=2"
        ":flags=bicubic:out_color_matrix=bt709:out_range=tv"
    )
    steps += [f"pad={width}:{height}:(ow-iw)/2:(oh-ih)/2:black", "setsar=1", "format=yuv420p"]
    graph = Graph()
    nodes = [
        graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=stream.time_base,
        )
    ]
    for step in ",".join(steps).split(","):
        name, _, arguments = step.partition("=")
        nodes.append(graph.add(name, arguments or None))
    nodes.append(graph.add("buffersink"))
    graph.link_nodes(*nodes).configure()
    return graph


def _drain(graph: Graph, out: OutputContainer, video: VideoStream, count: int) -> int:
    """Encode every frame that the graph has ready; returns the new count."""
    while True:
        try:
            frame = graph.vpull()
        except (BlockingIOError, EOFError):  # it wants more input, or is done
            return count
        out.mux(video.encode(frame))
        count += 1


def _within(length: float) -> None:
    if length > MAX_SECONDS:
        raise _too_long(length)


def _too_long(length: float) -> ToolException:
    return refusal(
        "source is too long",
        got=f"{length:.0f} s",
        expected=f"at most {MAX_SECONDS:g} s",
        do="Cut it into parts.",
    )
