"""Running things at the same moment: in threads of this process, and in real processes.

A racer process is forked from a fresh interpreter that holds no thread and no open ledger, so that
sixteen of them cost one start of Python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RACERS = 16
PATIENCE_S = 60


def race(*works: Callable[[], Any]) -> list[Any]:
    """Runs every work in a thread of its own, all at once; what one raised stands as its result."""
    results: list[Any] = [None] * len(works)
    start = threading.Barrier(len(works))

    def run(number: int) -> None:
        start.wait(PATIENCE_S)
        try:
            results[number] = works[number]()
        except Exception as error:  # judged by the test
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not any(thread.is_alive() for thread in threads), "a racer hangs"
    return results


def in_processes(work: str, *arguments: str, racers: int = RACERS) -> list[Any]:
    """Runs a function in many processes at once; returns what each returned, as JSON.

    Args:
        work: `module:function`; it is called with the racer's number and the arguments, after a
            first call of the module's `ready(*arguments)`, whose result it gets as `opened`.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.race.racers", work, str(racers), *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == racers, done.stderr
    return results


def _racer(work: str, number: int, arguments: Sequence[str], go: int, out: int) -> None:
    module_name, name = work.split(":")
    module = __import__(module_name, fromlist=[name])
    with module.ready(*arguments) as opened:
        os.write(out, b"ready\n")
        os.read(go, 1)
        result = getattr(module, name)(opened, number, *arguments)
    os.write(out, (json.dumps(result) + "\n").encode())  # shorter than a pipe's atomic write


def _main(work: str, racers: int, arguments: Sequence[str]) -> int:
    __import__(work.split(":")[0])  # once, before the forks
    go_read, go_write = os.pipe()
    out_read, out_write = os.pipe()
    pids = []
    for number in range(racers):
        pid = os.fork()
        if pid == 0:
            os.close(go_write)
            os.close(out_read)
            status = 0
            try:
                _racer(work, number, arguments, go_read, out_write)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
                status = 9
            os._exit(status)
        pids.append(pid)
    os.close(out_write)
    os.close(go_read)
    with os.fdopen(out_read) as lines:
        for _ in range(racers):
            if lines.readline() != "ready\n":
                break
        os.write(go_write, b"g" * racers)
        sys.stdout.write(lines.read())
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
