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
    """What an object holds, as the garbage collector knows it, and what it does not know."""
    yield from gc.get_referents(thing)
    if isinstance(thing, types.BuiltinMethodType):
        yield thing.__self__
    elif isinstance(thing, weakref.ReferenceType):
        yield thing()
    elif type(thing) in (weakref.ProxyType, weakref.CallableProxyType):
        with contextlib.suppress(ReferenceError):
            yield thing.__repr__.__self__
    elif isinstance(thing, contextvars.ContextVar):
        yield thing.get(None)
    elif isinstance(thing, threading.local):
        yield vars(thing)
    elif isinstance(thing, types.GeneratorType) and thing.gi_frame is not None:
        yield from thing.gi_frame.f_locals.values()
    elif getattr(getattr(thing, "dtype", None), "hasobject", False) is True:
        yield thing.tolist()  # an array of objects
