"""Whether every index of a ledger finds exactly the rows of its table, and no unique key is twice.

PostgreSQL believes its indexes: a row that the unique index of grants leaves out is no Grant to
anybody who looks for it, and is written anew (I8). The extension amcheck compares them where it is
installed and may be called. Elsewhere each key is looked up, and each index is read from either
end. Tables are read whole by `TABLESAMPLE SYSTEM (100)`, which uses no index.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentguard.errors import LedgerCorrupt, LedgerUnavailable
from agentguard.ledger.storage.postgres.connections import Link

_INDEXES = r"""
SELECT quote_ident(x.relname) AS name, x.relname AS plain, quote_ident(t.relname) AS of_table,
  i.indisunique AS is_unique, pg_get_expr(i.indpred, i.indrelid) AS predicate,
  (SELECT string_agg(pg_get_indexdef(i.indexrelid, n, true), E'\n' ORDER BY n)
     FROM generate_series(1, i.indnkeyatts) AS n) AS keys,
  (SELECT string_agg(pg_index_column_has_property(i.indexrelid, n, 'desc')::int::text, ''
     ORDER BY n) FROM generate_series(1, i.indnkeyatts) AS n) AS descending
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
WHERE t.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = ?)
  AND t.relkind = 'r' ORDER BY t.relname, x.relname
"""

_AMCHECK = """
SELECT p.oid::regproc::text AS name FROM pg_proc p
JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
WHERE e.extname = 'amcheck' AND p.proname = 'bt_index_check' AND p.pronargs = 2
  AND has_function_privilege(p.oid, 'EXECUTE')
"""

_BY_INDEX = """
SELECT set_config(name, 'off', true) FROM pg_settings WHERE name IN ('enable_seqscan',
  'enable_bitmapscan', 'enable_indexonlyscan', 'enable_sort', 'enable_incremental_sort',
  'enable_hashjoin', 'enable_mergejoin', 'jit')
UNION ALL SELECT set_config('max_parallel_workers_per_gather', '0', true)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    """An index: its keys as SQL, and whether each is kept in descending order."""

    name: str
    plain: str
    table: str
    unique: bool
    where: str
    keys: Sequence[str]
    descending: Sequence[bool]


def verify_indexes(link: Link, schema: str) -> None:
    """Compare every index with its table, and look for unique keys that two rows have.

    Args:
        link: in a transaction that sees one moment.

    Raises:
        LedgerCorrupt: naming the first index that leaves out or adds a row, or a key that is twice.
        LedgerUnavailable: an index can't be compared.
    """
    link.execute("SET LOCAL statement_timeout = 0")
    found = link.execute(_AMCHECK).fetchone()
    indexes = [
        _Index(
            name=row["name"],
            plain=row["plain"],
            table=row["of_table"],
            unique=row["is_unique"],
            where=f"WHERE {row['predicate']}" if row["predicate"] else "",
            keys=row["keys"].split("\n"),
            descending=[one == "1" for one in row["descending"]],
        )
        for row in link.execute(_INDEXES, (schema,)).fetchall()
    ]
    for index in indexes:
        if index.unique:
            _require_unique(link, index)
    if found is not None:
        for index in indexes:
            link.execute(f"SELECT {found['name']}(?::regclass, true)", (index.name,))
        return
    link.execute(_BY_INDEX)
    for index in indexes:
        _look_up(link, index)
        _read_through(link, index)


def _require_unique(link: Link, index: _Index) -> None:
    keys = ", ".join(index.keys)
    twice = link.execute(
        f"SELECT 1 FROM {index.table} TABLESAMPLE SYSTEM (100) {index.where}"
        f" GROUP BY {keys} HAVING count(*) > 1 LIMIT 1"
    ).fetchone()
    if twice is not None:
        raise LedgerCorrupt(
            f"{index.table} has two rows of one {keys}, which {index.name} should refuse: rows were"
            " written past it; restore a copy"
        )


