"""A bounded, total way to read a hostile file: whatever runs past its end is a `MediaRefused`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

from agentguard.errors import AssetError

BLOCK = 131_072
"""Bytes held in memory at once."""

_MAX_PARTS = 500_000  # chunks, boxes, frames: each costs about a microsecond


class MediaRefused(AssetError):
    """Bytes that are not taken in; the message says what they are, why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is accepted at most.

    Attributes:
        max_bytes: size of the file.
        max_pixels: width times height of one picture; more is taken for a decompression bomb.
        max_frames: pictures in one animation (GIF, APNG, WebP).
    """

    max_bytes: int
    max_pixels: int = 100_000_000
    max_frames: int = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """What the bytes are.

    Attributes:
        media_type: such as `image/png`.
        extension: with its dot, such as `.png`.
        width: in pixels as coded, before any rotation flag; None where there is no picture.
        height: as width.
    """

    media_type: str
    extension: str
    width: int | None = None
    height: int | None = None


class Cursor:
    """A place in a file. Every read is checked against the file's size.

    Attributes:
        name: the format, for messages.
        position: bytes read or skipped so far.
        size: bytes in the file.
    """

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self._file = file
        self._parts = 0
        self.limits = limits
        self.name = "file"
        self.position = 0
        self.size = file.seek(0, os.SEEK_END)
        if self.size > limits.max_bytes:
            self.refuse(f"it has {self.size} bytes, expected at most {limits.max_bytes}")

    def refuse(self, reason: str) -> NoReturn:
        raise MediaRefused(f"{self.name} refused: {reason}")

    def part(self) -> None:
        """Count one more chunk, box or frame."""
        self._parts += 1
        if self._parts > _MAX_PARTS:
            self.refuse(f"it has more than {_MAX_PARTS} parts; encode it again")

    def peek(self, count: int) -> bytes:
        """Up to `count` bytes (at most `BLOCK`) from here; the place does not change."""
        self._file.seek(self.position)
        return self._file.read(min(count, BLOCK, self.size - self.position))

    def take(self, count: int) -> bytes:
        """The next `count` bytes, at most `BLOCK`."""
        data = self.peek(count)
        if len(data) != count:
            self.refuse(f"it is cut off after {self.size} bytes; get the whole file")
        self.position += count
        return data

    def pieces(self, count: int) -> Iterator[bytes]:
        """The next `count` bytes in blocks."""
        end = self.position + count
        while self.position < end:
            yield self.take(min(BLOCK, end - self.position))

    def number(self, count: int) -> int:
        """An unsigned big-endian integer of `count` bytes."""
        return int.from_bytes(self.take(count), "big")

    def little(self, count: int) -> int:
        """An unsigned little-endian integer of `count` bytes."""
        return int.from_bytes(self.take(count), "little")

    def skip(self, count: int) -> None:
        self.move(self.position + count)

    def move(self, position: int) -> None:
        if position > self.size:
            self.refuse(f"it is cut off: {position} bytes declared, got {self.size}")
        self.position = position

    def end(self) -> None:
        """Here the media ends, and so must the file: bytes behind it are seen by no decoder."""
        if self.position != self.size:
            extra = self.size - self.position
            self.refuse(f"{extra} bytes follow its end; encode it again to drop them")

    def canvas(self, width: int, height: int) -> None:
        if width < 1 or height < 1:
            self.refuse(f"a picture of {width} x {height} pixels")
        if width * height > self.limits.max_pixels:
            self.refuse(
                f"a picture of {width} x {height} pixels, expected at most "
                f"{self.limits.max_pixels} in all; scale it down"
            )

    def frames(self, count: int) -> None:
        if count > self.limits.max_frames:
            self.refuse(f"an animation of more than {self.limits.max_frames} pictures; shorten it")


def riff_chunks(cursor: Cursor) -> Iterator[tuple[bytes, int]]:
    """Kind and length of each chunk of a RIFF file, the cursor at its body."""
    cursor.skip(4)
    end = cursor.little(4) + 8
    if end + end % 2 != cursor.size:  # a last padding byte is counted by some writers only
        cursor.move(end)
        cursor.end()
    cursor.move(12)
    while cursor.position < cursor.size:
        cursor.part()
        kind, length = cursor.take(4), cursor.little(4)
        stop = cursor.position + length
        yield kind, length
        cursor.move(stop)
        if length % 2 and stop < cursor.size:
            cursor.skip(1)
