"""A log of a million records: proofs, and `agentguard audit verify` with the memory it takes.

Its records are those of permitted calls: three for a call, on a request, a grant and an outcome of
its own, so that verifying it compares as many rows as there are records.
"""

from __future__ import annotations

import functools
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from agentguard.ledger.open import checkpoints_of
from agentguard.ledger.storage.open import at_once
from agentguard.ledger.verify import prove
from agentguard.transparency import merkle
from bench.figures import TIMES, Figure
from bench.longlog import write_log
from bench.rounds import Scale, p, timed
from bench.studio import open_guard, write_workspace

_PROOF_MS, _VERIFY_S, _FLAT = 1.0, 60.0, 1.5


def measure(scale: Scale) -> list[Figure]:
    """Proofs of the long log, and both logs verified in processes of their own."""
    small, large = scale.of(100_000, 200), scale.of(1_000_000, 1_000)
    figures: list[Figure] = []
    found = []
    for records in (small, large):
        with tempfile.TemporaryDirectory(prefix="agentguard-bench-") as name:
            folder = Path(name)
            write_workspace(folder)
            write_log(folder, records, functools.partial(_say_size, scale, records))
            if records == large:
                scale.say("log: proofs")
                figures += _proofs(folder, large, scale.of(1000, 50))
            scale.say(f"log: verifying {records:,} records")
            found.append(_verified(folder))
    one, two = found
    figures += [
        Figure(
            subject="log", what=f"audit verify, {large:,} records", value=two["took"], unit="s",
            aim=_VERIFY_S, detail=f"{two['cpu']:.1f} s CPU, {two['rows']:,} rows;"
            f" {small:,} records: {one['took']:.1f} s",
        ),
        Figure(
            subject="log", what=f"memory of audit verify, {large:,} ÷ {small:,} records",
            value=two["peak"] / one["peak"], unit=TIMES, aim=_FLAT,
            detail=f"{one['peak'] / 2**20:.0f} → {two['peak'] / 2**20:.0f} MB at most",
        ),
    ]  # fmt: skip
    return figures


def _say_size(scale: Scale, records: int, size: int) -> None:
    scale.say(f"log: wrote {size:,} of {records:,} records")


def _proofs(folder: Path, records: int, count: int) -> list[Figure]:
    dice = random.Random(records)
    indexes = [dice.randrange(records) for _ in range(count)]
    with open_guard(folder) as guard:
        storage, checkpoints = guard.ledger.storage, checkpoints_of(guard.workspace)
        proofs = [timed(lambda i=i: prove(storage, checkpoints, i)) for i in indexes]  # type: ignore[misc]
        with storage.read() as connection:
            size = storage.tree_size()

            def path(index: int) -> tuple[bytes, ...]:
                return at_once(
                    connection, lambda hashes: merkle.inclusion_proof(hashes, index, size)
                )

            def root() -> bytes:
                return at_once(connection, lambda hashes: merkle.root(hashes, size))

            paths = [timed(lambda i=i: path(i)) for i in indexes]  # type: ignore[misc]
            roots = [timed(root) for _ in indexes]
    return [
        Figure(
            subject="log", what=f"inclusion proof of a random record of {records:,}, p50",
            value=p(50, proofs), unit="ms", aim=_PROOF_MS,
            detail=f"p99 {p(99, proofs):.2f} ms; signed, verified; its path alone"
                   f" {p(50, paths):.3f} ms",
        ),
        Figure(
            subject="log", what=f"root of {records:,} records, p50", value=p(50, roots), unit="ms"
        ),
    ]  # fmt: skip


def _verified(folder: Path) -> dict[str, Any]:
    """Verify in a fresh process; the time and CPU in s, the rows, the memory added in bytes."""
    command = [sys.executable, "-m", "bench.log", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """The process that verifies; prints what it found as JSON."""
    with open_guard(Path(sys.argv[1])) as guard:
        before = peak()
        began, spent = time.perf_counter(), time.process_time()
        report = guard.verify()
        took, cpu = time.perf_counter() - began, time.process_time() - spent
    added = max(peak() - before, 1)
    print(json.dumps({"took": took, "cpu": cpu, "rows": report.rows, "peak": added}))


def peak() -> int:
    """The most memory this process ever had, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts what the parent had before it became this process
        (line,) = (one for one in status.read_text().splitlines() if one.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main()