def _look_up(link: Link, index: _Index) -> None:
    """Go down to every key that a row has, as the ledger does: what comes there first has it."""
    # Only this index gives rows in this order, so that no other one is asked. Its columns are
    # compared as one row, unless it keeps some of them the other way round.
    keys = index.keys if len(set(index.descending)) == 1 else index.keys[:1]
    onwards = "<=" if index.descending[0] else ">="
    sql = (
        f"SELECT 1 FROM (SELECT DISTINCT {', '.join(keys)} FROM {index.table}"
        f" TABLESAMPLE SYSTEM (100) {index.where}) AS k LEFT JOIN LATERAL"
        f" (SELECT {_of('b', keys)} FROM {index.table} AS b {index.where or 'WHERE true'}"
        f" AND ({_of('b', keys)}) {onwards} ({_of('k', keys)})"
        f" ORDER BY {_order(index, 'b.')} LIMIT 1) AS found ON true"
        f" WHERE ROW({_of('found', keys)}) IS DISTINCT FROM ROW({_of('k', keys)}) LIMIT 1"
    )
    _require_used(link, sql, index)
    if link.execute(sql).fetchone() is not None:
        raise LedgerCorrupt(
            f"index {index.name} of {index.table} does not find a row by its {', '.join(keys)}:"
            " the index was damaged or edited; restore a copy"
        )


def _read_through(link: Link, index: _Index) -> None:
    """Read the index from either end: it leads to every row once, in the order of its keys."""
    keys = index.keys if len(set(index.descending)) == 1 else index.keys[:1]
    row = link.execute(
        f"SELECT count(*) FROM {index.table} TABLESAMPLE SYSTEM (100) {index.where}"
    ).fetchone()
    rows = int(row[0])
    before = [f"before_{number}" for number, _ in enumerate(keys)]
    lags = [f"lag({key}) OVER () AS {name}" for key, name in zip(keys, before, strict=True)]
    for backward in (False, True):
        after = "<" if index.descending[0] is not backward else ">"
        sql = (
            "SELECT count(*), count(DISTINCT there),"
            f" count(*) FILTER (WHERE ({', '.join(before)}) {after} ({', '.join(keys)}))"
            f" FROM (SELECT *, {', '.join(lags)}"
            f" FROM (SELECT ctid AS there, {', '.join(index.keys)} FROM {index.table} {index.where}"
            f" ORDER BY {_order(index, backward=backward)}) AS entries) AS entries"
        )
        _require_used(link, sql, index)
        found, distinct, misplaced = link.execute(sql).fetchone()
        if (found, distinct, misplaced) != (rows, rows, 0):
            raise LedgerCorrupt(
                f"index {index.name} leads to {distinct} rows, {misplaced} of them misplaced, and"
                f" {index.table} has {rows}: the index was damaged or edited; restore a copy"
            )


def _of(alias: str, keys: Sequence[str]) -> str:
    return ", ".join(f"{alias}.{key}" for key in keys)


def _order(index: _Index, prefix: str = "", *, backward: bool = False) -> str:
    return ", ".join(
        f"{prefix}{key} {'DESC' if down is not backward else 'ASC'}"
        for key, down in zip(index.keys, index.descending, strict=True)
    )


def _require_used(link: Link, sql: str, index: _Index) -> None:
    """Raise LedgerUnavailable unless a query reads its table whole, and by this index alone."""
    row = link.execute(f"EXPLAIN (FORMAT JSON) {sql}").fetchone()
    plan = json.loads(row[0]) if isinstance(row[0], str) else row[0]
    if _read_by(plan[0]["Plan"]) != {index.plain}:
        raise LedgerUnavailable(
            f"index {index.name} can't be compared with {index.table} on this server; CREATE"
            " EXTENSION amcheck, and let the ledger's user execute bt_index_check"
        )


def _read_by(node: dict[str, Any]) -> set[str]:
    found = {str(node["Index Name"])} if "Index Name" in node else set()
    if node["Node Type"] in ("Seq Scan", "Bitmap Heap Scan"):
        found.add(node["Node Type"])
    return found.union(*(_read_by(child) for child in node.get("Plans", ())))
