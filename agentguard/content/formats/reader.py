"""A bounded, total way to read a hostile file: whatever runs past its end is a `MediaRefused`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

from agentguard.errors import AssetError

BLOCK = 131_072
"""Bytes held in memory at once."""

_MAX_PARTS = 500_000  # chunks, boxes, frames: each costs a few microseconds
_MAX_BLOCKS = 4_000_000  # of a film: ten hours of picture and sound
_MAX_UNCODED = 32 * 2**20
_PIECE = 16 * 2**20  # of what is not coded, held in memory at once


class MediaRefused(AssetError):
    """Bytes that are not taken in; the message says what they are, why, and what to do."""


class MediaTooLarge(MediaRefused):
    """A picture that is over the limits."""


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

    @property
    def max_animation(self) -> int:
        """Pixels of all pictures of one animation: a decoder draws each on the whole canvas."""
        return 20 * self.max_pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """What the bytes are.

    Attributes:
        media_type: such as `image/png`.
        extension: with its dot, such as `.png`.
        width: in pixels as coded, before any rotation flag; None where there is no picture.
        height: as width.
        labels: what its own words raise (S7), such as `personal-data`.
    """

    media_type: str
    extension: str
    width: int | None = None
    height: int | None = None
    labels: frozenset[str] = frozenset()

    @property
    def is_text(self) -> bool:
        """Captions or a plain text: there is nothing else in it."""
        return self.extension in (".srt", ".vtt", ".txt")


class Cursor:
    """A place in a file. Every read is checked against the file's size.

    A walker says which stretches it knows to be coded picture or sound, or the format's own
    tables; everything else may hold words (`uncoded`).

    Attributes:
        name: the format, for messages.
        position: bytes read or skipped so far.
        size: bytes in the file.
        inner: it is a picture in another file; what follows it there is not its own.
    """

    def __init__(self, file: BinaryIO, limits: Limits, *, inner: bool = False) -> None:
        self._file = file
        self._parts = self._blocks = self._frames = self._pixels = 0
        self._coded: list[tuple[int, int]] = []
        self._words: list[tuple[int, int]] = []
        self._previews: list[tuple[int, int]] = []
        self._decoded: list[tuple[bytes, bool]] = []
        self.limits = limits
        self.inner = inner
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

    def block(self) -> None:
        """Count one more piece of a film's picture or sound."""
        self._blocks += 1
        if self._blocks > _MAX_BLOCKS:
            self.refuse(f"its film has more than {_MAX_BLOCKS} blocks; cut it into several")

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

    def coded(self, start: int, end: int | None = None) -> None:
        """What stands from `start` to `end` (None: here) is no text: a decoder knows it."""
        end = self.position if end is None else end
        if self._coded and self._coded[-1][1] == start:
            start = self._coded.pop()[0]
        if start < end:
            self._coded.append((start, end))

    def skip_coded(self, count: int) -> None:
        """Skip bytes that are no text."""
        start = self.position
        self.skip(count)
        self.coded(start)

    def words(self, start: int, end: int) -> None:
        """What stands here is read as text even where another part calls it coded."""
        self._words.append((start, end))

    def previews(self, start: int) -> None:
        """What stands from `start` to here may hold a small picture: a cover, a thumbnail."""
        self.coded(start)
        self._previews.append((start, self.position))

    def decoded(self, data: bytes, *, previews: bool = False) -> None:
        """What may hold words and does not stand so in the file: inflated or put together."""
        self._decoded.append((data, previews))

    def uncoded(self, end: int) -> Iterator[tuple[bytes, bool]]:
        """What may hold words, up to `end`, and whether a picture belongs there.

        Stretches stand apart by two zeros.

        Raises:
            MediaRefused: there is too much of it.
        """
        known = sum(stop - start for start, stop in (*self._words, *self._previews))
        if known + sum(stop - start for start, stop in self._gaps(end)) > _MAX_UNCODED:
            self.refuse(
                f"more than {_MAX_UNCODED} bytes of it are neither picture nor sound; encode it"
                " again to drop them"
            )
        for places, previews in (
            ((*self._gaps(end), *self._words), False),
            (self._previews, True),
        ):
            parts: list[bytes] = []
            held = 0
            for start, stop in places:
                while start < stop:
                    self._file.seek(start)
                    parts.append(self._file.read(min(BLOCK, stop - start)))
                    start, held = start + BLOCK, held + len(parts[-1])
                    if held >= _PIECE:
                        yield b"".join(parts), previews
                        parts, held = [], 0
                parts.append(b"\0\0")
            yield b"".join(parts), previews
        yield from self._decoded

    def _gaps(self, end: int) -> Iterator[tuple[int, int]]:
        done = 0
        for start, stop in (*sorted(self._coded), (end, end)):
            if done < start:
                yield done, start
            done = max(done, stop)

    def end(self) -> None:
        """Here the media ends, and so must the file: bytes behind it are seen by no decoder."""
        if self.position != self.size and not self.inner:
            extra = self.size - self.position
            self.refuse(f"{extra} bytes follow its end; encode it again to drop them")

    def canvas(self, width: int, height: int) -> None:
        if width < 1 or height < 1:
            self.refuse(f"a picture of {width} x {height} pixels")
        if width * height > self.limits.max_pixels:
            raise MediaTooLarge(
                f"{self.name} refused: a picture of {width} x {height} pixels, expected at most "
                f"{self.limits.max_pixels} in all; scale it down"
            )

    def frame(self, *sizes: tuple[int, int]) -> None:
        """One more picture of an animation.

        Args:
            sizes: its own and the canvas's; a decoder draws it on the whole canvas.
        """
        self._frames += 1
        self._pixels += max(width * height for width, height in sizes)
        if self._frames > self.limits.max_frames:
            raise MediaTooLarge(
                f"{self.name} refused: an animation of more than {self.limits.max_frames}"
                " pictures; shorten it"
            )
        if self._pixels > self.limits.max_animation:
            raise MediaTooLarge(
                f"{self.name} refused: an animation of more than {self.limits.max_animation}"
                " pixels in all its pictures; scale it down or shorten it"
            )


def riff_chunks(cursor: Cursor) -> Iterator[tuple[bytes, int]]:
    """Kind and length of each chunk of a RIFF file, the cursor at its body."""
    cursor.skip(4)
    end = cursor.little(4) + 8
    if end + end % 2 != cursor.size:  # a last padding byte is counted by some writers only
        cursor.move(end)
        cursor.end()
    end = min(end + end % 2, cursor.size)
    cursor.move(12)
    cursor.coded(0)
    while cursor.position < end:
        cursor.part()
        start = cursor.position
        kind, length = cursor.take(4), cursor.little(4)
        cursor.coded(start)
        stop = cursor.position + length
        yield kind, length
        cursor.move(stop)
        if length % 2 and stop < end:
            cursor.skip_coded(1)
