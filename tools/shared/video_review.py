"""What can be measured about a video: every frame is decoded."""

from dataclasses import dataclass, field

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from langchain_core.tools import ToolException
from numpy.typing import NDArray

from tools.shared.findings import Finding, error, info, warning
from tools.shared.picture_review import shape, tone_findings
from tools.shared.videos import MAX_SECONDS, frame_rate, open_video, seconds, start_of, video_errors

_FROZEN = 2.0  # seconds of one unmoving picture that look like a fault
_STILL = 0.35  # mean change in 8-bit luma, below which two frames are the same picture
_LOOK = (160, 90)  # frames are judged at this size; compression noise averages out


@dataclass(slots=True, kw_only=True)
class _Watch:
    """What was seen so far, frame by frame; times in seconds."""

    step: float
    frames: int = 0
    end: float = 0.0
    black: float = 0.0
    blank: float = 0.0
    frozen: float = 0.0
    still: float = 0.0
    anchor: NDArray[np.float32] | None = None
    sample: list[NDArray[np.uint8]] = field(default_factory=list)

    def see(self, luma: NDArray[np.uint8], time: float) -> None:
        self.frames += 1
        self.end = time + self.step
        low, high = (float(edge) for edge in np.percentile(luma, (1, 99)))
        if high < 24:
            self.black += self.step
        elif high - low < 4:
            self.blank += self.step
        # Compared with where the stillness began, not with the frame before: a slow zoom moves
        # too little per frame to tell, but not over seconds.
        now = luma.astype(np.float32)
        if self.anchor is not None and float(np.abs(now - self.anchor).mean()) < _STILL:
            self.still += self.step
            self.frozen = max(self.frozen, self.still)
        else:
            self.anchor, self.still = now, 0.0
        if self.frames % 12 == 1 and len(self.sample) < 400:
            self.sample.append(luma)


def video_findings(source: str) -> list[Finding]:
    """Everything found about the video in a file."""
    try:
        with open_video(source, "the video") as (container, stream):
            findings = _claims(container, stream)
            if (seconds(container, stream) or 0) > MAX_SECONDS:
                return [*findings, error("too-long", f"Longer than {MAX_SECONDS:g} s: not judged.")]
            watch = _Watch(step=1 / float(frame_rate(stream)))
            try:
                _watch(container, stream, watch)
            except ToolException as refused:
                findings.append(
                    error("undecodable", f"Breaks off after {watch.frames} frames. {refused}")
                )
            return findings + _seen(container, stream, watch)
    except ToolException as refused:
        return [error("undecodable", str(refused))]


def _claims(container: InputContainer, stream: VideoStream) -> list[Finding]:
    """What the headers say."""
    codec = stream.codec_context.name
    rate = float(frame_rate(stream))
    findings = [
        info(
            "resolution", f"{stream.width}x{stream.height}, {shape(stream.width, stream.height)}."
        ),
        info("codec", f"{codec}, {stream.codec_context.pix_fmt}, {rate:.3g} frames per second."),
        info("audio", "Has sound." if container.streams.audio else "Has no sound."),
    ]
    if min(stream.width, stream.height) < 240:
        findings.append(warning("small", "The shorter side has under 240 pixels."))
    if rate < 12:
        findings.append(warning("low-frame-rate", f"{rate:.3g} frames per second will stutter."))
    notes = [container.metadata, *(each.metadata for each in container.streams)]
    if any("location" in key.lower() or "gps" in key.lower() for each in notes for key in each):
        findings.append(warning("gps", "Its metadata says where it was filmed."))
    personal = ("artist", "author", "comment", "description", "title", "copyright", "make", "model")
    found = {key.lower().rsplit(".", 1)[-1] for each in notes for key in each}
    if not found.isdisjoint(personal):
        findings.append(warning("embedded-text", "Carries titles, notes or names as metadata."))
    others = [each for each in container.streams if each.type not in ("video", "audio")]
    if others:
        findings.append(
            warning("extra-streams", f"Carries {len(others)} data, subtitle or attachment streams.")
        )
    return findings


def _watch(container: InputContainer, stream: VideoStream, watch: _Watch) -> None:
    """Decode every frame, and the sound with it; raises ToolException where the file breaks."""
    heard = list(container.streams.audio[:1])
    start = start_of(stream)
    with video_errors("the video"):
        for frame in container.decode(stream, *heard):
            if not isinstance(frame, av.VideoFrame | av.AudioFrame):
                continue
            time = (frame.time or 0.0) - start
            if time > MAX_SECONDS:
                return
            if isinstance(frame, av.VideoFrame):
                small = frame.reformat(*_LOOK, format="gray", interpolation="AREA")
                watch.see(small.to_ndarray().astype(np.uint8, copy=False), time)


def _seen(container: InputContainer, stream: VideoStream, watch: _Watch) -> list[Finding]:
    """What the decoded frames say."""
    if not watch.frames:
        return [error("undecodable", "Holds no frame that decodes.")]
    findings = [info("duration", f"{watch.end:.2f} s, {watch.frames} frames decoded.")]
    claimed = seconds(container, stream)
    if claimed is not None and claimed - watch.end > max(0.5, 0.05 * claimed):
        findings.append(
            error("truncated", f"Claims {claimed:.1f} s, but its frames end at {watch.end:.1f} s.")
        )
    if watch.end < 1:
        findings.append(warning("short", f"Lasts {watch.end:.2f} s."))
    if watch.black > max(0.25, 1.5 * watch.step):
        findings.append(warning("black-frames", f"{watch.black:.1f} s of it are black."))
    if watch.blank > max(0.25, 1.5 * watch.step):
        findings.append(warning("blank-frames", f"{watch.blank:.1f} s of it are one flat tone."))
    if watch.frozen >= _FROZEN:
        findings.append(warning("frozen", f"The picture stands still for {watch.frozen:.1f} s."))
    if watch.black + watch.blank < watch.end / 2:
        findings += tone_findings(_together(watch.sample))
    return findings


def _together(sample: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Frames as one sheet without the bars that all of them share."""
    film = np.stack(sample)
    lit = film.max(axis=0) >= 24
    if not lit.any():
        return sample[0]
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    inner = film[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.asarray(inner.reshape(-1, inner.shape[2]), np.uint8)
