"""The Merkle tree's hashes as rows, for `agentguard.merkle`."""

from __future__ import annotations

from agentguard._writer import Reader
from agentguard.errors import LedgerCorrupt


class Nodes:
    """Reads and adds one hash at a time.

    Args:
        connection: to put, one that writes.
    """

    def __init__(self, connection: Reader) -> None:
        self._connection = connection

    def get(self, level: int, index: int) -> bytes:
        row = self._connection.execute(
            "SELECT hash FROM nodes WHERE level = ? AND idx = ?", (level, index)
        ).fetchone()
        if row is None or not isinstance(row[0], bytes):
            raise LedgerCorrupt(f"the log lacks node {level}/{index}; restore it from a copy")
        return row[0]

    def put(self, level: int, index: int, value: bytes) -> None:
        self._connection.execute("INSERT INTO nodes VALUES (?, ?, ?)", (level, index, value))
