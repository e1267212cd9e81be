"""A job, its approvals and its records, from the command line."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentguard.cli import output as show
from agentguard.cli.commands import audit
from agentguard.errors import ApprovalError, LedgerCorrupt
from agentguard.ledger.ledger import Ledger
from tests.support import (
    CONFIG,
    INES,
    KIM,
    LEE,
    OMAR,
    Clock,
    Studio,
    build,
    call,
    open_studio,
    results,
    says,
)
from tests.support.command_line import Shell, ask_for_export, studio_in
from tests.support.traced_statements import traced

HOSTILE = "[red]x[/]\x1b[2J\x1b]0;owned\x07\u202egnp.exe\nstate: approved\u200b\x9b31m"


@pytest.fixture
def studio(shell: Shell) -> Iterator[Studio]:
    """The studio of four people, who also have keys of their own on disk."""
    with studio_in(shell.folder) as studio:
        for person in (KIM, OMAR, INES, LEE):
            shell("people", "add", person, "--second-key")
        yield studio


def ledger_file(shell: Shell) -> Path:
    return shell.folder / ".agentguard" / "ledger.db"


def forge(shell: Shell, sql: str) -> None:
    """Change the database as its owner can: without its triggers, which stand there again after."""
    with sqlite3.connect(ledger_file(shell)) as connection:
        triggers = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(sql)
        for _, text in triggers:
            connection.execute(text)


def test_from_init_to_a_release_and_to_a_forged_row(shell: Shell) -> None:
    shell("init", "--workspace", "acme", "--person", KIM, "--person", OMAR)
    shell("people", "add", KIM)
    shell("people", "add", OMAR)
    with studio_in(shell.folder, keys={}) as studio:
        with studio.guard.open_job("spring campaign", requested_by=KIM) as job:
            picture = studio.picture()
            text = shell("assets", "import", picture, "--class", "brand", "--by", KIM,
                         "--job", job.id[:14])  # fmt: skip
            asset = text.split()[0]
            ask_for_export(studio, job, asset, caption="Spring is here")
        assert job.state == "waiting"

        (asked,) = shell.json("approvals", "list")
        name = asked["request"][:16]
        assert asked["who_may"] == [OMAR]
        assert name in shell("approvals", "list")
        shown = shell("approvals", "show", name, "--save", "look")
        for part in (
            "export_asset",
            "site: public audience, production",
            "Spring is here",
            "brand",
            "export.sensitive",
            "spring campaign",
            OMAR,
            "clean review",
        ):
            assert part in shown
        assert (shell.folder / "look" / f"{asset}.png").read_bytes() == picture.read_bytes()

        assert "asked for the job" in shell.error("approvals", "approve", name, "--as", KIM)
        shell("approvals", "approve", name, "--as", OMAR, input="n\n", code=1)
        assert shell.json("approvals", "list")[0]["answers"] == []
        shell("explain", name, code=4)
        text = shell("approvals", "approve", name, "--as", OMAR, input="y\n")
        assert "recorded: approved" in text
        shell("explain", name)
        assert "Nothing waits" in shell("approvals", "list")

        with studio.guard.rejoin_job(job.id, by=KIM) as job:
            script = [says(call("list_assets", {}))]
            graph = build(studio, script, {"tools": ("traffic", ["list_assets"])})
            state = graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="t2"))
            assert asset in results(state)[-1].content
    assert shell("audit", "verify").startswith("audit verified: ")

    forge(shell, "UPDATE assets SET labels = '[\"generated\"]'")
    out, err = shell.both("audit", "verify", code=5)
    assert out == ""
    assert err.startswith("error: assets ")
    assert "it was edited" in err


def test_an_approved_call_goes_on_and_explain_tells_its_story(shell: Shell, studio: Studio) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        graph, config = ask_for_export(studio, job, asset)
        name = studio.pending().request[:16]
        shell("approvals", "approve", name, "--as", OMAR, "--yes")
        state = graph.invoke(None, config)
        assert results(state)[-1].status == "success"
    assert len(studio.exported()) == 1
    story = shell.json("explain", name)
    assert story["effect"] == "ask"
    assert story["approval"]["state"] == "approved"
    assert [one["person"] for one in story["answers"]] == [OMAR]
    assert story["grant"]["state"] == "executed"
    assert story["receipts"][0]["destination"] == "site"
    text = shell("explain", name)
    assert "Exported to site/" in text
    assert "export.sensitive" in text
    assert name in shell("jobs", "show", job.id)
    assert "released" in shell("assets", "show", asset)


def test_a_quorum_exits_4_until_it_is_met(shell: Shell, studio: Studio) -> None:
    with studio.guard.open_job("results", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["regulated"])
        ask_for_export(studio, job, asset)
        name = studio.pending().request[:16]
        assert "2 people, including legal" in shell("approvals", "show", name)
        text = shell("approvals", "approve", name, "--as", INES, "--yes", code=4)
        assert "1 person, including legal must still approve" in text
        assert "answered this before" in shell.error(
            "approvals", "approve", name, "--as", INES, "--yes"
        )
        assert "not in legal" in shell.error(
            "approvals", "approve", name, "--as", LEE, "--group", "legal", "--yes"
        )
        # omar is in the one group that is missing: it is meant, shown and signed.
        text = shell("approvals", "approve", name, "--as", OMAR, "--yes")
        assert f"You approve this as {OMAR} for legal." in text
        answers = shell.json("approvals", "show", name)["answers"]
        assert {one["person"]: one["group"] for one in answers} == {INES: None, OMAR: "legal"}


TWO_GROUPS = """
@id("two.groups")
forbid (principal, action in Action::"stage:export", resource)
unless {
  context.approvals >= 2 && context.approverGroups.contains("legal")
  && context.approverGroups.contains("marketing")
};
"""


def test_person_of_two_missing_groups_is_asked_which(shell: Shell) -> None:
    (shell.folder / "policies").mkdir()
    (shell.folder / "policies" / "two.cedar").write_text(TWO_GROUPS)
    config = CONFIG.replace(
        f'"{LEE}" = {{ groups = [] }}', f'"{LEE}" = {{ groups = ["legal", "marketing"] }}'
    )
    studio = open_studio(shell.folder, clock=Clock(time.time_ns() // 1_000_000), config=config)
    with contextlib.closing(studio.guard), studio.guard.open_job("x", requested_by=KIM) as job:
        for person in (OMAR, LEE):
            shell("people", "add", person, "--second-key")
        ask_for_export(studio, job, job.import_asset(studio.picture(), ["brand"]))
        name = studio.pending().request[:16]
        words = ["approvals", "approve", name, "--as", LEE]
        said = shell.error(*words, "--yes")
        assert "legal or marketing" in said
        assert "name it with --group" in said
        assert "--group" in shell.both(*words, input="", code=1)[1]
        assert "is none of" in shell.both(*words, input="sports\n", code=1)[1]
        assert shell.json("approvals", "show", name)["answers"] == []
        text = shell(*words, input="marketing\ny\n", code=4)
        assert f"You approve this as {LEE} for marketing." in text
        # One is missing now that omar is in: it is meant, shown and signed.
        text = shell("approvals", "approve", name, "--as", OMAR, "--yes")
        assert f"You approve this as {OMAR} for legal." in text
        answers = shell.json("approvals", "show", name)["answers"]
        assert {one["person"]: one["group"] for one in answers} == {OMAR: "legal", LEE: "marketing"}


def test_answers_name_their_key_where_the_person_has_two(shell: Shell, studio: Studio) -> None:
    with studio.guard.open_job("results", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["regulated"])
        ask_for_export(studio, job, asset)
        name = studio.pending().request[:16]
        shell("approvals", "approve", name, "--as", OMAR, "--yes", code=4)
        (answer,) = shell.json("approvals", "list")[0]["answers"]
        said = f"with key {answer['key_id']}, one of 2 of theirs"
        assert answer["keys"] == 2
        assert said in shell("approvals", "show", name)
        assert said in shell("approvals", "list")
        assert said in shell("explain", name, code=4)
        signers = shell.folder / "agentguard.signers"
        first, second = (line for line in signers.read_text().splitlines() if OMAR in line)
        signers.write_text(signers.read_text().replace(first + "\n", ""))
        assert "with key" not in shell("approvals", "show", name)
        signers.write_text(signers.read_text().replace(second, first))
        assert "not theirs now" in shell("approvals", "list")


def test_an_approval_that_holds_no_more_is_listed_again(shell: Shell, studio: Studio) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["likeness"])
        graph, config = ask_for_export(studio, job, asset)
        name = studio.pending().request[:16]
        shell("approvals", "approve", name, "--as", OMAR, "--yes")
        assert shell.json("approvals", "list") == []
        signers = shell.folder / "agentguard.signers"
        kept = [line for line in signers.read_text().splitlines() if not line.startswith(OMAR)]
        signers.write_text("\n".join(kept) + "\n")  # omar's key was withdrawn
        (asked,) = shell.json("approvals", "list")
        assert (asked["state"], asked["missing"]["approvals"]) == ("approved", 1)
        for text in (shell("approvals", "list"), shell("approvals", "list", "--all")):
            assert "1 person" in text
        assert "1 person, to approve" in shell("approvals", "show", name)
        shell("approvals", "approve", name, "--as", INES, "--yes")
        assert shell.json("approvals", "list") == []
        graph.invoke(None, config)
        assert len(studio.exported()) == 1
        signers.write_text("")
        assert shell.json("approvals", "list") == []  # it is done
        assert shell.json("approvals", "list", "--all")[0]["missing"]["approvals"] == 0


def test_one_no_is_enough(shell: Shell, studio: Studio) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        graph, config = ask_for_export(studio, job, asset)
        name = studio.pending().request[:16]
        assert "recorded: denied" in shell("approvals", "deny", name, "--as", INES, "--yes")
        shell("explain", name, code=3)
        assert "is denied" in shell.error("approvals", "approve", name, "--as", OMAR, "--yes")
        state = graph.invoke(None, config)
        assert results(state)[-1].status == "error"
    assert studio.exported() == []
    assert [one["state"] for one in shell.json("approvals", "list", "--all")] == ["denied"]


def test_a_key_that_is_not_the_persons_own_signs_nothing(
    shell: Shell, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        ask_for_export(studio, job, asset)
        name = studio.pending().request[:16]
        keys = shell.folder / "home" / "agentguard" / "keys"
        (keys / f"{OMAR}.pem").write_bytes((keys / f"{INES}.pem").read_bytes())
        _, err = shell.both("approvals", "approve", name, "--as", OMAR, "--yes", code=1)
        assert "agentguard.signers has" in err
        (keys / f"{LEE}.pem").unlink()
        _, err = shell.both("approvals", "approve", name, "--as", LEE, "--yes", code=1)
        assert f"agentguard people add {LEE}" in err
        assert shell.json("approvals", "show", name)["answers"] == []


def test_nothing_is_signed_over_a_log_that_was_cut(shell: Shell, studio: Studio) -> None:
    job = studio.guard.open_job("poster", requested_by=KIM)
    asset = job.import_asset(studio.picture(), ["brand"])
    ask_for_export(studio, job, asset)
    request = studio.pending().request
    forge(shell, "DELETE FROM records WHERE idx > 0")
    shell.error("approvals", "approve", request[:16], "--as", OMAR, "--yes", code=5)
    with pytest.raises(LedgerCorrupt, match="an old copy was restored"):
        studio.answer(request, OMAR)
    assert studio.guard.ledger.answers(request) == ()


def test_question_that_was_edited_is_not_signed(shell: Shell, studio: Studio) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        ask_for_export(studio, job, asset)
        request = studio.pending().request
        forge(shell, "UPDATE approvals SET question = replace(question, 'site', 'team')")
        said = shell.error("approvals", "approve", request[:16], "--as", OMAR, "--yes")
        assert "its row was edited" in said
        with pytest.raises(ApprovalError, match="its row was edited"):
            studio.answer(request, OMAR)
        assert studio.guard.ledger.answers(request) == ()


def test_approving_does_not_replay_the_log(
    shell: Shell, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million records once took 48 s."""
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        ask_for_export(studio, job, asset)
        with traced(monkeypatch) as trace:
            name = studio.pending().request[:16]
            shell("approvals", "approve", name, "--as", OMAR, "--yes")
        read = [sql for sql in trace.statements if "FROM records" in sql]
        assert read
        assert all("max(idx)" in sql for sql in read)


