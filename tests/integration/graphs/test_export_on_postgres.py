"""The whole way on a PostgreSQL ledger: an export that two machines and the command line see."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentguard import Guard
from tests.support.command_line import Shell, ask_for_export, studio_in
from tests.support.databases import drop_ledger, postgres_url

KIM, OMAR = "kim@acme.example", "omar@acme.example"


@pytest.fixture
def shell(postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    url = postgres_url(postgres)
    monkeypatch.setenv("AGENTGUARD_LEDGER", url)
    monkeypatch.chdir(tmp_path)
    yield Shell(tmp_path)
    drop_ledger(url)


def test_an_export_is_asked_approved_sent_and_verified_on_postgres(shell: Shell) -> None:
    shell("init", "--workspace", "acme", "--person", KIM, "--person", OMAR)
    shell("people", "add", KIM)
    shell("people", "add", OMAR)
    with studio_in(shell.folder, keys={}) as studio:
        with studio.guard.open_job("spring campaign", requested_by=KIM) as job:
            asset = job.import_asset(studio.picture(), ["customer-data"])
            graph, config = ask_for_export(studio, job, asset)
            (asked,) = shell.json("approvals", "list")
            shell("approvals", "approve", asked["request"], "--as", OMAR, "--yes")
            state = graph.invoke(None, config)
        assert state["messages"][-2].status == "success", state["messages"][-2].content
        assert len(studio.exported()) == 1
        # Another worker on the same machine sees the same, and may verify it meanwhile.
        elsewhere = Guard.from_config(shell.folder / "agentguard.toml")
        try:
            assert elsewhere.verify().records == studio.guard.verify().records
        finally:
            elsewhere.close()
    report = shell.json("audit", "verify")
    assert report["records"] > 10
    tail = shell.json("audit", "tail", "-n", "200")
    assert [one["record"]["kind"] for one in tail].count("claimed") == 3
    (shell.folder / "proof.json").write_text(shell("audit", "prove", "3"))
    shell("audit", "check-proof", "proof.json", "--key", report["verifier_key"])
    assert len(shell("audit", "export").splitlines()) == len(tail)
    found = {one["what"]: one for one in json.loads(shell("doctor", "--json"))["findings"]}
    assert "postgresql://" in found["ledger"]["text"]
    assert "postgres:" not in found["ledger"]["text"]  # no user, no password
