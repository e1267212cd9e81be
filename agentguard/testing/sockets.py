"""Connections that a tool opens in a test although its declaration says that nothing leaves.

An audit hook of Python sees them; it can't be taken away again, so this module adds one to the
process, once, which does nothing while no workspace is open. `Thread.start` is another one while a
workspace is open: it notes which call a thread belongs to. Not seen are a connection that was open
before, code that the tool runs in an empty context or in a thread that runs already, a process that
it starts, and libraries with sockets of their own (gRPC, libpq, libcurl, uvloop).
"""

from __future__ import annotations

import sys
import threading
import weakref
from typing import Any

from agentguard.bindings.bound import Bound
from agentguard.calls.execution import Execution, current_execution
from agentguard.guard import Guard

_CONNECTS = frozenset({"socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"})
_ASKS = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"})


class UndeclaredConnection(AssertionError):
    """A tool opened a connection, and its declaration names no destination."""


class SocketWatch:
    """Refuses the connections of a guard's tools that declare no `to`, for the call only.

    Args:
        guard: whose tools are watched.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._caught: list[str] = []

    def start(self) -> None:
        """Begin to watch."""
        global _hooked
        with _lock:
            if not _hooked:
                sys.addaudithook(_hook)
                _hooked = True
            if not _watches:
                threading.Thread.start = _start  # type: ignore[method-assign]
            _watches.append(self)

    def stop(self) -> None:
        """Watch no more."""
        with _lock:
            _watches.remove(self)
            if not _watches and threading.Thread.start is _start:
                threading.Thread.start = _start_plain  # type: ignore[method-assign]

    def owns(self, bound: Bound) -> bool:
        """Whether a tool is one of this guard's."""
        return self._guard.bound.get(bound.name) is bound

    def catch(self, sentence: str) -> UndeclaredConnection:
        """Keep what was caught, for a tool may swallow the exception."""
        self._caught.append(sentence)
        return UndeclaredConnection(sentence)

    def take(self) -> str | None:
        """What was caught since the last time, in a line each; None: nothing."""
        caught, self._caught = self._caught, []
        return "\n".join(dict.fromkeys(caught)) or None


_lock = threading.Lock()
_hooked = False
_watches: list[SocketWatch] = []
_start_plain = threading.Thread.start
_started: weakref.WeakKeyDictionary[threading.Thread, Execution] = weakref.WeakKeyDictionary()


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watches:
        return
    if event in _CONNECTS:
        _refuse(event, arguments[1] if len(arguments) > 1 else None)
    elif event in _ASKS:
        _refuse(event, arguments[0])


def _start(self: threading.Thread) -> None:
    execution = _running()
    if execution is not None:
        _started[self] = execution
    _start_plain(self)


def _running() -> Execution | None:
    """The call whose body runs here, or started the thread that does."""
    execution = current_execution.get()
    if execution is None and _started:
        execution = _started.get(threading.current_thread())
    return None if execution is None or execution.left else execution


def _refuse(event: str, address: object) -> None:
    execution = _running()
    if execution is None or (event == "socket.sendmsg" and address is None):
        return
    bound = execution.claimed.call.bound
    if bound.binding.destination is not None:
        return
    for watch in tuple(_watches):
        if watch.owns(bound):
            raise watch.catch(
                f"{bound.name} opened a connection to {_shown(address)} ({event}), and declares no"
                " to=: name the destination that it sends to, or give it a client that stays here"
            )


def _shown(address: object) -> str:
    if isinstance(address, tuple) and len(address) >= 2:
        address = f"{address[0]}:{address[1]}"
    return str(address if isinstance(address, str) else ascii(address))[:200]
