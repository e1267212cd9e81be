"""A question to the ledger: a statement, its parameters, and the type that its rows come back as.

Whoever reads asks `reads.first(query)` or `reads.rows(query)`: of the ledger as it is now, of a
snapshot, or inside a transition. A Plan can name the same Query before its transition runs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Row(Protocol):
    """One row: by name, by position, or its values in order; `dict(row)` works."""

    def __getitem__(self, key: Any, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...

    def keys(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Query(Generic[T_co]):
    """What is asked. Made by the functions in `agentguard.ledger.queries`.

    Args:
        sql: one text for every database, see `Tx`.
        parameters: its values, in their order.
        decode: makes a row what the caller gets.
    """

    sql: str
    parameters: tuple[Any, ...]
    decode: Callable[[Row], T_co]


class Reads(ABC):
    """Rows to read: of a Ledger as it is now, of a snapshot of it, or inside a transition."""

    @abstractmethod
    def one(self, sql: str, *parameters: Any) -> Row | None:
        """The first row of a statement, or None."""

    @abstractmethod
    def all(self, sql: str, *parameters: Any) -> list[Row]:
        """Every row of a statement."""

    def first(self, query: Query[T]) -> T | None:
        """The first row of a query, or None."""
        row = self.one(query.sql, *query.parameters)
        return None if row is None else query.decode(row)

    def rows(self, query: Query[T]) -> list[T]:
        """Every row of a query."""
        return [query.decode(row) for row in self.all(query.sql, *query.parameters)]
