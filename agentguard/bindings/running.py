"""Which declared tool runs now, so that a declared function can see whether it may (I5).

A declared function stays callable: in a unit test, in a notebook, wherever there is no job. Inside
a job it runs under its own claim only. A thread that a tool starts by itself is outside of both.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from langchain_core.runnables.config import var_child_runnable_config

from agentguard.errors import UnguardedTool

_log = logging.getLogger(__name__)

ENTRY_KEY = "__agentguard_entry"
"""The key in `configurable` under which the proof travels that a run was entered into a job.

LangGraph keeps keys that begin with two underscores out of the metadata of checkpoints and traces.
"""

JOB: ContextVar[Any] = ContextVar("agentguard_job", default=None)
"""The job whose `with` encloses the running code; `jobs/job.py` sets it."""


class Gate(Protocol):
    """What decides on the declared functions that code calls by hand.

    Args:
        left: its code was left; what that started and left behind is under no gate.
        process: where it stands; a forked child can't ask people, or say what it did.
    """

    left: bool
    process: int

    def is_here(self) -> bool:
        """Whether the running code stands under this gate, and in no tool or graph that it runs."""

    def call(
        self,
        declared: object,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Decide on a call, and run it under its claim."""

    async def acall(
        self,
        declared: object,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """See `call`."""


@dataclass(slots=True)
class Running:
    """The body of a claimed tool, or code that was let past the guard.

    Args:
        declared: what its functions were declared with, by identity.
        exempt: whether any declared function may run.
        left: the body was left; what it started and left behind may run nothing.
    """

    declared: tuple[object, ...] = ()
    exempt: bool = False
    left: bool = False


_running: ContextVar[Running | None] = ContextVar("agentguard_running", default=None)


@contextlib.contextmanager
def running(*declared: object, exempt: bool = False) -> Iterator[None]:
    """Let functions that were declared so run while this lasts, and no others."""
    body = Running(declared=declared, exempt=exempt)
    token = _running.set(body)
    try:
        yield
    finally:
        body.left = True
        _running.reset(token)


@dataclass(frozen=True, slots=True)
class _Standing:
    """A gate, and the tool's body that its node runs in, if that is one of an agent as a tool."""

    gate: Gate
    body: Running | None


_standing: ContextVar[_Standing | None] = ContextVar("agentguard_gate", default=None)


@contextlib.contextmanager
def under(gate: Gate) -> Iterator[None]:
    """Let declared functions that are called while this lasts find a gate."""
    token = _standing.set(_Standing(gate, _running.get()))
    try:
        yield
    finally:
        _standing.reset(token)


def gate_here() -> Gate | None:
    """The gate that a declared function is called under; None: `require_claim` says whether it may.

    Under a claim, or past the guard by the developer's own word, no gate is asked.
    """
    standing = _standing.get()
    if standing is None or standing.body is not _running.get():
        return None
    return standing.gate if standing.gate.is_here() else None


class Witness(Protocol):
    """Who knows the guards of this process, and records what is called past them."""

    def on_direct_call(self, name: str, why: str | None) -> None:
        """Record a declared function that is called directly; what this raises stops it.

        Args:
            why: it is stopped; None: it was let past the guard.
        """

    def is_bound(self, declared: object, *, in_job: bool) -> bool:
        """Whether an open guard has bound a tool with media or effect that was declared so.

        Args:
            in_job: only a guard that holds an open job counts.
        """


_witnesses: list[Witness] = []
_warned: set[int] = set()


def tell_of_direct_calls(witness: Witness) -> None:
    """Have somebody record the declared functions that are called past their claim."""
    _witnesses.append(witness)


def require_claim(declared: object, name: str) -> None:
    """Refuse the body of a declared function inside a job, but under its own claim.

    Args:
        declared: what the function was declared with.
        name: what it is called, for the error.

    Raises:
        UnguardedTool: there is a job and no claim, or the claim is another tool's; or nothing says
            which job it is, and one is open.
    """
    body = _running.get()
    if body is not None and not body.left:
        if any(each is declared for each in body.declared):
            return
        if body.exempt:
            _tell(name, None)
            return
        _stop(
            name,
            f"{name} is a declared tool, and was called inside another one, which has no claim for"
            " it; put the shared code into a plain function",
        )
    job = JOB.get()
    is_inside = (job is not None and not job.is_left) or _is_entered()
    if not is_inside and _is_bound(declared, in_job=True):
        _stop(
            name,
            f"{name} was called where nothing says which job it belongs to, while one is open: a"
            " thread that got no context. Hand it on: asyncio.to_thread, or"
            " pool.submit(contextvars.copy_context().run, ...); outside of every job say"
            ' `with guard.unguarded("why"):`',
        )
    if is_inside:
        _stop(
            name,
            f"{name} was called unguarded inside a job; {_where()}, or say"
            ' `with guard.unguarded("why"):`',
        )
    if id(declared) not in _warned and _is_bound(declared, in_job=False):
        _warned.add(id(declared))
        _log.warning(
            "%s runs outside of every job, where nothing guards it, although an open guard has"
            " bound it: call it inside `with guard.open_job(...)`, in a protected graph; or say"
            ' `with guard.unguarded("why"):`',
            name,
        )


def _is_bound(declared: object, *, in_job: bool) -> bool:
    return any(witness.is_bound(declared, in_job=in_job) for witness in _witnesses)


def _stop(name: str, why: str) -> NoReturn:
    _tell(name, why)
    raise UnguardedTool(why)


def _tell(name: str, why: str | None) -> None:
    for witness in _witnesses:
        witness.on_direct_call(name, why)


def node_named_in(config: Mapping[str, Any]) -> str | None:
    """The node of a graph that a run's config belongs to; None: it is outside of every graph."""
    node = (config.get("metadata") or {}).get("langgraph_node")
    return node if isinstance(node, str) else None


def _where() -> str:
    standing = _standing.get()
    if standing is not None and standing.gate.left:
        return "and the node that started it had returned; let the node wait for what it starts"
    if standing is not None and standing.gate.process != os.getpid():
        return "in another process than the node that started it; call it in the node's own"
    node = node_named_in(var_child_runnable_config.get() or {})
    if node is None:
        return "run it through guard.tools() in a graph or agent that is protected"
    return (
        f"it was called by hand in the node {node!r}, so name it:"
        f" protect(builder, guard, agents={{{node!r}: AGENT}}), and compile what it returns; in a"
        " ToolNode or agent take guard.tools([...])"
    )


def _is_entered() -> bool:
    config = var_child_runnable_config.get() or {}
    return ENTRY_KEY in (config.get("configurable") or {})
