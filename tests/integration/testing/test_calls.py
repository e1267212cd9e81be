"""One call at a time in a private workspace: what it comes to, and who may answer."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path

import pytest

from agentguard import ApprovalError, JobError
from agentguard.testing import TestWorkspace, workspace
from tests.integration.testing.tools_under_test import CONFIG, POSTED, TOOLS, copy

KIM, OMAR, LEE = "kim@acme.example", "omar@acme.example", "lee@acme.example"


def queued(ws: TestWorkspace, *labels: str) -> str:
    picture = ws.import_asset(labels=labels)
    assert ws.call("queue_for_release", asset=picture, to="site").effect == "permit"
    return picture


def test_permitted_call_runs_and_names_what_it_made(ws: TestWorkspace) -> None:
    logo = ws.import_asset(labels=["brand"])
    outcome = ws.call("copy", source=logo)
    assert (outcome.effect, outcome.failed, outcome.assets) == ("permit", False, (logo,))
    assert "copied" in (outcome.result or "")
    assert outcome.agent == "editor"
    assert ws.call(copy, source=logo).effect == "permit"


def test_customer_data_to_the_public_asks(ws: TestWorkspace) -> None:
    picture = queued(ws, "customer-data")
    outcome = ws.call("export_asset", asset=picture, to="site")
    assert outcome.effect == "ask"
    assert "export.sensitive" in outcome.policies
    assert "customer-data" in outcome.sentence
    assert outcome.needs is not None
    assert outcome.needs.approvals >= 1
    assert outcome.result is None
    assert not ws.sent("site")


def test_team_needs_nobody_and_gets_the_bytes(ws: TestWorkspace) -> None:
    logo = ws.import_asset(labels=["brand"])
    assert ws.call("export_asset", asset=logo, to="team", caption="our logo").effect == "permit"
    (delivery,) = ws.sent("team")
    assert delivery.path is not None
    data = delivery.path.read_bytes()
    assert delivery.sha256 == (hashlib.sha256(data).hexdigest(),)
    assert data == ws.read(logo)
    assert (delivery.tool, delivery.text, delivery.certain) == ("export_asset", "our logo", True)
    assert not ws.sent("site")


def test_own_uploader_is_noted_with_its_words(ws: TestWorkspace) -> None:
    logo = ws.import_asset(labels=["brand"])
    outcome = ws.call("post", picture=logo, caption="hi", to="slack")
    assert outcome.effect == "permit"
    assert POSTED == [("slack", "hi")]
    (delivery,) = ws.sent("slack")
    assert (delivery.tool, delivery.text, delivery.path) == ("post", "hi", None)
    assert delivery.sha256 == (hashlib.sha256(ws.read(logo)).hexdigest(),)


def test_unqueued_export_is_denied_by_its_policy(ws: TestWorkspace) -> None:
    logo = ws.import_asset(labels=["brand"])
    outcome = ws.call("export_asset", asset=logo, to="site")
    assert (outcome.effect, outcome.policies) == ("deny", ("export.queued",))
    assert "queue it with queue_for_release first" in outcome.sentence


@pytest.mark.parametrize(
    ("tool", "arguments", "policy"),
    [
        ("copy", {"source": "/etc/passwd"}, "agentguard.not-an-asset"),
        ("copy", {"source": "asset-00000000000000000000"}, "agentguard.unknown-asset"),
    ],
)
def test_refusal_before_any_policy_names_the_built_in_rule(
    ws: TestWorkspace, tool: str, arguments: dict[str, str], policy: str
) -> None:
    outcome = ws.call(tool, arguments)
    assert (outcome.effect, outcome.policies, outcome.request) == ("deny", (policy,), None)
    assert outcome.sentence


def test_tool_of_another_stage_is_denied(ws: TestWorkspace) -> None:
    logo = ws.import_asset(labels=["brand"])
    outcome = ws.call("post", picture=logo, caption="hi", to="slack", agent="editor")
    assert outcome.effect == "deny"
    assert not POSTED


@pytest.mark.parametrize(("tool", "arguments"), [("list_assets", {}), ("count", {"upto": 3})])
def test_tool_without_a_stage_is_permitted(
    ws: TestWorkspace, tool: str, arguments: dict[str, int]
) -> None:
    outcome = ws.call(tool, arguments)
    assert (outcome.effect, outcome.failed) == ("permit", False)
    assert outcome.result in ("This job has no media yet.", "0 1 2")


@pytest.mark.parametrize(("answer", "failed"), [("yes", False), ("no", True)])
def test_question_of_a_tool_itself_is_none_of_the_policy(
    ws: TestWorkspace, answer: str, failed: bool
) -> None:
    paused = ws.call("ask_first", source=ws.import_asset(labels=["brand"]))
    assert (paused.effect, paused.interrupts, paused.result) == ("permit", ("copy it?",), None)
    with pytest.raises(ApprovalError, match="nobody was asked"):
        ws.approve(paused, by=OMAR)
    outcome = ws.resume(paused, answer)
    assert (outcome.effect, outcome.failed, outcome.interrupts) == ("permit", failed, ())


def test_resume_value_approves_nothing(ws: TestWorkspace) -> None:
    asked = ws.call("export_asset", asset=queued(ws, "customer-data"), to="site")
    assert ws.resume(asked, {"decisions": [{"type": "approve"}]}).effect == "ask"
    assert not ws.sent("site")


def test_failed_tool_is_permitted_and_failed(ws: TestWorkspace) -> None:
    logo = ws.import_asset(labels=["brand"])
    outcome = ws.call("broken", source=logo)
    assert (outcome.effect, outcome.failed, outcome.assets) == ("permit", True, ())


def test_approved_call_runs_when_it_is_resumed(ws: TestWorkspace) -> None:
    picture = queued(ws, "customer-data")
    outcome = ws.call("export_asset", asset=picture, to="site", caption="hello")
    with pytest.raises(ApprovalError, match=KIM):
        ws.approve(outcome, by=KIM)  # who asked for the job
    while ws.questions:
        people = ws.guard.approvals.eligible(ws.questions[0])
        ws.approve(outcome, by=people[-1])
    assert not ws.sent("site")  # an answer runs nothing
    outcome = ws.resume(outcome)
    assert (outcome.effect, outcome.failed) == ("permit", False)
    (delivery,) = ws.sent("site")
    assert delivery.text == "hello"


def test_denied_call_stays_denied(ws: TestWorkspace) -> None:
    picture = queued(ws, "customer-data")
    outcome = ws.call("export_asset", asset=picture, to="site")
    assert ws.deny(outcome, by=OMAR).state == "denied"
    outcome = ws.resume(outcome)
    assert outcome.effect == "deny"
    assert not ws.sent("site")


def test_nobody_answers_for_a_call_that_asked_nobody(ws: TestWorkspace) -> None:
    outcome = ws.call("copy", source="/etc/passwd")
    with pytest.raises(ApprovalError, match="nobody was asked about copy"):
        ws.approve(outcome, by=OMAR)
    with pytest.raises(ApprovalError, match="nobody was asked about copy"):
        ws.approve(ws.call("copy", source=ws.import_asset()), by=OMAR)
    with pytest.raises(ApprovalError, match="0 questions are open"):
        ws.approve(by=OMAR)
    with pytest.raises(ApprovalError, match="no configured person"):
        ws.approve(by="eve@acme.example")


def test_question_expires_when_time_passes(ws: TestWorkspace) -> None:
    picture = queued(ws, "customer-data")
    outcome = ws.call("export_asset", asset=picture, to="site")
    ws.advance("23h")
    assert len(ws.questions) == 1
    ws.advance(timedelta(hours=2))
    assert not ws.questions
    with pytest.raises(ApprovalError):
        ws.approve(outcome, by=OMAR)
    assert ws.resume(outcome).effect == "deny"


def test_open_jobs_live_through_time_that_passes(ws: TestWorkspace) -> None:
    logo = ws.import_asset(labels=["brand"])
    assert ws.call("copy", source=logo).effect == "permit"
    with ws.job() as job:
        ws.advance("30d")
        picture = ws.import_asset(labels=["brand"])
        assert ws.call("copy", source=picture).job == job.id
    assert ws.call("copy", source=logo).effect == "permit"
    ws.guard.verify()


def test_revoked_credential_does_not_come_back_with_time(ws: TestWorkspace) -> None:
    logo = ws.import_asset(labels=["brand"])
    outcome = ws.call("copy", source=logo)
    (credential,) = ws.guard.ledger.all("SELECT id FROM credentials")
    ws.guard.ledger.revoke_credential(credential["id"], reason="a test")
    ws.advance("1h")
    again = ws.call("copy", source=logo)
    assert (outcome.effect, again.effect) == ("permit", "deny")


def test_time_stands_still_and_never_goes_back(ws: TestWorkspace) -> None:
    before = ws.guard.ledger.clock()
    assert ws.guard.ledger.clock() == before
    for wrong in ("yesterday", timedelta(seconds=-1), "-1h"):
        with pytest.raises(ValueError):  # noqa: PT011  pydantic's and ours
            ws.advance(wrong)
    assert ws.guard.ledger.clock() == before


def test_left_job_is_rejoined_to_go_on(ws: TestWorkspace) -> None:
    with ws.job(requested_by=LEE) as job:
        picture = queued(ws, "customer-data")
        outcome = ws.call("export_asset", asset=picture, to="site")
    with pytest.raises(JobError, match="was left"):
        ws.resume(outcome)
    ws.approve(outcome, by=OMAR, group="legal")
    with ws.guard.rejoin_job(job.id, by=LEE):
        assert ws.resume(outcome).effect in ("ask", "permit")


def test_agent_has_to_be_said_where_none_or_several_could_call(ws: TestWorkspace) -> None:
    with pytest.raises(ValueError, match="no tool 'nothing' is bound"):
        ws.call("nothing")
    with pytest.raises(ValueError, match="no agent 'eve' is configured"):
        ws.call("copy", agent="eve")
    assert ws.call("nothing", agent="editor").effect == "deny"


def test_combined_agent_is_the_caller_of_each_of_its_stages(config: Path) -> None:
    head, _, rest = CONFIG.partition("[agents.painter]")
    studio = (
        f'[agents.studio]\nowner = "{KIM}"\nunsafe_combined_stages = true\n'
        'stages = ["generate", "edit", "queue", "export"]\n'
    )
    config.write_text(
        head + studio + "[destinations.team]" + rest.partition("[destinations.team]")[2]
    )
    with workspace(config, tools=TOOLS) as ws:
        logo = ws.import_asset(labels=["brand"])
        calls = [
            ws.call("copy", source=logo),
            ws.call("queue_for_release", asset=logo, to="site"),
            ws.call("export_asset", asset=logo, to="team"),
        ]
        assert [(one.effect, one.agent) for one in calls] == [("permit", "studio")] * 3
        asked = ws.call("export_asset", asset=logo, to="site")
        with pytest.raises(ApprovalError):
            ws.approve(asked, by=KIM)  # who owns the agent


def test_unknown_destination_is_an_error_of_the_test(ws: TestWorkspace) -> None:
    with pytest.raises(ValueError, match="no destination 'sight'"):
        ws.sent("sight")


def test_outcome_has_no_truth_value(ws: TestWorkspace) -> None:
    with pytest.raises(TypeError, match=r"outcome\.effect"):
        assert ws.call("list_assets")


async def test_asynchronous_tool_is_awaited(ws: TestWorkspace) -> None:
    logo = ws.import_asset(labels=["brand"])
    outcome = await ws.acall("copy_later", source=logo)
    assert (outcome.effect, outcome.assets) == ("permit", (logo,))
    picture = ws.import_asset(labels=["customer-data"])
    await ws.acall("queue_for_release", asset=picture, to="site")
    asked = await ws.acall("export_asset", asset=picture, to="site")
    while ws.questions:
        ws.approve(asked, by=ws.guard.approvals.eligible(ws.questions[0])[-1])
    assert (await ws.aresume(asked)).effect == "permit"
