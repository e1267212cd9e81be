"""The proof that a run was entered into a job: an object, never a text (I3, I6).

A job's id stands in checkpoints, traces and events, so knowing it proves nothing. An Entry can't be
stored, sent or typed: it exists in the process that made it, and counts as long as its job is held.
"""

from __future__ import annotations

from typing import Any, NoReturn, Self, final

from agentguard.bindings import running

ENTRY_KEY = running.ENTRY_KEY
"""The key in `configurable` under which an Entry travels."""


@final
class Entry:
    """What `Job.config` carries beside the job's id. It holds nothing and equals itself only.

    A copy is the same object, so that a config may be copied. Pickling it raises TypeError.
    """

    __slots__ = ()

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("an Entry has no subclasses")

    def __repr__(self) -> str:
        return "<entry>"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __getstate__(self) -> NoReturn:
        raise TypeError(
            "the entry of a job stays in its process; the other one enters the job itself, with"
            " guard.rejoin_job(...), and passes its own job.config(...)"
        )

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        self.__getstate__()

    def __reduce__(self) -> NoReturn:
        self.__getstate__()
