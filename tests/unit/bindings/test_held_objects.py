"""Whoever holds an object holds it for those who search, however it is kept."""

from __future__ import annotations

import contextvars
import functools
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentguard.bindings.held_objects import held_by


class Thing:
    """An object to find."""

    def method(self) -> None:
        """Be bound."""


class Slotted:
    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held


def local(thing: Any) -> threading.local:
    made = threading.local()
    made.thing = thing
    return made


def variable(thing: Any) -> contextvars.ContextVar[Any]:
    made: contextvars.ContextVar[Any] = contextvars.ContextVar("made")
    made.set(thing)
    return made


def generator(thing: Any) -> Iterator[Any]:
    def made() -> Iterator[Any]:
        kept = thing
        yield 1
        yield kept

    begun = made()
    next(begun)
    return begun


HOLDERS: dict[str, Callable[[Any], Any]] = {
    "a list": lambda thing: [thing],
    "a mapping": lambda thing: types.MappingProxyType({"a": thing}),
    "a slot": Slotted,
    "a bound method": lambda thing: thing.method,
    "a method of a container": lambda thing: [thing].append,
    "a partial": lambda thing: functools.partial(print, thing),
    "a weak reference": weakref.ref,
    "a proxy": weakref.proxy,
    "a value of this thread": local,
    "a context variable": variable,
    "a generator that has begun": generator,
}


@pytest.mark.parametrize("kind", HOLDERS)
def test_what_is_held_is_found(kind: str) -> None:
    thing = Thing()
    holder = HOLDERS[kind](thing)
    first = [*held_by(holder)]
    second = [each for one in first if type(one) in (dict, list, tuple) for each in held_by(one)]
    assert any(each is thing for each in (*first, *second))


def test_what_died_is_not_held() -> None:
    proxy = weakref.proxy(Thing())
    assert all(type(each) is not Thing for each in held_by(proxy))
