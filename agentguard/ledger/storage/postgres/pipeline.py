"""Statements on their way to PostgreSQL: sent one after the other, answered together.

psycopg connects, and knows PostgreSQL's errors and types. Statements go through libpq's pipeline
mode directly: that costs a tenth of a cursor's time, and who sends need not wait for each answer.
"""

from __future__ import annotations

import functools
import itertools
import re
import select
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

_PARAMETER = re.compile(r"'(?:[^']|'')*'|\?([0-9]*)")
_PREPARED = 256  # statements that one connection remembers
_SEEN = 1024  # statements that were sent once and may come again
_TEXT, _SMALLINT, _INT, _BIGINT, _BYTEA, _GUESS = 25, 21, 23, 20, 17, 0
_DONE = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)

_Load = Callable[[bytes], Any]
_Shape = tuple[dict[str, int], list[_Load]]


class PgRow:
    """A row by name, by position, or its values in order, as `sqlite3.Row` is."""

    __slots__ = ("_places", "_values")

    def __init__(self, places: dict[str, int], values: Sequence[Any]) -> None:
        self._places = places
        self._values = values

    def __getitem__(self, key: Any) -> Any:
        return self._values[self._places[key] if isinstance(key, str) else key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def keys(self) -> Sequence[str]:
        return list(self._places)


def places_of(columns: Iterable[str]) -> dict[str, int]:
    """Where each column is in a row; of two with one name, the first."""
    places: dict[str, int] = {}
    for number, name in enumerate(columns):
        places.setdefault(name, number)
    return places


@functools.lru_cache(maxsize=1024)
def numbered(sql: str) -> bytes:
    """The ledger's SQL for libpq: `?` and `?2` become `$1` and `$2`, as SQLite counts them."""
    last = 0

    def one(found: re.Match[str]) -> str:
        nonlocal last
        if found[1] is None:
            return found[0]  # a string
        number = int(found[1]) if found[1] else last + 1
        last = max(last, number)
        return f"${number}"

    return _PARAMETER.sub(one, sql).encode("utf-8")


class Sent:
    """A statement that was sent. Its rows can be had as soon as somebody wants them."""

    __slots__ = ("_error", "_rows", "_wire", "key", "new", "prepared", "status")

    def __init__(self, wire: Wire, key: Any, *, new: bytes | None) -> None:
        self._wire = wire
        self._rows: list[PgRow] | None = None
        self._error: BaseException | None = None
        self.key = key
        self.new = new
        self.prepared = False
        self.status = b""
        """What PostgreSQL calls what it did, such as COMMIT."""

    def rows(self) -> list[PgRow]:
        """Wait for it, and for all that was sent with it.

        Raises:
            psycopg.Error: it, or a statement before it, failed.
        """
        if self._rows is None:
            if self._error is None:
                self._wire.receive()
            if self._error is not None:
                raise self._error
        return self._rows or []

    def answer(self, rows: list[PgRow], status: bytes) -> None:
        self._rows, self.status = rows, status

    def fail(self, error: BaseException) -> None:
        self._error = error


class Wire:
    """Sends statements over one connection, and takes in what they answer.

    Args:
        raw: in autocommit; nothing else uses it between `send` and `receive`.
    """

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        self._raw = raw
        self._libpq = raw.pgconn
        self._sent: list[Sent] = []
        self._seen: set[Any] = set()
        self._prepared: dict[Any, bytes] = {}
        self._shapes: dict[Any, _Shape] = {}
        self._loads: dict[int, _Load] = {}
        self._names = itertools.count()

    def send(self, sql: str, parameters: Sequence[Any] = ()) -> Sent:
        """Send one statement and go on.

        Raises:
            psycopg.Error: the connection is lost.
        """
        types: list[int] = []
        data: list[bytes | None] = []
        for value in parameters:
            oid, written = _written(value)
            types.append(oid)
            data.append(written)
        key = (sql, *types)
        libpq = self._libpq
        try:
            if not self._sent:
                libpq.enter_pipeline_mode()
            sent = Sent(self, key, new=None)
            name = self._prepared.get(key)
            if name is None and key in self._seen and len(self._prepared) < _PREPARED:
                name = sent.new = self._prepared[key] = b"agentguard_%d" % next(self._names)
                libpq.send_prepare(name, numbered(sql), types)
            if name is not None:
                libpq.send_query_prepared(name, data)
            else:
                libpq.send_query_params(numbered(sql), data, types)
            self._sent.append(sent)
        except BaseException:
            self._give_up()
            raise
        return sent

    def receive(self) -> None:
        """Wait for the answers to everything that was sent.

        Raises:
            psycopg.Error: the first that failed; what was sent after it was not done.
        """
        if not self._sent:
            return
        sent, self._sent = self._sent, []
        failed: BaseException | None = None
        try:
            self._flush()
            for one in sent:
                failed = self._take(one, failed)
            self._expect(pq.ExecStatus.PIPELINE_SYNC)
            self._libpq.exit_pipeline_mode()
        except BaseException as error:  # noqa: BLE001 - nobody knows what the connection is in the middle of
            self._give_up()
            if failed is None or not isinstance(error, psycopg.Error):
                failed = error
        if failed is not None:
            for one in sent:
                if one.new is not None and not one.prepared:
                    del self._prepared[one.key]
                one.fail(failed)
            raise failed

    def _take(self, one: Sent, failed: BaseException | None) -> BaseException | None:
        """Take in one statement's answer; what failed first, until now."""
        for last in (True,) if one.new is None else (False, True):  # it was prepared first
            found = self._result()
            if found is None:
                raise psycopg.OperationalError("a statement got no answer")
            if found.status in _DONE and not last:
                one.prepared = True
            elif found.status in _DONE:
                one.answer(self._rows(one.key, found), found.command_status or b"")
            elif failed is None:
                failed = error_from_result(found, encoding="utf-8")
            if self._result() is not None:
                raise psycopg.OperationalError("a statement got two answers")
        if one.new is None:
            if len(self._seen) >= _SEEN:
                self._seen.clear()
            self._seen.add(one.key)
        return failed

    def _rows(self, key: Any, found: pq.abc.PGresult) -> list[PgRow]:
        if not found.nfields:
            return []
        shape = self._shapes.get(key) if key in self._prepared else None
        if shape is None:
            shape = self._shape(found)
            if key in self._prepared:
                self._shapes[key] = shape
        places, loads = shape
        get = found.get_value
        columns = list(enumerate(loads))
        rows = []
        for number in range(found.ntuples):
            values: list[Any] = []
            for column, load in columns:
                value = get(number, column)
                values.append(None if value is None else load(value))
            rows.append(PgRow(places, values))
        return rows

    def _shape(self, found: pq.abc.PGresult) -> _Shape:
        columns = range(found.nfields)
        places = places_of((found.fname(number) or b"").decode("utf-8") for number in columns)
        return places, [self._load(found.ftype(number)) for number in columns]

    def _load(self, oid: int) -> _Load:
        load = self._loads.get(oid)
        if load is None:
            adapters = self._raw.adapters
            loader = adapters.get_loader(oid, pq.Format.TEXT) or adapters.get_loader(
                _TEXT, pq.Format.TEXT
            )
            assert loader is not None  # noqa: S101 - psycopg knows text
            load = self._loads[oid] = loader(oid, self._raw).load
        return load

    def _flush(self) -> None:
        self._libpq.pipeline_sync()
        if not self._libpq.flush():
            return
        poll = select.poll()
        poll.register(self._libpq.socket, select.POLLIN | select.POLLOUT)
        while self._libpq.flush():
            poll.poll()
            self._libpq.consume_input()  # it may wait for us to listen before it listens

    def _result(self) -> pq.abc.PGresult | None:
        libpq = self._libpq
        if libpq.is_busy():
            poll = select.poll()
            poll.register(libpq.socket, select.POLLIN)
            while libpq.is_busy():
                poll.poll()
                libpq.consume_input()
        return libpq.get_result()

    def _expect(self, status: pq.ExecStatus) -> None:
        found = self._result()
        if found is None or found.status != status:
            raise psycopg.OperationalError("the connection is out of step")

    def _give_up(self) -> None:
        self._sent = []
        self._raw.close()


def _written(value: Any) -> tuple[int, bytes | None]:
    """A parameter's type and its text."""
    if isinstance(value, str):  # enums are text; PostgreSQL's text has no NUL
        return _TEXT, str.__str__(value).replace("\0", "\ufffd").encode("utf-8")
    if value is None:
        return _GUESS, None
    if isinstance(value, int):  # functions such as substr take no bigint
        oid = _SMALLINT if -(2**15) <= value < 2**15 else _INT if -(2**31) <= value < 2**31 else 0
        return oid or _BIGINT, b"%d" % value
    if isinstance(value, bytes):
        return _BYTEA, b"\\x" + value.hex().encode("ascii")
    if isinstance(value, list):  # the statement says of what
        return _GUESS, b"{" + b",".join(_element(one) for one in value) + b"}"
    raise psycopg.ProgrammingError(f"a parameter: got a {type(value).__name__}")


def _element(value: Any) -> bytes:
    _, written = _written(value)
    if written is None:
        return b"NULL"
    if isinstance(value, int):
        return written
    return b'"' + written.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
