"""The numbered migrations of a PostgreSQL ledger, and whether a schema is what they create.

What they create is found out by running them, in a schema of another name that is rolled back:
the catalogue's own words then differ in nothing but that name, whatever the server's version.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence

from agentguard.config.ledger_url import LedgerUrl
from agentguard.errors import LedgerCorrupt
from agentguard.ledger.storage.base import Reader
from agentguard.ledger.storage.migrations import grouped, migrations_of, require_same, schema_number
from agentguard.ledger.storage.postgres.connections import Link

_CATALOGUE = r"""
WITH here AS (SELECT oid FROM pg_namespace WHERE nspname = ?)
SELECT CASE relkind WHEN 'r' THEN 'table' WHEN 'i' THEN 'index' WHEN 'v' THEN 'view'
    WHEN 'S' THEN 'sequence' ELSE 'relation' END || ' ' || relname AS name,
  CASE relkind WHEN 'i' THEN pg_get_indexdef(c.oid) || ' ' || (SELECT concat_ws(' ', indisvalid,
      indisready, indislive, indisunique) FROM pg_index WHERE indexrelid = c.oid)
    WHEN 'v' THEN pg_get_viewdef(c.oid)
    ELSE concat_ws(' ', relkind, relpersistence, relrowsecurity, relforcerowsecurity,
      relispartition, (SELECT amname FROM pg_am a WHERE a.oid = relam),
      (SELECT concat_ws(' ', seqstart, seqincrement, seqmin, seqmax, seqcycle) FROM pg_sequence
        WHERE seqrelid = c.oid),
      (SELECT string_agg(inhparent::regclass::text, ' ') FROM pg_inherits
        WHERE inhrelid = c.oid),
      (SELECT string_agg(inhrelid::regclass::text, ' ') FROM pg_inherits
        WHERE inhparent = c.oid),
      (SELECT string_agg(concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull,
          attidentity, attgenerated, attcollation::regcollation,
          (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef
             WHERE adrelid = attrelid AND adnum = attnum)), ', ' ORDER BY attnum)
        FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped))
  END AS text
FROM pg_class c WHERE relnamespace IN (TABLE here) AND relkind <> 'c'
UNION ALL
SELECT 'constraint ' || conname, conrelid::regclass::text || ' ' || pg_get_constraintdef(oid)
  || convalidated FROM pg_constraint WHERE connamespace IN (TABLE here)
UNION ALL
SELECT 'trigger ' || tgname, pg_get_triggerdef(t.oid) || ' ' || tgenabled::text
  FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid WHERE relnamespace IN (TABLE here)
UNION ALL
SELECT 'rule ' || rulename, pg_get_ruledef(r.oid) || ' ' || ev_enabled::text
  FROM pg_rewrite r JOIN pg_class c ON c.oid = ev_class
  WHERE relnamespace IN (TABLE here) AND NOT (relkind = 'v' AND rulename = '_RETURN')
UNION ALL
SELECT 'policy ' || polname, concat_ws(' ', polrelid::regclass, polcmd, polpermissive, polroles,
    pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
  FROM pg_policy JOIN pg_class c ON c.oid = polrelid WHERE relnamespace IN (TABLE here)
UNION ALL
SELECT 'function ' || proname, CASE WHEN prokind IN ('f', 'p') THEN pg_get_functiondef(oid)
    ELSE prokind::text END FROM pg_proc WHERE pronamespace IN (TABLE here)
UNION ALL
SELECT 'object ' || i.type || ' ' || i.identity, ''
  FROM pg_depend d, pg_identify_object(d.classid, d.objid, 0) i
  WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid IN (TABLE here)
    AND i.type NOT IN ('default acl', 'publication namespace', 'statistics object')
"""
# Whatever else a schema holds (operators, types, casts to them, aggregates) is in the last part by
# its name: PostgreSQL may prefer an operator or function there to its own.

_EVENT_TRIGGER = "SELECT min(evtname) AS name FROM pg_event_trigger WHERE evtenabled <> 'D'"


def prepare(link: Link, place: LedgerUrl) -> Mapping[str, str]:
    """Bring a ledger to this version's schema and verify it, or leave it as it was.

    Returns:
        What the migrations create, for `verify_schema`.

    Raises:
        LedgerCorrupt: a newer version wrote it, or it is not what the migrations create.
    """
    migrations = migrations_of("postgres")
    newest = migrations[-1][0]
    link.execute("BEGIN ISOLATION LEVEL READ COMMITTED")  # it sees what it waited for
    try:
        if _version(link, place, newest) < newest:
            # Whoever comes first makes it; the others wait here, and find it made.
            link.execute("SELECT pg_advisory_xact_lock(?)", (place.key("migrations"),))
        version = _version(link, place, newest)
        if version == 0:
            link.execute(f'CREATE SCHEMA IF NOT EXISTS "{place.schema}"')
        for number, script in migrations:
            if number > version:
                link.script(script)
        if version < newest:
            link.execute(
                "INSERT INTO meta VALUES ('schema', ?) ON CONFLICT (key) DO UPDATE"
                " SET value = excluded.value",
                (str(newest),),
            )
        expected = _expected(link, [script for _, script in migrations])
        link.execute(f"SET LOCAL {_path(place.schema)}")
        verify_schema(link, place, expected)
        if version < newest:
            link.commit()
    finally:
        if not link.lost and link.raw.info.transaction_status:
            link.execute("ROLLBACK")
    return expected


def verify_schema(reader: Reader, place: LedgerUrl, expected: Mapping[str, str]) -> None:
    """Compare all that the schema holds, and look for what acts on it from outside.

    Args:
        expected: what `prepare` returned.

    Raises:
        LedgerCorrupt: naming the first object that is missing, added or different.
    """
    require_same(expected, _found(reader, place.schema))
    row = reader.execute(_EVENT_TRIGGER).fetchone()
    if row["name"] is not None:
        raise LedgerCorrupt(
            f"event trigger {row['name']} acts on all of this database, and can change what is"
            " created or who reads it; keep the ledger in a database of its own"
        )


def _expected(link: Link, scripts: Sequence[str]) -> Mapping[str, str]:
    name = f"agentguard_expected_{secrets.token_hex(8)}"
    link.script(f"SAVEPOINT expected; CREATE SCHEMA {name}; SET LOCAL {_path(name)}")
    for script in scripts:
        link.script(script)
    found = _found(link, name)
    link.execute("ROLLBACK TO SAVEPOINT expected")
    return found


def _found(reader: Reader, schema: str) -> Mapping[str, str]:
    own = re.compile(rf"\"?\b{schema}\b\"?\.|'{schema}'")
    rows = reader.execute(_CATALOGUE, (schema,)).fetchall()
    return grouped((own.sub("", row["name"]), own.sub("", row["text"] or "")) for row in rows)


def _path(schema: str) -> str:
    return f'search_path = "{schema}", pg_temp'


def _version(link: Link, place: LedgerUrl, newest: int) -> int:
    known = link.execute("SELECT to_regclass(?)", (f'"{place.schema}".meta',)).fetchone()
    return 0 if known is None or known[0] is None else schema_number(link, newest)
