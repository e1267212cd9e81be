"""What an object holds, for those who search objects: `reach.py`, `langgraph/nested_agents.py`.

The garbage collector knows what an object of any kind refers to, so no list of containers is kept;
what it does not know is added here. Which objects a search looks into is for the search to say.
"""

from __future__ import annotations

import contextlib
import contextvars
import gc
import threading
import types
import weakref
from collections.abc import Iterator
from typing import Any

INVOKER = "_agentguard_invoker"
"""The attribute of a guarded tool that leads to its original; a search ends there."""


def held_by(thing: Any) -> Iterator[Any]:
    """What an object holds, as the garbage collector knows it, and what it does not know.

    It does not ask the object for its class: that may lie, and the proxy of what died raises.
    """
    yield from gc.get_referents(thing)
    kind = type(thing)
    if issubclass(kind, types.BuiltinMethodType):
        yield thing.__self__
    elif issubclass(kind, weakref.ReferenceType):
        yield thing()
    elif kind in weakref.ProxyTypes:
        yield referent_of(thing)
    elif issubclass(kind, contextvars.ContextVar):
        yield thing.get(None)
    elif issubclass(kind, threading.local):
        yield vars(thing)
    elif issubclass(kind, types.GeneratorType):
        if thing.gi_frame is not None:
            yield from thing.gi_frame.f_locals.values()
    elif getattr(getattr(thing, "dtype", None), "hasobject", False) is True:
        yield thing.tolist()  # an array of objects


def referent_of(proxy: Any) -> Any:
    """What a weak proxy stands for; None once that died."""
    with contextlib.suppress(ReferenceError):
        return proxy.__repr__.__self__
    return None
