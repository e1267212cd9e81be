"""What the tests of one process work out once: it depends on the program alone.

Most tests open a workspace, and half of their time went into these two, over and over.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from types import CodeType
from typing import Any

import pytest
from langchain_core.tools import StructuredTool, tool

from agentguard.ledger.storage.sqlite import schema, storage
from agentguard.policy.policy_set import Policy


@contextlib.contextmanager
def share() -> Iterator[None]:
    """Parse each set of policies once, and begin each SQLite ledger as a copy of an empty one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Policy, "__init__", _parse_once(Policy.__init__))
        patch.setattr(storage, "migrate", _copy_empty)
        yield


def _parse_once(parse: Any) -> Any:
    """A Policy never changes, so two of the same texts may share all that they hold."""
    parsed: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}

    def init(policy: Policy, texts: Mapping[str, str]) -> None:
        key = tuple(texts.items())
        if key not in parsed:
            parse(policy, texts)
            parsed[key] = dict(vars(policy))
        vars(policy).update(parsed[key])

    return init


_copying = threading.Lock()
_parent = os.getpid()


def _copy_empty(connection: sqlite3.Connection) -> None:
    """Migrate a ledger; the statements for an empty file have run before, `migrate` looks at it."""
    with _copying:
        empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if empty and os.getpid() == _parent:  # what was forked may race with others for one file
            _empty().backup(connection)
        schema.migrate(connection)


_templates: dict[CodeType, StructuredTool] = {}


def tool_of(function: Callable[..., Any], **kwargs: Any) -> StructuredTool:
    """A tool of a function in a function: its argument class is made once for all closures.

    Args:
        kwargs: as for LangChain's `tool`.
    """
    code = function.__code__
    if code not in _templates:
        made = tool(**kwargs)(function) if kwargs else tool(function)
        assert isinstance(made, StructuredTool)
        _templates[code] = made
    return _templates[code].model_copy(update={"func": function})


@functools.cache
def _empty() -> sqlite3.Connection:
    made = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    schema.migrate(made)
    return made