def test_media_that_was_changed_in_the_store_is_not_shown(shell: Shell, studio: Studio) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        ask_for_export(studio, job, asset)
        name = studio.pending().request[:16]
        stored = next((shell.folder / ".agentguard" / "assets").glob("??/*"))
        stored.chmod(0o600)
        stored.write_bytes(b"another picture")
        shell.error("approvals", "show", name, "--save", "look")
        assert list((shell.folder / "look").iterdir()) == []


def test_saved_media_never_replaces_a_file(shell: Shell, studio: Studio) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        ask_for_export(studio, job, asset)
        name = studio.pending().request[:16]
        copy = shell.folder / "look" / f"{asset}.png"
        shell("approvals", "show", name, "--save", "look")
        shell("approvals", "show", name, "--save", "look")  # the same bytes: nothing to do
        copy.write_text("mine")
        assert "another file" in shell.error("approvals", "show", name, "--save", "look")
        assert copy.read_text() == "mine"


# --- what models and media say -------------------------------------------------------------------


def test_no_text_of_a_model_or_file_steers_the_terminal(shell: Shell, studio: Studio) -> None:
    file = studio.picture().rename(shell.folder / "[bold]a\x1b[2J\u202e.png")
    with studio.guard.open_job(HOSTILE, requested_by=KIM) as job:
        asset = job.import_asset(file, ["brand"])
        ask_for_export(studio, job, asset, caption="[link=x]Buy \u202eyub\u200b now")
        name = studio.pending().request[:16]
        said = [
            shell("approvals", "list"),
            shell("approvals", "show", name),
            shell("approvals", "approve", name, "--as", OMAR, input="n\n", code=1),
            shell("jobs", "list"),
            shell("jobs", "show", job.id),
            shell("assets", "list"),
            shell("assets", "show", asset),
            shell("assets", "lineage", asset),
            shell("explain", name, code=4),
            shell("audit", "tail"),
        ]
        for text in said:
            assert all(c.isprintable() or c == "\n" for c in text), ascii(text)
        # Shown, not obeyed: markup, escapes and line ends stand there as text.
        assert "[red]x[/]\\x1b[2J" in said[1]
        assert "\\nstate: approved" in " ".join(said[1].split())
        assert "\nstate: approved" not in said[1]
        assert "[link=x]Buy \\u202eyub\\u200b now" in said[1]
        for words in (["approvals", "list"], ["jobs", "show", job.id], ["audit", "tail"]):
            shell.json(*words)  # ASCII only


