"""What becomes of a refusal: a record in the ledger, a line in the log, the tool's answer."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from agentguard.calls.arguments import sayable
from agentguard.calls.call import Call
from agentguard.errors import LedgerError, LedgerUnavailable
from agentguard.ledger.ledger import Ledger, RefusedCall
from agentguard.model import Obstacle, ObstacleKind

_log = logging.getLogger(__name__)

UNAVAILABLE = "the ledger is unavailable, so nothing was done; try again later"
ALARMED = (
    "the ledger raised a tamper alarm, so nothing was done and nothing will be until an operator"
    " has looked at it (`agentguard doctor`); do not try again"
)

_REMEMBERED = 1024
_LONGEST = 500

_K = TypeVar("_K")
_V = TypeVar("_V")


class RefusalLog:
    """Records and logs refusals, and remembers why a call has no Decision in the ledger.

    Args:
        ledger: where they are recorded.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: dict[tuple[str, str, str], Obstacle] = {}  # what authorize said last
        self._recorded: dict[tuple[str, str, str], Obstacle] = {}  # and wrote down
        self._logged: dict[tuple[str, ...], None] = {}

    def record(self, call: Call, obstacle: Obstacle) -> None:
        """Record that a call was refused where it would have run (I5), and log it.

        What authorize recorded of it is not recorded again when its tool answers with that.
        """
        self.log(call, (obstacle.policy,), obstacle.sentence)
        if self._recorded.pop(_place(call), None) != obstacle:
            self._refuse(_body_of(call, obstacle))

    def record_unmade(
        self, tool: object, agent: str | None, *, job: str, thread: str, obstacle: Obstacle
    ) -> None:
        """Record and log that a call was refused before it could be made.

        Args:
            tool: the name of its tool, as a model wrote it.
        """
        name = sayable(tool)
        _warn(name, agent, job, thread, (obstacle.policy,), obstacle.sentence)
        self._refuse(_body(name, agent, job=job, call_key=None, obstacle=obstacle))

    def log(self, call: Call, policies: Sequence[str], sentence: str) -> None:
        """Log why a call is refused, once: the gate and the tool say the same of it."""
        if _put(self._logged, (*_place(call), sentence), None):
            _warn(call.bound.name, call.agent, call.job.id, call.thread, policies, sentence)

    def log_unmade(
        self,
        tool: str,
        agent: str | None,
        *,
        job: str,
        thread: str,
        obstacle: Obstacle,
        why: str | None = None,
    ) -> None:
        """Log a refusal that can't be recorded, or has nothing that a record could be about.

        Args:
            why: what else than the model its reader is told.
        """
        _warn(tool, agent, job, thread, (obstacle.policy,), why or obstacle.sentence)

    def remember(self, call: Call, obstacle: Obstacle, *, recorded: bool) -> None:
        """What the tool says of a call that left no decision in the ledger.

        Args:
            recorded: the ledger holds a record of it.
        """
        self.forget(call)
        _put(self._known, _place(call), obstacle)
        if recorded:
            _put(self._recorded, _place(call), obstacle)

    def forget(self, call: Call) -> None:
        """There is a decision now."""
        self._known.pop(_place(call), None)
        self._recorded.pop(_place(call), None)

    def known(self, call: Call) -> Obstacle | None:
        """Why authorize refused a call, if it did."""
        return self._known.get(_place(call))

    def _refuse(self, body: Mapping[str, Any]) -> None:
        with contextlib.suppress(LedgerError):  # refused either way
            self._ledger.refuse(body)


def refused_call(call: Call, obstacle: Obstacle) -> RefusedCall:
    """A refusal as the ledger records it among the decisions of a message."""
    return RefusedCall(
        call_key=call.key,
        job=call.job.id,
        thread=call.thread,
        call_id=call.id_digest,
        tool=call.bound.name,
        reason=obstacle.sentence[:_LONGEST],
        body=_body_of(call, obstacle),
    )


def ledger_obstacle(error: LedgerError) -> Obstacle:
    """What the model is told of a ledger that could not be used."""
    if isinstance(error, LedgerUnavailable):
        return Obstacle(kind=ObstacleKind.LEDGER, sentence=UNAVAILABLE)
    return Obstacle(kind=ObstacleKind.TAMPER_ALARM, sentence=ALARMED)


def in_a_line(text: str) -> str:
    """Text as a log holds it: one line, bounded."""
    short = " ".join(text[:1000].split())
    return "".join(c if c.isprintable() else "?" for c in short)


def _body_of(call: Call, obstacle: Obstacle) -> Mapping[str, Any]:
    return _body(call.bound.name, call.agent, job=call.job.id, call_key=call.key, obstacle=obstacle)


def _body(
    tool: str, agent: str | None, *, job: str, call_key: str | None, obstacle: Obstacle
) -> Mapping[str, Any]:
    return {
        "job": job,
        "agent": agent,
        "tool": tool,
        "call": call_key,
        "policy": obstacle.policy,
        "reason": obstacle.sentence[:_LONGEST],
    }


def _warn(
    tool: str, agent: str | None, job: str, thread: str, policies: Sequence[str], why: str
) -> None:
    """Write to the developer's log why a call was refused; no values of its arguments (S7)."""
    _log.warning(
        "refused: %s as %s in job %s, thread %.80r, by %s: %s",
        tool, agent or "no agent", job or "none", thread, ", ".join(policies), in_a_line(why),
    )  # fmt: skip


def _place(call: Call) -> tuple[str, str, str]:
    return call.job.id, call.thread, call.id_digest


def _put(known: dict[_K, _V], key: _K, value: _V) -> bool:
    """Remember something, and forget what is oldest; False if it was known."""
    if key in known:
        return False
    if len(known) >= _REMEMBERED:
        for oldest in list(known)[:1]:  # a copy: other threads write there, too
            known.pop(oldest, None)
    known[key] = value
    return True
