"""What a `postgresql://` ledger URL says: where it is, and how patient the guard is with it."""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

SQLITE = "sqlite:"
POSTGRES = "postgresql://"

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
# What libpq reads itself. Not `options`: the guard sets its own.
_LIBPQ = frozenset({
    "host", "hostaddr", "port", "user", "password", "dbname", "passfile", "application_name",
    "sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "sslnegotiation", "channel_binding",
    "require_auth", "gssencmode", "krbsrvname", "target_session_attrs", "load_balance_hosts",
    "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count",
    "tcp_user_timeout",
})  # fmt: skip
_OURS: dict[str, tuple[int, int]] = {
    "pool": (1, 100),
    "connect_timeout": (2, 300),
    "lock_timeout": (1, 300),
    "statement_timeout": (1, 3600),
}
"""Our parameters, as whole numbers from and to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerUrl:
    """A parsed URL.

    Args:
        conninfo: for libpq; it may hold a password, so it is never shown (S16).
        shown: the same without user, password or parameters.
        schema: the schema that holds the ledger's tables.
        pool: how many connections may read at once; one more writes, and one more sequences.
        connect_timeout: seconds to reach the server, or to wait for a free connection.
        lock_timeout: seconds to wait for what another transition holds.
        statement_timeout: seconds for one statement.
    """

    conninfo: str = field(repr=False)
    shown: str
    schema: str = "agentguard"
    pool: int = 8
    connect_timeout: int = 5
    lock_timeout: int = 5
    statement_timeout: int = 30

    @classmethod
    def parse(cls, url: str) -> LedgerUrl:
        """Read a URL.

        Raises:
            ValueError: it can't be used; the message repeats no part that may be secret.
        """
        if not url.startswith(POSTGRES):
            raise ValueError('expected "sqlite:FILE" (on disk) or "postgresql://..."')
        parts = urlsplit(url)
        # Else libpq takes a piece of the password for a host, and its errors show it.
        if parts.netloc.count("@") > 1 or "@" in parts.path or parts.fragment:
            raise ValueError("has a user or password with @, / or #; write %40, %2F, %23")
        try:
            pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        except ValueError:
            raise ValueError("has parameters that are not NAME=VALUE") from None
        given = dict(pairs)
        if len(given) != len(pairs):
            raise ValueError("names a parameter twice")
        unknown = sorted(given.keys() - _LIBPQ - _OURS.keys() - {"schema"})
        if unknown:
            known = ", ".join(["schema", *_OURS])
            raise ValueError(f"has an unknown parameter {unknown[0]!r:.40}; ours are {known}")
        schema = given.pop("schema", "agentguard")
        if not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
            raise ValueError("schema: expected a lower-case name such as agentguard")
        numbers = {
            name: _number(name, given.pop(name), *_OURS[name])
            for name in _OURS.keys() & given.keys()
        }
        host = parts.netloc.rpartition("@")[2] or given.get("host", "")
        query = f"?{urlencode(given)}" if given else ""  # geturl() drops an empty host's slashes
        return cls(
            conninfo=f"{POSTGRES}{parts.netloc}{parts.path}{query}",
            shown=f"{POSTGRES}{host}/{unquote(parts.path.lstrip('/'))}, schema {schema}",
            schema=schema,
            **numbers,
        )

    def key(self, *name: str) -> int:
        """The advisory lock of a name; a database may hold several ledgers."""
        return _key("agentguard", self.schema, *name)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no message may hold."""
        parts = urlsplit(self.conninfo)
        login = parts.netloc.rpartition("@")[0].partition(":")[2]
        found = {login, unquote(login), dict(parse_qsl(parts.query)).get("password", "")}
        return tuple(sorted(filter(None, found), key=len, reverse=True))


@functools.lru_cache(maxsize=4096)
def _key(*name: str) -> int:
    text = "\0".join(name).encode("utf-8")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big", signed=True)


def _number(name: str, text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text[:9]) <= most:
        raise ValueError(f"{name}: expected a whole number from {least} to {most}")
    return int(text)
