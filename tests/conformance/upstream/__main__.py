"""Run upstream's tests over plain tools, then over guarded ones, and compare test by test.

    python -m tests.conformance.upstream [--cache FOLDER]

Exits with 0 only if every test passes over plain tools and, but for the list in `deviations.py`,
over guarded ones. Needs the dependency group `conformance`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.upstream.deviations import DEVIATIONS, Deviation
from tests.conformance.upstream.sources import (
    SOURCES,
    Source,
    SourceError,
    fetch,
    require_installed,
    unpack,
)

_PLUGINS = Path(__file__).with_name("plugins")
_ROOT = Path(__file__).parents[3]
# Upstream's own settings, without those that only change what is printed.
_SETTINGS = """[pytest]
asyncio_mode = auto
markers =
    requires: mark tests as requiring a specific library
    scheduled: mark tests to run in scheduled testing
    compile: mark placeholder test used to compile integration tests without running them
    benchmark: mark benchmark tests
"""

# A refused tool makes some of upstream's agents ask for it for ever.
_MAX_SECONDS = 1_200
_MAX_BYTES = 6 * 2**30

Outcomes = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One source's tests over plain and over guarded tools."""

    source: Source
    plain: Outcomes
    guarded: Outcomes
    deviations: tuple[Deviation, ...]
    problems: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.upstream")
    parser.add_argument("--cache", type=Path, default=_cache(), help="where sdists are kept")
    cache: Path = parser.parse_args(arguments).cache
    done: list[Compared] = []
    try:
        for source in SOURCES:
            require_installed(source)
            with tempfile.TemporaryDirectory(prefix="agentguard-conformance-") as folder:
                tests = unpack(source, fetch(source, cache), Path(folder))
                plain = _run(source, tests, guarded=False)
                guarded = _run(source, tests, guarded=True)
            done.append(_compare(source, plain, guarded))
    except SourceError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 1
    return 1 if _report(done) else 0


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "agentguard"


def _run(source: Source, tests: Path, *, guarded: bool) -> Outcomes:
    """Run the tests in a process of their own: their package, too, is called `tests`.

    Raises:
        SourceError: pytest could not run them.
    """
    print(
        f"{source.project} {source.version}, {'guarded' if guarded else 'plain'} tools", flush=True
    )
    (tests / "pytest.ini").write_text(_SETTINGS, "utf-8")
    outcomes = tests / "outcomes.json"
    plugins = ["agentguard_outcomes", *(["agentguard_shim"] if guarded else [])]
    try:
        ran = subprocess.run(
            [
                sys.executable, "-m", "pytest", "-c", "pytest.ini", "--quiet", "--no-header",
                "--disable-socket", "--allow-unix-socket",  # as upstream's Makefile does
                "-W", "ignore", "-p", "no:cacheprovider", f"--outcomes={outcomes}",
                *(part for name in plugins for part in ("-p", name)),
                *(part for test in source.deselect for part in ("--deselect", test)),
                source.tests,
            ],
            cwd=tests,
            env=os.environ | {
                "PYTHONPATH": f"{_PLUGINS}{os.pathsep}{_ROOT}",
                "LANGGRAPH_TEST_FAST": "true",  # in memory, no database server
                "LANGSMITH_TRACING": "false",
            },
            preexec_fn=_limit,
            timeout=_MAX_SECONDS,
            check=False,
            capture_output=True,
            text=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"pytest did not finish in {_MAX_SECONDS} s") from error
    if ran.returncode not in (0, 1) or not outcomes.exists():
        raise SourceError(f"pytest could not run:\n{ran.stdout[-4000:]}\n{ran.stderr[-4000:]}")
    if guarded:
        said = [line for line in ran.stdout.splitlines() if line.startswith("guarded tools:")]
        print("  " + "\n  ".join(said))
    found: Outcomes = json.loads(outcomes.read_text("utf-8"))
    outcomes.unlink()
    return found


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (_MAX_BYTES, _MAX_BYTES))


def _compare(source: Source, plain: Outcomes, guarded: Outcomes) -> Compared:
    listed = {deviation.test: deviation for deviation in DEVIATIONS}
    met: list[Deviation] = []
    problems: list[str] = []
    if not any(one["outcome"] == "passed" for one in plain.values()):
        problems.append("no test passed over plain tools")
    for test in sorted(set(plain) | set(guarded)):
        before = plain.get(test, {"outcome": "missing", "text": ""})
        after = guarded.get(test, {"outcome": "missing", "text": ""})
        known = listed.get(test)
        if before["outcome"] == "failed":
            problems.append(f"{test} fails over plain tools:\n{_tail(before['text'])}")
        elif known is not None and after["outcome"] == "failed" and known.shows in after["text"]:
            met.append(known)
        elif known is not None:
            problems.append(
                f"{test} is listed as a deviation; got {after['outcome']}, expected a failure with"
                f" {known.shows!r}:\n{_tail(after['text'])}"
            )
        elif before["outcome"] != after["outcome"]:
            problems.append(
                f"{test}: {before['outcome']} over plain tools, {after['outcome']} over guarded"
                f" ones:\n{_tail(after['text'])}"
            )
    return Compared(
        source=source,
        plain=plain,
        guarded=guarded,
        deviations=tuple(met),
        problems=tuple(problems),
    )


def _tail(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines()[-25:])


def _count(outcomes: Outcomes, outcome: str) -> int:
    return sum(1 for one in outcomes.values() if one["outcome"] == outcome)


def _report(done: Sequence[Compared]) -> int:
    """Print the table and what is behind it; returns the number of problems."""
    print(f"\n{'upstream tests':32}{'plain':>8}{'guarded':>9}{'skipped':>9}{'deviate':>9}"
          f"{'not run':>9}")  # fmt: skip
    for one in done:
        print(f"{one.source.project + ' ' + one.source.version:32}"
              f"{_count(one.plain, 'passed'):8}{_count(one.guarded, 'passed'):9}"
              f"{_count(one.guarded, 'skipped'):9}{len(one.deviations):9}"
              f"{len(one.source.deselect):9}")  # fmt: skip
    for one in done:
        for deviation in one.deviations:
            print(f"\ndeviates: {deviation.test}\n  {deviation.reason}")
        for test, reason in one.source.deselect.items():
            print(f"\nnot run: {test}\n  {reason}")
    for one in done:
        for problem in one.problems:
            print(f"\nPROBLEM: {problem}")
    stale = {d.test for d in DEVIATIONS} - {t for one in done for t in one.plain}
    for test in sorted(stale):
        print(f"\nPROBLEM: {test} is listed as a deviation and is no test")
    passed = sum(_count(one.guarded, "passed") for one in done)
    skipped = sum(_count(one.guarded, "skipped") for one in done)
    failed = len(stale) + sum(len(one.problems) for one in done)
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped")
    return failed


if __name__ == "__main__":
    sys.exit(main())