# --- assets and jobs -----------------------------------------------------------------------------


def test_an_import_without_a_class_is_unclassified_and_says_so(
    shell: Shell, studio: Studio
) -> None:
    text = shell("assets", "import", studio.picture(), "--by", KIM)
    assert "unclassified" in text
    asset = text.split()[0]
    assert shell.json("assets", "show", asset)["class"] == ["unclassified"]
    assert shell.json("assets", "list")[0]["id"] == asset
    assert shell.json("assets", "list")[0]["name"] == "in.png"


def test_what_can_not_be_imported_is_an_error(shell: Shell, studio: Studio) -> None:
    picture = studio.picture()
    (shell.folder / "note.png").write_bytes(b"\x00\x01 no picture")
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        pass
    shell.error("assets", "import", "missing.png", "--by", KIM)
    shell.error("assets", "import", "note.png", "--by", KIM)
    assert "no class nope" in shell.error("assets", "import", picture, "--class", "nope",
                                          "--by", KIM)  # fmt: skip
    assert "no person" in shell.error("assets", "import", picture, "--by", "eve")
    assert "has ended" in shell.error("assets", "import", picture, "--by", KIM, "--job", job.id)
    assert "nothing is called" in shell.error("assets", "import", picture, "--by", KIM,
                                              "--job", "job-of-nobody")  # fmt: skip
    shell("assets", "import", picture, code=2)
    assert shell.json("assets", "list") == []


