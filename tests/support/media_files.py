"""Real media files, made here, and their building blocks."""

from __future__ import annotations

import io
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 64, 48


def picture(form: str, mode: str = "RGB", **options: object) -> bytes:
    noise = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, form, **options)
    return file.getvalue()


def png(colour: str = "navy", size: int = 16) -> bytes:
    """A square of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(file, "PNG")
    return file.getvalue()


def zip_archive() -> bytes:
    """An archive of one small table."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("customers.csv", "kim,omar")
    return file.getvalue()


def animation(form: str, count: int = 5, **options: object) -> bytes:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), (20 * i % 256, i % 256, 0)) for i in range(count)]
    file = io.BytesIO()
    frames[0].save(file, form, save_all=True, append_images=frames[1:], **options)
    return file.getvalue()


_DTYPES = {"s16": "i2", "s16p": "i2", "s32": "i4", "s32p": "i4", "flt": "f4", "fltp": "f4"}


def media(
    form: str, video: str | None = None, audio: str | None = None, hertz: int = 48_000, **flags: str
) -> bytes:
    """A second of picture or sound; through a real path, which `faststart` reads again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "media")
        with av.open(str(path), "w", format=form, options=flags) as container:
            if video:
                stream: Any = container.add_stream(video, rate=24)
                stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            if audio:
                sound: Any = container.add_stream(audio, rate=hertz)
            if video:
                for shade in range(0, 240, 10):
                    pixels = np.full((HEIGHT, WIDTH, 3), shade, dtype=np.uint8)
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
                container.mux(stream.encode())
            if audio:
                channels, packed = sound.layout.nb_channels, sound.format.is_packed
                shape = (1, hertz * channels) if packed else (channels, hertz)
                silence = np.zeros(shape, dtype=_DTYPES[sound.format.name])
                frame = av.AudioFrame.from_ndarray(
                    silence, format=sound.format.name, layout=sound.layout.name
                )
                frame.rate = hertz
                container.mux(sound.encode(frame))
                container.mux(sound.encode())
        return path.read_bytes()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body
