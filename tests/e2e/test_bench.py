"""Every benchmark runs, measures calls that really succeeded, and writes its table into a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import rounds, studio
from bench.__main__ import SUBJECTS, main
from bench.figures import Figure, markdown, write_into

EXPECTED = {
    "graphs": {"protect, 1 call a message", "GuardMiddleware, async, 8 calls a message"},
    "asking": {"protect: ask and resume ÷ stock per_call"},
    "deciding": {"decide, 50 policies: an export to an internal place, p99"},
    "commits": {"an export that is asked about and approved: commits"},
    "ledger": {"SQLite, 16 clients: records", "PostgreSQL, 16 clients: durable claims"},
    "workers": {"SQLite, 2 workers: permitted calls", "PostgreSQL, 2 workers: CPU of a call"},
    "log": {"root of 1,000 records, p50", "audit verify, 1,000 records"},
    "jobs": {"threads that renew leases"},
    "history": {"open_job, 1,000 ÷ 100 old calls"},
    "importing": {"import agentguard"},
    "profile": {
        "deciding (Cedar)",
        "ledger: waiting for commits",
        "the whole run, permitted",
        "the whole run, asked",
    },
}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_subject_measures_what_it_says(subject: str, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert main([subject, "--quick", "--json", str(file)]) == 0
    figures: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))
    found = {figure["what"]: figure for figure in figures}
    assert EXPECTED[subject] <= set(found)
    assert all(figure["subject"].split("-")[0] == subject for figure in figures)
    assert any(figure["value"] > 0 for figure in figures)
    assert all(figure["met"] is None for figure in figures)  # too little to judge
    if subject == "log":  # CPU and time are of the same seconds: little else runs in them
        verified = found["audit verify, 1,000 records"]
        assert float(verified["detail"].split(" s CPU")[0]) <= verified["value"] + 0.2
    if subject == "commits":  # decided, claimed, finished (I10); durable before an effect (I8)
        assert found["a permitted call without an effect outside: commits"]["value"] == 3
        assert found["a permitted export: commits"]["detail"].startswith("1 durable")
        asked = found["an export that is asked about and approved: commits"]
        assert asked["detail"].startswith("2 durable")  # the answer, and the claim


def test_a_refused_call_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal is fast; a ratio of refusals would look good."""
    from bench import graphs

    monkeypatch.setattr(graphs, "_TEXT", {"text": "AKIA" + "Q7RZ2XN4T5VW6Y3B"})
    scale = rounds.Scale(rounds=1, quick=True, say=lambda text: None)
    with pytest.raises(RuntimeError, match="expected 1 calls to succeed"):
        graphs.measure(scale)


def test_rounds_of_both_sides_alternate_and_the_first_do_not_count() -> None:
    seen: list[tuple[str, int]] = []
    times = rounds.alternate(
        2, lambda n: seen.append(("bare", n)), lambda n: seen.append(("guarded", n)), warm=1
    )
    assert seen == [(side, n) for n in range(3) for side in ("bare", "guarded")]
    assert [len(side.wall) for side in times] == [2, 2]


def figure(value: float, *, at_least: bool = False) -> Figure:
    return Figure(subject="graphs", what="w", value=value, unit="ms", aim=2.0, at_least=at_least)


def test_an_aim_is_met_or_not() -> None:
    assert [figure(v).met for v in (1.9, 2.0, 2.1)] == [True, True, False]
    assert [figure(v, at_least=True).met for v in (1.9, 2.0, 2.1)] == [False, True, True]
    assert Figure(subject="graphs", what="w", value=1.0, unit="ms").met is None


def test_a_page_gets_the_tables_of_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- bench: graphs -->\nold\n<!-- /bench -->\nb\n", "utf-8")
    assert write_into(page, [figure(3.0)]) == ["graphs"]
    table = markdown([figure(3.0)])
    assert "| w | 3 ms | ≤ 2 ms | no |" in table
    assert page.read_text("utf-8") == (f"a\n<!-- bench: graphs -->\n{table}\n<!-- /bench -->\nb\n")
    page.write_text("no marks\n", "utf-8")
    with pytest.raises(ValueError, match="expected <!-- bench"):
        write_into(page, [figure(3.0)])


def test_the_documents_have_a_table_for_every_subject() -> None:
    docs = Path(studio.__file__).parents[1] / "docs"
    pages = ("reference/benchmarks.md", "explanation/scale.md")
    text = "".join((docs / page).read_text("utf-8") for page in pages)
    for subject in (*SUBJECTS, "profile-asked"):
        assert f"<!-- bench: {subject} -->\n| what |" in text, subject


def test_a_quick_run_is_for_no_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- bench: graphs -->\n<!-- /bench -->\n", "utf-8")
    with pytest.raises(SystemExit):
        main(["importing", "--quick", "--into", str(page)])
    assert page.read_text("utf-8") == "<!-- bench: graphs -->\n<!-- /bench -->\n"


def test_an_unknown_subject_is_an_error_that_lists_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["graph"])
    assert "there are graphs, asking" in capsys.readouterr().err
