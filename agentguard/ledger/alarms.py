"""Tamper alarms of every process, in a file beside the checkpoints, for `agentguard doctor`."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

_log = logging.getLogger(__name__)

_LONGEST = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One tamper alarm: when (ms), in which process, and what it said."""

    at: int
    process: int
    what: str


class AlarmFile:
    """A file with a line for each alarm. Whoever has looked into them removes it.

    It is a notice, no proof: it is neither signed nor needed by anything.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, what: str, *, at: int) -> None:
        """Add an alarm; if it can't be written, it is in the process's own log only."""
        line = json.dumps({"at": at, "process": os.getpid(), "what": what[:_LONGEST]})
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            _log.error("a tamper alarm could not be written to %s: %s", self.path, error)

    def read(self) -> list[Alarm]:
        """Every alarm, the oldest first; a line that is none stands for an alarm as well."""
        try:
            lines = self.path.read_text("utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            return [Alarm(at=0, process=0, what=f"{self.path} can't be read: {error.strerror}")]
        return [_alarm(line) for line in lines]


def _alarm(line: str) -> Alarm:
    try:
        body = json.loads(line)
        return Alarm(at=int(body["at"]), process=int(body["process"]), what=str(body["what"]))
    except (ValueError, KeyError, TypeError):
        return Alarm(at=0, process=0, what=line[:_LONGEST])