def test_hold_release_and_recall_are_by_a_person_and_recorded(shell: Shell, studio: Studio) -> None:
    asset = studio.guard.import_asset(studio.picture(), ["brand"], by=KIM)
    assert "no person" in shell.error("assets", "hold", asset, "--by", "eve")
    shell("assets", "hold", asset, code=2)
    assert "now under legal hold" in shell("assets", "hold", asset, "--by", OMAR)
    assert "already under legal hold" in shell("assets", "hold", asset, "--by", OMAR)
    assert shell.json("assets", "show", asset)["held"] is True
    assert "HELD" in shell("assets", "list")
    assert "now not under legal hold" in shell("assets", "release", asset[:14], "--by", OMAR)
    assert "now recalled" in shell("assets", "recall", asset, "--by", OMAR)
    assert shell.json("assets", "show", asset)["recalled"] is True
    kinds = [one["record"]["kind"] for one in shell.json("audit", "tail", "-n", "3")]
    assert kinds == ["asset.held", "asset.held", "asset.recalled"]
    shell("audit", "verify")


def test_lineage_goes_both_ways(shell: Shell, studio: Studio) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        graph = build(studio, [says(call("crop", {"source": asset, "width": 8, "height": 8}))])
        graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
        made = next(one["id"] for one in shell.json("assets", "list", "--job", job.id)
                    if one["id"] != asset)  # fmt: skip
    down = shell.json("assets", "lineage", asset)
    assert [one["asset"] for one in down["made_into"]] == [made]
    assert down["made_into"][0]["by"] == "crop, called by editor"
    up = shell.json("assets", "lineage", made)
    assert [one["asset"] for one in up["made_from"]] == [asset]
    text = shell("assets", "lineage", made)
    assert asset in text
    assert "imported by kim" in text
    assert "recalled with it: 1 asset;" in shell("assets", "recall", asset, "--by", OMAR)


