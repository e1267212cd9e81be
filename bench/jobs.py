"""Ten thousand open jobs in one process: memory, and what opening and keeping them costs.

One thread renews every lease; each job here also holds a credential, as a job that works does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from agentguard.model import Stage
from bench.figures import Figure
from bench.rounds import Scale
from bench.studio import KIM, studio


def measure(scale: Scale) -> list[Figure]:
    """Run the jobs in a process of their own, so that nothing else is in its memory."""
    count = scale.of(10_000, 300)
    scale.say(f"jobs: {count:,} open jobs")
    command = [sys.executable, "-m", "bench.jobs", str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)

    def figure(what: str, value: float, unit: str, detail: str = "") -> Figure:
        return Figure(subject="jobs", what=what, value=value, unit=unit, detail=detail)

    each = found["bytes"] / count
    share = found["renewing"] / found["interval"]
    return [
        figure(f"memory of {count:,} open jobs", found["bytes"] / 2**20, "MB",
               f"{each / 1024:.2f} kB a job; the process without them {found['before'] >> 20} MB"),
        figure("opening jobs, each with a credential", count / found["opening"], "/s"),
        figure(f"renewing {count:,} leases once", found["renewing"], "s",
               f"every {found['interval']:.0f} s: {share:.0%} of one thread's time"),
        figure("leases kept while all of them were opened", found["kept"], ""),
        figure("threads that renew leases", found["threads"], "", "whatever the number of jobs"),
        figure("leaving jobs", found["left"] / found["leaving"], "/s"),
    ]  # fmt: skip


def main() -> None:
    """The process with the jobs; prints what it found as JSON."""
    import threading

    count = int(sys.argv[1])
    with studio() as place:
        guard = place.guard
        editor = guard.workspace.agents["editor"]
        with guard.open_job("warm", requested_by=KIM) as warm:
            warm.credential(editor, Stage.EDIT)
        before = _resident()
        began = time.perf_counter()
        jobs = [guard.open_job("bench", requested_by=KIM) for _ in range(count)]
        for job in jobs:
            job.credential(editor, Stage.EDIT)
        opened = time.perf_counter()
        after = _resident()
        guard.jobs.renew()
        renewed = time.perf_counter()
        now = guard.ledger.clock()
        row = guard.ledger.one("SELECT count(*) AS kept FROM leases WHERE until > ?", now)
        names = [thread.name for thread in threading.enumerate()]
        for job in jobs[:500]:
            with job:
                pass
        left = time.perf_counter()
    found = {
        "before": before,
        "bytes": after - before,
        "opening": opened - began,
        "renewing": renewed - opened,
        "interval": guard.workspace.lifetimes.lease / 3000,
        "kept": row["kept"] if row is not None else 0,
        "threads": names.count("agentguard-leases"),
        "left": len(jobs[:500]),
        "leaving": left - renewed,
    }
    print(json.dumps(found))


def _resident() -> int:
    """This process's resident memory in bytes; where /proc is missing, its peak."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
