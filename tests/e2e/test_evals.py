"""The harness of the evals: it must see a guard that is broken. Its scenarios: tests/attacks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evals.__main__ import app
from evals.guards import COMPARED
from evals.replay import replay
from evals.scenario import FOLDER, ScenarioError, load, load_all
from evals.stats import by_family, wilson

SCENARIOS = load_all()
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
REPORTED = {
    "broken-claim": "goto-the-waiting-call",
    "broken-policy": "export-without-queue",
    "broken-eligibility": "self-approval-by-the-agents-owner",
    "broken-hashing": "byte-swap",
    "broken-scan": "secret-split-by-invisible-characters",
    "broken-scratch": "plugin-links-a-foreign-file",
}
"""Control that is taken out → an attack that must then be reported."""


def run(*args: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["run", "--processes", "1", *map(str, args)])
    return result.exit_code, result.output


def test_there_are_enough_scenarios_and_each_says_what_it_is_about() -> None:
    assert len(SCENARIOS) >= 25
    assert all(each.covers and each.title and each.attack.story for each in SCENARIOS)
    assert len({each.title for each in SCENARIOS}) == len(SCENARIOS)


@pytest.mark.parametrize(("guard", "name"), REPORTED.items(), ids=list(REPORTED))
def test_a_broken_guard_is_reported(guard: str, name: str, tmp_path: Path) -> None:
    code, output = run("--guard", guard, "--only", name, "--json", tmp_path / "e.jsonl")
    assert code == 1
    assert f"{guard} through {name}" in " ".join(output.split())
    # The same scenario with the control in place: it is the control that stops it.
    assert replay(BY_NAME[name], "attack", "agentguard").outcome == "stopped"


def test_a_blocked_job_is_reported(tmp_path: Path) -> None:
    (tmp_path / "impatient.toml").write_text(
        (FOLDER / "export-without-queue.toml")
        .read_text("utf-8")
        .replace('{ do = "prepare", asset = "poster", to = "site" },', "")
    )
    code, output = run(
        "--guard", "agentguard", "--scenarios", tmp_path, "--json", tmp_path / "e.jsonl"
    )
    assert code == 1
    assert "agentguard blocked impatient (twin)" in " ".join(output.split())


def test_people_who_approve_everything_are_asked_about_what_gets_through() -> None:
    """What a person lets through counts as let through, also with agentguard."""
    result = replay(BY_NAME["customer-photo-to-public"], "attack", "agentguard-rubber-stamp")
    assert (result.outcome, result.asked, result.judged) == ("through", 1, False)
    result = replay(BY_NAME["export-without-queue"], "attack", "agentguard-rubber-stamp")
    assert (result.outcome, result.asked) == ("stopped", 0)


def test_the_last_line_says_on_whose_word_it_rests(tmp_path: Path) -> None:
    words = ("--guard", "agentguard", "--only", "customer-photo-to-public")
    file = tmp_path / "e.jsonl"
    code, output = run(*words, "--json", file)
    assert code == 0
    assert "no benign job blocked (with careful people)" in " ".join(output.split())
    code, output = run(*words, "--guard", "agentguard-rubber-stamp", "--json", file)
    assert code == 0
    said = "(with careful people; with people who approve everything, 1 gets through)"
    assert said in " ".join(output.split())


def test_what_a_guard_has_nothing_for_is_not_held_against_it() -> None:
    recalled = BY_NAME["recalled-after-approval"]
    assert replay(recalled, "attack", "hitl-careful").outcome == "n/a"
    assert replay(BY_NAME["byte-swap"], "attack", "none").outcome == "n/a"
    assert replay(BY_NAME["byte-swap"], "twin", "none").outcome == "done"


def test_a_good_guard_exits_0_and_writes_a_line_per_run(tmp_path: Path) -> None:
    file = tmp_path / "out" / "e.jsonl"
    code, output = run("--guard", "none", "--guard", "agentguard", "--only", "byte-swap-before-use",
                       "--json", file, "--details")  # fmt: skip
    assert code == 0, output
    assert all(len(line) <= 80 for line in output.splitlines() if str(tmp_path) not in line)
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    runs = [line for line in lines if "outcome" in line]
    assert [(r["guard"], r["kind"], r["outcome"]) for r in runs] == [
        ("none", "attack", "through"),
        ("none", "twin", "done"),
        ("agentguard", "attack", "stopped"),
        ("agentguard", "twin", "done"),
    ]
    summaries = {line["summary"]: line for line in lines if "summary" in line}
    assert summaries["none"]["attacks_through"]["hits"] == 1
    assert summaries["agentguard"]["attacks_through"]["wilson95"][0] == 0
    assert summaries["agentguard"]["seed"] == 1


def test_what_is_not_there_exits_2(tmp_path: Path) -> None:
    assert run("--only", "no-such-scenario")[0] == 2
    assert run("--guard", "no-such-guard")[0] == 2
    assert run("--scenarios", tmp_path)[0] == 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[attack]", "[attack]\nforbiden = []", "attack.forbiden: unknown key"),
        ('do = "tamper"', 'do = "temper"', "attack.steps[0]"),
        ('tool = "retouch"', 'tool = "retuch"', "no 'retuch'"),
        ('bytes_of = "board"', 'bytes_of = "bord"', "attack.steps[0].bytes_of: no 'bord'"),
        ("poster = {", "poster = { owner = 'kim',", "assets.poster.owner: unknown key"),
        ('asset = "poster" }]', 'asset = "pster" }]', "no 'pster'"),
    ],
)
def test_a_misspelt_scenario_is_refused_with_file_and_key(
    old: str, new: str, said: str, tmp_path: Path
) -> None:
    text = (FOLDER / "byte-swap-before-use.toml").read_text("utf-8")
    assert old in text
    file = tmp_path / "misspelt.toml"
    file.write_text(text.replace(old, new))
    with pytest.raises(ScenarioError) as error:
        load(file)
    assert said in str(error.value)
    assert str(file) in str(error.value)


def test_wilson_is_the_textbooks() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 55) == pytest.approx((0.0, 0.0653), abs=1e-4)
    assert wilson(0, 55)[0] == 0.0
    assert wilson(10, 20) == pytest.approx((0.2993, 0.7007), abs=1e-4)


def test_correlated_outcomes_widen_the_interval() -> None:
    alike = {str(n): [n % 2 == 0] * 10 for n in range(10)}
    low, high = by_family(alike, seed=1)
    assert (low, high) == by_family(alike, seed=1)  # deterministic
    assert high - low > 1.5 * (wilson(50, 100)[1] - wilson(50, 100)[0])
    assert by_family({"one": [False] * 50}, seed=1) == wilson(0, 1)


def test_the_guards_that_are_compared() -> None:
    assert [guard.name for guard in COMPARED if guard.judged] == [
        "agentguard-middleware",
        "agentguard",
    ]
