"""Roles: what a value of a tool means. One set, for arguments and for results.

A role says what the *tool* handles; the model always sees an asset id. It stands as metadata in a
type hint, `Annotated[str, Asset()]`, or beside its path in a Binding's `args=` and `result=`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

StageName = Literal["generate", "edit", "render", "review", "queue", "export"]
Form = Literal["path", "bytes", "base64", "data-url", "url", "blocks"]

ARGUMENT_FORMS = ("path", "bytes", "data-url", "base64")
RESULT_FORMS = (*ARGUMENT_FORMS, "url", "blocks")


class Role:
    """What a value means; one of the classes below."""

    def __str__(self) -> str:
        return f"{type(self).__name__}()"


@dataclass(frozen=True, slots=True)
class Asset(Role):
    """Media. In arguments an asset id comes in and `form` goes to the tool; in results the reverse.

    Args:
        form: what the tool handles; `url` and `blocks` are for results. None: by the type of the
            value, `bytes` or a `path`.
        folder: in results, where the tool leaves its files, if not at a path that it was given:
            only a file that is new since the call was claimed is taken, and only from there.
    """

    form: Form | None = None
    folder: str | Path | None = None

    __str__ = Role.__str__


@dataclass(frozen=True, slots=True)
class Text(Role):
    """Words: scanned, labelled, shown to approvers, logged redacted."""

    __str__ = Role.__str__


@dataclass(frozen=True, slots=True)
class Plain(Role):
    """A short value that is neither words, media nor place.

    Args:
        pattern: a regular expression for all of a string, such as `[0-9:]{8}`; without one, a
            string must not look like a path, a URL or a host.
    """

    pattern: str | None = None

    __str__ = Role.__str__


@dataclass(frozen=True, slots=True)
class Output(Role):
    """A fresh path that the guard fills in; hidden from the model.

    Args:
        suffix: of the file's name, such as `.png`. Without one it is that of the argument's
            default, else `.mp4` in the render stage and `.png` in others.
    """

    suffix: str = ""

    __str__ = Role.__str__


@dataclass(frozen=True, slots=True, init=False)
class To(Role):
    """Names the Destination.

    Args:
        values: Destination id → what the tool takes in its place, such as the name of a channel.
            None: the tool takes the id itself.
    """

    pairs: tuple[tuple[str, str], ...]  # hashable, as metadata of a type must be

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        object.__setattr__(self, "pairs", tuple((values or {}).items()))

    __str__ = Role.__str__


@dataclass(frozen=True, slots=True)
class Fixed(Role):
    """The developer's value: hidden from the model, shown to approvers, in the binding digest.

    Args:
        value: JSON data.
    """

    value: Any

    def __hash__(self) -> int:
        return hash(repr(self.value))

    def __str__(self) -> str:
        return f"Fixed({self.value!r})"


@dataclass(frozen=True, slots=True, init=False)
class OperationId(Role):
    """The id of work that goes on at a vendor: registered in a result, checked in an argument.

    Args:
        started_by: in arguments, the tool or tools whose results name such ids.
    """

    tools: tuple[str, ...]

    def __init__(self, started_by: str | Sequence[str] = ()) -> None:
        tools = (started_by,) if isinstance(started_by, str) else tuple(started_by)
        object.__setattr__(self, "tools", tools)

    __str__ = Role.__str__


@dataclass(frozen=True, slots=True)
class IdempotencyKey(Role):
    """The key of the call, filled in by the guard; sending again under it changes nothing."""

    __str__ = Role.__str__


@dataclass(frozen=True, slots=True)
class Findings(Role):
    """In results of the review stage: what the review says."""

    __str__ = Role.__str__


def role_of(mark: object) -> Role | None:
    """The role that a piece of metadata is; a role class without parentheses counts.

    Raises:
        TypeError: a class that needs a value, such as `Fixed`.
    """
    if isinstance(mark, Role):
        return mark
    if isinstance(mark, type) and issubclass(mark, Role) and mark is not Role:
        return mark()
    return None