def test_a_lineage_that_comes_round_again_ends(shell: Shell, studio: Studio) -> None:
    one = studio.guard.import_asset(studio.picture("a.png", "red"), ["brand"], by=KIM)
    two = studio.guard.import_asset(studio.picture("b.png", "green"), ["brand"], by=KIM)
    ledger: Ledger = studio.guard.ledger

    def both_ways(tx: Any) -> None:
        hashes = [tx.one("SELECT sha256 FROM assets WHERE id = ?", x)[0] for x in (one, two)]
        for child, parent in (hashes, hashes[::-1]):
            tx.insert("lineage", child=child, parent=parent, grant_id="grant-x")
        tx.record("made", {})

    ledger.storage.submit(both_ways).result()
    assert "(again)" in shell("assets", "lineage", one)


def test_a_job_can_be_ended_with_all_that_lives_in_it(shell: Shell, studio: Studio) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        ask_for_export(studio, job, asset)
        shell("jobs", "end", job.id, code=2)  # without a reason
        assert "has ended" in shell("jobs", "end", job.id, "--reason", "cancelled")
        assert "had ended already" in shell("jobs", "end", job.id, "--reason", "again")
        shown = shell.json("jobs", "show", job.id)
        assert (shown["state"], shown["reason"]) == ("ended", "cancelled")
        assert shown["credentials"] == []
        assert shell.json("approvals", "list") == []
        assert [one["state"] for one in shell.json("approvals", "list", "--all")] == ["revoked"]


def test_who_asked_for_a_job_is_listed_in_one_piece(shell: Shell, studio: Studio) -> None:
    """At 80 columns: it is copied into `rejoin_job(..., by=...)`."""
    purpose = "the second round of the spring campaign"
    with studio.guard.open_job(purpose, requested_by=KIM) as job:
        ask_for_export(studio, job, job.import_asset(studio.picture(), ["brand"]))
    (row,) = [line for line in shell("jobs", "list").splitlines() if job.id in line]
    assert "waiting" in row
    assert f" {KIM} " in row


def test_sweep_and_reconcile_say_what_they_did(shell: Shell, studio: Studio) -> None:
    with studio.guard.open_job("poster", requested_by=KIM):
        pass
    assert set(shell.json("sweep")) >= {"jobs", "approvals", "grants", "credentials"}
    assert shell("sweep").startswith("ended: 0 jobs")
    assert shell.json("reconcile") == []
    assert "No call has an unknown outcome" in shell("reconcile")


