"""The arguments of one call, read once: frozen by its tool's schema, and looked through.

Nothing is repeated of them before they were searched for secrets (S7), so that no message and no
record can hold one.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sized
from typing import Any

from agentguard.bindings.argument_schema import replace_at
from agentguard.bindings.bound import Bound
from agentguard.calls.inherited_labels import concealed
from agentguard.calls.refused import Refused
from agentguard.canonical import digest
from agentguard.content.text.scan import (
    MAX_ACROSS,
    Scan,
    scan,
    secrets_across,
    texts_in_numbers,
)
from agentguard.model import ObstacleKind

ASSET_ID = re.compile(r"asset-[0-9a-f]{20}")

_TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SHORTEST_SECRET = 12
_SHORTEST_TEXT = 6
_MOST_VALUES = 1 << 20
"""A model writes a tree; a program that calls a tool by hand may hand in one that holds itself."""


class CallArguments:
    """What a model gave to a tool. It is read at first use, and what was read stays.

    Whoever changed what it returns would change it for everybody who has the same call.

    Args:
        bound: the tool's Binding.
        written: the arguments as the model wrote them, injected ones left out.
    """

    def __init__(self, bound: Bound, written: Mapping[str, Any]) -> None:
        self.bound = bound
        self.written = written
        self._scan: Callable[[str], Scan] = functools.cache(lambda text: scan(text))

    @functools.cached_property
    def frozen(self) -> Mapping[str, Any]:
        """The arguments as their Request holds them: JSON, with the defaults that will run.

        Raises:
            Refused: one holds a secret, is off the schema, or was never declared.
        """
        self._require_no_secret(self.written)
        try:
            frozen = self.bound.freeze(self.written)
        except ValueError as error:
            raise Refused(str(error), kind=ObstacleKind.ARGUMENTS) from None
        if frozen != self.written:  # its schema put defaults there
            self._require_no_secret(frozen)
        self._require_no_secret_across(self.written, frozen)
        return frozen

    @functools.cached_property
    def source(self) -> str:
        """What stands for the message of a call that no message holds.

        Raises:
            Refused: see `frozen`.
        """
        return digest("agentguard/call-content/v1", [self.bound.name, self.frozen])

    @property
    def labels(self) -> frozenset[str]:
        """The labels that its texts raise.

        Raises:
            Refused: see `frozen`.
        """
        return self._texts[0]

    @property
    def redacted(self) -> Mapping[str, Any]:
        """The arguments as they are logged.

        Raises:
            Refused: see `frozen`.
        """
        return self._texts[1]

    @functools.cached_property
    def _texts(self) -> tuple[frozenset[str], Mapping[str, Any]]:
        binding, frozen = self.bound.binding, self.frozen
        labels: set[str] = set()
        redacted: dict[str, Any] = json.loads(json.dumps(frozen))  # a copy of plain JSON

        def replace(path: str, value: Any) -> Any:
            if not isinstance(value, str):
                return value
            scanned = self._scan(value)  # it is not too long, and holds no secret: see above
            labels.update(scanned.labels)
            return scanned.redacted

        for path in (*binding.texts, *binding.plain):
            replace_at(redacted, path, replace)
        for text in _spelled(frozen):
            labels |= self._scan(text).labels
        concealed(self.bound, redacted)
        return frozenset(labels), redacted

    def _require_no_secret(self, arguments: Mapping[str, Any]) -> None:
        name, total = self.bound.name, 0
        try:
            texts = [*_strings(arguments), *_spelled(arguments)]
        except ValueError as error:
            raise Refused(f"{name}: {error}", kind=ObstacleKind.ARGUMENTS) from None
        for text in texts:
            total += len(text) + 1
            if total > MAX_ACROSS:
                raise Refused(
                    f"{name}: its arguments are longer than {MAX_ACROSS} characters; shorten them",
                    kind=ObstacleKind.ARGUMENTS,
                )
            if len(text) < _SHORTEST_SECRET or ASSET_ID.fullmatch(text):
                continue
            try:
                secrets = self._scan(text).secrets
            except ValueError as error:
                raise Refused(f"{name}: {error}", kind=ObstacleKind.TEXT) from None
            if secrets:
                raise Refused(
                    f"{name}: an argument holds a secret ({secrets[0]}); take it out and ask again",
                    kind=ObstacleKind.SECRET,
                )

    def _require_no_secret_across(self, *forms: Mapping[str, Any]) -> None:
        """No secret in pieces, one behind the other.

        Args:
            forms: the arguments in the model's order and in the schema's.
        """
        texts = {
            tuple(text for text in _strings(form, keys=False) if not ASSET_ID.fullmatch(text))
            for form in forms
        }
        for pieces in texts:
            if len(pieces) > 1 and (secrets := secrets_across(pieces)):
                raise Refused(
                    f"{self.bound.name}: its arguments hold a secret in pieces ({secrets[0]}); take"
                    " it out and ask again",
                    kind=ObstacleKind.SECRET,
                )


def secret_in(value: Any) -> str | None:
    """The kind of secret that the texts of a value hold; None without one.

    Raises:
        ValueError: a text is too long to be scanned.
    """
    for text in (*_strings(value), *_spelled(value)):
        if len(text) >= _SHORTEST_SECRET and (secrets := scan(text).secrets):
            return secrets[0]
    return None


def sayable(name: object) -> str:
    """A tool name that a model wrote, as it may be recorded: never a secret or a novel."""
    if isinstance(name, str) and _TOOL_NAME.fullmatch(name) and not scan(name).secrets:
        return name
    return "[unreadable name]"


def _spelled(arguments: Any) -> Iterator[str]:
    """What the numbers of a call spell, read as characters and as bytes."""
    numbers = list(_numbers_in(arguments))
    if len(numbers) < 2:
        return
    for text in texts_in_numbers(numbers):
        if len(text) >= _SHORTEST_TEXT:
            yield text


def _numbers_in(value: Any) -> Iterator[int | float]:
    """The numbers of JSON data in the order in which they stand.

    Raises:
        ValueError: it holds too many values, or itself.
    """
    pending, left = [value], _MOST_VALUES
    while pending:
        item, left = pending.pop(), _one_less(left, pending)
        if isinstance(item, (int, float)) and not isinstance(item, bool):
            if isinstance(item, int) or math.isfinite(item):
                yield item
        elif isinstance(item, Mapping):
            pending.extend(reversed([*item.values()]))
        elif isinstance(item, (list, tuple)):
            pending.extend(reversed(item))


def _strings(value: Any, *, keys: bool = True) -> Iterator[str]:
    """The texts in a value, in their order, with the keys of mappings or without.

    Raises:
        ValueError: it holds too many values, or itself.
    """
    pending, left = [value], _MOST_VALUES
    while pending:
        item, left = pending.pop(), _one_less(left, pending)
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            pending.extend((*reversed([*item.values()]), *(reversed([*item]) if keys else ())))
        elif isinstance(item, (list, tuple, set, frozenset)):
            pending.extend(reversed([*item]))


def _one_less(left: int, pending: Sized) -> int:
    if left == 0 or len(pending) > _MOST_VALUES:
        raise ValueError("its arguments hold too many values, or themselves; shorten them")
    return left - 1
