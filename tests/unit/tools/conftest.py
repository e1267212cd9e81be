"""Media made for the tests: small, real files in tmp_path."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests.unit.tools.samples import pattern


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., str]:
    """Write a test picture and return its path."""

    def make(name: str = "in.png", width: int = 480, height: int = 360, shift: int = 0) -> str:
        path = tmp_path / name
        pattern(width, height, shift).save(path)
        return str(path)

    return make


@pytest.fixture
def video(tmp_path: Path) -> Callable[..., str]:
    """Encode a test video, by default of moving frames, and return its path."""

    def make(
        name: str = "in.mp4",
        frames: list[Image.Image] | None = None,
        *,
        fps: int = 12,
        sound: bool = False,
        metadata: dict[str, str] | None = None,
    ) -> str:
        path = tmp_path / name
        shots = frames or [pattern(320, 240, 7 * at) for at in range(30)]
        options = {"movflags": "use_metadata_tags"} if metadata else {}
        with av.open(str(path), "w", format="mp4", options=options) as out:
            out.metadata.update(metadata or {})
            stream = out.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
            stream.width, stream.height = shots[0].size
            stream.pix_fmt = "yuv420p"
            audio = out.add_stream("aac", rate=44_100, layout="mono") if sound else None
            of_image: Any = av.VideoFrame.from_image  # it has no annotations
            for number, shot in enumerate(shots):
                frame = of_image(shot)
                frame.pts, frame.time_base = number, Fraction(1, fps)
                out.mux(stream.encode(frame))
            out.mux(stream.encode())
            if audio is not None:
                _hum(out, audio, len(shots) / fps)
        return str(path)

    return make


def _hum(out: av.container.OutputContainer, audio: av.AudioStream, length: float) -> None:
    wave = np.sin(np.arange(int(44_100 * length)) * 2 * np.pi * 220 / 44_100) * 0.3
    for at in range(0, len(wave), 1024):
        part = wave[at : at + 1024].astype(np.float32)[None, :]
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 44_100, at, Fraction(1, 44_100)
        out.mux(audio.encode(frame))
    out.mux(audio.encode())


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches a vendor because of the environment it happens to run in."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