# --- audit ---------------------------------------------------------------------------------------


@pytest.fixture
def recorded(shell: Shell, studio: Studio) -> Shell:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        job.import_asset(studio.picture(), ["brand"])
    return shell


def test_tail_and_export_give_the_records_in_order(recorded: Shell) -> None:
    tail = recorded.json("audit", "tail", "-n", "2")
    assert [one["record"]["kind"] for one in tail] == ["asset.registered", "job.ended"]
    lines = [json.loads(line) for line in recorded("audit", "export").splitlines()]
    assert lines[-2:] == tail
    assert [line["index"] for line in lines] == list(range(len(lines)))
    recorded("audit", "export", "--out", "log.jsonl")
    assert len((recorded.folder / "log.jsonl").read_text().splitlines()) >= len(lines)
    assert "not overwritten" in recorded.error("audit", "export", "--out", "log.jsonl")


def test_a_proof_verifies_offline_with_a_key_from_elsewhere(
    recorded: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = recorded.json("audit", "verify")["verifier_key"]
    recorded("audit", "prove", "1", "--out", "proof.json")
    assert "not overwritten" in recorded.error("audit", "prove", "1", "--out", "proof.json")
    assert json.loads(recorded("audit", "prove", "1"))["index"] == 1
    assert "no record 999" in recorded.error("audit", "prove", "999")
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "proof.json").write_text((tmp_path / "proof.json").read_text())
    monkeypatch.chdir(tmp_path / "far")
    (tmp_path / "agentguard.toml").unlink()  # it needs no configuration
    assert "proof verified: record 1" in recorded("audit", "check-proof", "proof.json",
                                                  "--key", key)  # fmt: skip
    proof = json.loads(Path("proof.json").read_text())
    Path("forged.json").write_text(json.dumps({**proof, "record": proof["record"] + " "}))
    recorded.error("audit", "check-proof", "forged.json", "--key", key, code=5)
    other = key[:-4] + ("AAA=" if not key.endswith("AAA=") else "BBB=")
    recorded.error("audit", "check-proof", "proof.json", "--key", other, code=5)
    Path("noise.json").write_text("[1")
    recorded.error("audit", "check-proof", "noise.json", "--key", key, code=5)
    recorded.error("audit", "check-proof", "missing.json", "--key", key, code=1)


def test_a_changed_record_is_named(recorded: Shell) -> None:
    forge(recorded, "UPDATE records SET body = replace(body, 'poster', 'postal') WHERE idx = 0")
    _, err = recorded.both("audit", "verify", code=5)
    assert "record 0" in err


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, *, after: float, text: str) -> str:
    """What a person sees who has a terminal for stderr."""
    monkeypatch.setenv("TERM", "xterm")
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal, contextlib.redirect_stderr(terminal):
        with show.progress(after=after) as tell:
            tell("first")
            tell(text)
        terminal.write("END")
        terminal.flush()
        seen = b""
        while b"END" not in seen:
            seen += os.read(master, 4096)
    os.close(master)
    return seen.decode()


def test_what_takes_long_shows_how_far_it_is_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = on_a_terminal(monkeypatch, after=0, text="1,000 records\x07")
    assert "1,000 records\\x07" in seen
    assert "\x07" not in seen
    assert on_a_terminal(monkeypatch, after=60, text="x") == "END"
    with show.progress(after=0) as tell:
        tell("x")
    assert capsys.readouterr() == ("", "")


def test_verifying_says_how_far_it_is(recorded: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(audit, "progress", lambda: contextlib.nullcontext(told.append))
    said = recorded("audit", "verify").splitlines()[0]
    records, rows = [int(word) for word in said.split() if word.isdigit()][:2]
    assert told[0] == f"verifying: {records} records"
    assert told[-1] == f"verifying: {rows} rows"


def test_a_ledger_without_its_triggers_does_not_open(recorded: Shell) -> None:
    with sqlite3.connect(ledger_file(recorded)) as connection:
        connection.execute("DROP TRIGGER records_kept")
    recorded.error("jobs", "list", code=5)
