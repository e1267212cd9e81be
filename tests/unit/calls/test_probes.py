"""A developer's tool after a crash: the key it sent under, and the probe that looks for it."""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import tool

from agentguard import Guard
from agentguard.bindings.bound import Bound
from agentguard.errors import BindingError, ClaimError, LedgerUnavailable
from tests.crash.aftermath import Uploads
from tests.e2e.test_readme import blocks
from tests.support import KIM, Clock, Studio, build, call, open_studio, results, says
from tests.support.bindings import Arg, Attempt, Binding, idempotency_key
from tests.support.command_line import Shell
from tests.support.late_tools import bind_in_a_job

LEASE_S = 30
SECRET = "sk-live-0123456789abcdef"


class Killed(BaseException):
    """Stands in for a signal: nothing catches it, and the outcome is not recorded."""


@dataclass
class Vendor:
    """A vendor that remembers what was sent under which key, and a tool that sends there."""

    keys: list[str] = field(default_factory=list)
    asked: list[Attempt] = field(default_factory=list)
    says: Callable[[Attempt], Any] | None = None
    before: Callable[[], None] = lambda: None  # in the body, before anything is sent

    def probe(self, attempt: Attempt) -> bool | None:
        self.asked.append(attempt)
        if self.says is not None:
            answer: bool | None = self.says(attempt)
            return answer
        return attempt.idempotency_key in self.keys

    def send(self) -> str:
        self.before()
        self.keys.append(idempotency_key())
        return "sent"


def bindings_of(vendor: Vendor, *, effect: str = "idempotent", probe: Any = None) -> list[Binding]:
    @tool
    def post(source: str, to: str, caption: str = "") -> str:
        """Post a picture by the developer's own code."""
        return vendor.send()

    return [
        Binding(post, stage="export", assets=["source"], texts=["caption"], destination=Arg("to"),
                effect=effect, probe=probe)
    ]  # fmt: skip


def open_desk(
    folder: Path, vendor: Vendor, *, keys: dict[str, Any] | None = None, clock: Clock | None = None,
    effect: str = "idempotent", probed: bool = True,
) -> Studio:  # fmt: skip
    studio = open_studio(folder, keys=keys, clock=clock)
    (binding,) = bindings_of(vendor, effect=effect, probe=vendor.probe if probed else None)
    studio.guard.bind(binding)
    studio.tools["post"] = binding.tool
    studio.picture()
    return studio


def rebind(studio: Studio, binding: Binding) -> None:
    """Declare `post` as a later process does, which opens this workspace with other code."""
    studio.guard.bound.pop("post", None)
    bind_in_a_job(studio.guard, binding)


@pytest.fixture
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
def workspace(ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose ledger is on each database."""
    monkeypatch.setenv("AGENTGUARD_LEDGER", ledger_url)
    return tmp_path


@pytest.fixture
def desk(workspace: Path, vendor: Vendor) -> Iterator[Studio]:
    made = open_desk(workspace, vendor)
    yield made
    made.guard.close()


@pytest.fixture
def local(tmp_path: Path, vendor: Vendor) -> Iterator[Studio]:
    """The same on SQLite alone: for what no database has a part in."""
    made = open_desk(tmp_path, vendor)
    yield made
    made.guard.close()


def post(studio: Studio, job: Any, *, thread: str = "t", **more: Any) -> str:
    """A message of its own asks for the one picture to be posted; what the model reads of it."""
    asset = job.import_asset(studio.folder / "in.png", ["brand"])
    made = says(call("post", {"source": asset, "to": "team", **more}))
    graph = build(studio, [made], {"export_tools": ("publisher", ["post"])})
    config = job.config(thread_id=thread)
    state = graph.invoke({"messages": [("user", "go")]}, config)
    if "__interrupt__" in state:
        studio.answer(studio.pending().request, "omar@acme.example")
        state = graph.invoke(None, config)
    (said,) = results(state)
    return f"{said.status}: {said.text}"


def die(*_: object, **__: object) -> None:
    raise Killed


def crash(studio: Studio, vendor: Vendor, *, sent: bool, job: Any = None, **more: Any) -> None:
    """A call whose process dies before or after it sent; its lease lapses, and it is swept."""
    job = job or studio.guard.open_job("poster", requested_by=KIM)
    with pytest.MonkeyPatch.context() as patch:
        if sent:
            patch.setattr(studio.guard.enforcement.executor, "collect", die)
        else:
            patch.setattr(studio.guard.enforcement.executor, "record_failure", die)
            patch.setattr(vendor, "before", die)
        with pytest.raises(Killed):
            post(studio, job, **more)
    studio.clock.turn(seconds=LEASE_S)
    studio.guard.ledger.sweep()


def away(*_: object, **__: object) -> bool:
    raise LedgerUnavailable("the disk is full")


def grants(studio: Studio) -> list[str]:
    rows = studio.guard.ledger.all("SELECT state FROM grants ORDER BY claimed_at, id")
    return [row["state"] for row in rows]


# --- what a probe ends ----------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [True, False])
def test_I8_a_probe_ends_an_unknown_and_says_what_really_happened(
    desk: Studio, vendor: Vendor, sent: bool
) -> None:
    crash(desk, vendor, sent=sent)
    assert grants(desk) == ["unknown"]
    ((request, said),) = desk.guard.reconcile()
    state = "executed" if sent else "failed"
    assert said == state
    assert grants(desk) == [state]
    outcome = desk.guard.ledger.one("SELECT * FROM outcomes")
    assert outcome is not None
    words = "found by the probe of post" if sent else "not found by the probe of post"
    assert outcome["text"].startswith(words)
    desk.guard.ledger.storage.wait_for_log()
    row = desk.guard.ledger.all("SELECT body FROM records ORDER BY idx")[-1]
    record = json.loads(row["body"])
    assert (record["kind"], record["request"], record["as"]) == ("reconciled", request, state)
    assert record["found"] == outcome["text"]
    assert desk.guard.reconcile() == []
    assert len(vendor.asked) == 1
    desk.guard.verify()


@pytest.mark.parametrize("sent", [True, False])
def test_I8_what_failed_by_probe_may_be_sent_again_and_what_is_there_may_not(
    workspace: Path, vendor: Vendor, sent: bool
) -> None:
    desk = open_desk(workspace, vendor, effect="probeable")
    with desk.guard as guard:
        crash(desk, vendor, sent=sent)
        with guard.open_job("again", requested_by=KIM) as job:
            assert "its outcome is not known" in post(desk, job)  # not before somebody looked
            guard.reconcile()
            again = post(desk, job)
        if sent:
            assert "it is done" in again
            assert grants(desk) == ["executed"]
        else:
            assert again == "success: sent"
            assert sorted(grants(desk)) == ["executed", "failed"]
        assert len(vendor.keys) == 1
        guard.verify()


def test_I8_not_there_is_not_believed_while_somebody_may_be_sending(
    desk: Studio, vendor: Vendor
) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    vendor.before = stop  # cancelled: its thread may still be at it
    with desk.guard.open_job("poster", requested_by=KIM) as job:
        with pytest.raises(KeyboardInterrupt):
            post(desk, job)
        assert grants(desk) == ["unknown"]
        assert "may still be sending" in desk.guard.reconcile()[0][1]
    assert "may still be sending" in desk.guard.reconcile()[0][1]  # over, and its lease is not
    assert grants(desk) == ["unknown"]
    desk.clock.turn(seconds=LEASE_S)
    assert desk.guard.reconcile()[0][1] == "failed"


def test_I8_what_is_there_is_believed_at_once(local: Studio, vendor: Vendor) -> None:
    vendor.says = lambda _: True

    def stop() -> None:
        raise KeyboardInterrupt

    vendor.before = stop
    job = local.guard.open_job("poster", requested_by=KIM)
    with pytest.raises(KeyboardInterrupt):
        post(local, job)
    assert local.guard.reconcile()[0][1] == "executed"


def test_I8_a_job_that_waits_sends_again_what_its_probe_did_not_find(
    desk: Studio, vendor: Vendor
) -> None:
    """Under the same key: it is the same content in the same job."""
    taken: list[str] = []

    def fail() -> None:
        taken.append(idempotency_key())
        raise TimeoutError

    vendor.before = fail
    with desk.guard.open_job("poster", requested_by=KIM) as job:
        assert "whether it took effect is not known" in post(desk, job)
        face = job.import_asset(desk.picture("face.png", "red"), ["likeness"])
        graph = build(desk, [says(call("publish", {"source": face, "to": "team"}))])
        state = graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="waits"))
        assert "__interrupt__" in state
    assert job.state == "waiting"
    assert "may still be sending" in desk.guard.reconcile()[0][1]
    desk.clock.turn(seconds=LEASE_S)
    assert desk.guard.reconcile()[0][1] == "failed"
    vendor.before = lambda: None
    with desk.guard.rejoin_job(job.id, by=KIM) as again:
        assert post(desk, again, thread="u") == "success: sent"
    assert vendor.keys == taken
    desk.guard.verify()


def test_a_probe_may_use_the_ledger_and_what_others_settle_meanwhile_stands(
    desk: Studio, vendor: Vendor
) -> None:
    """It runs outside of any transaction: one that waited for it would wait for ever."""
    crash(desk, vendor, sent=True)
    inner: list[Any] = []

    def slow(attempt: Attempt) -> bool:
        if not inner:
            inner.append(None)
            with desk.guard.open_job("meanwhile", requested_by=KIM):
                inner.extend(desk.guard.reconcile())
            return False  # what it saw before is late
        return True

    vendor.says = slow
    ((request, said),) = desk.guard.reconcile()
    assert said == "was settled meanwhile"
    assert inner[1:] == [(request, "executed")]
    assert grants(desk) == ["executed"]


# --- what it can't end ----------------------------------------------------------------------------


class Quiet(Exception):
    pass


def _raise(error: BaseException) -> Callable[[Attempt], bool]:
    def failing(_: Attempt) -> bool:
        raise error

    return failing


async def _later() -> bool:
    return True


@pytest.mark.parametrize(
    ("probe", "said"),
    [
        (lambda _: None, "its probe can't tell"),
        (_raise(Quiet(SECRET)), "its probe failed (Quiet)"),
        (_raise(TimeoutError(SECRET)), "its probe failed (TimeoutError)"),
        (lambda _: SECRET, "its probe returned str, expected True, False or None"),
        (lambda _: "no", "its probe returned str"),
        (lambda _: 1, "its probe returned int"),
        (lambda _: 0, "its probe returned int"),
        (lambda _: [], "its probe returned list"),
        (lambda _: _later(), "its probe returned coroutine"),
    ],
)
def test_I11_anything_but_a_plain_yes_or_no_leaves_it_unknown(
    local: Studio, vendor: Vendor, probe: Any, said: str
) -> None:
    crash(local, vendor, sent=True)
    vendor.says = probe
    ((_, found),) = local.guard.reconcile()
    assert found.startswith(f"stays unknown: {said}")
    assert "a person must look" in found
    assert SECRET not in found
    assert grants(local) == ["unknown"]
    vendor.says = None
    assert local.guard.reconcile()[0][1] == "executed"  # it was only away for a while


def test_one_probe_that_fails_does_not_hold_up_the_others(local: Studio, vendor: Vendor) -> None:
    crash(local, vendor, sent=True, caption="one")
    local.picture(colour="red")
    crash(local, vendor, sent=True, caption="two")
    vendor.says = lambda attempt: None if attempt.arguments["caption"] == "one" else True
    first, second = (said for _, said in local.guard.reconcile())
    assert first.startswith("stays unknown")
    assert second == "executed"


def test_an_opaque_effect_is_asked_nobody_about(local: Studio, vendor: Vendor) -> None:
    """Not even when the Binding of today has a probe: what was begun then had none."""
    (binding,) = bindings_of(vendor, effect="opaque")
    rebind(local, binding)
    local.tools["post"] = binding.tool
    crash(local, vendor, sent=True)
    rebind(local, bindings_of(vendor, probe=vendor.probe)[0])
    assert "this tool's effect can't be found out" in local.guard.reconcile()[0][1]
    assert vendor.asked == []


def test_I8_only_the_binding_that_it_was_begun_under_can_be_asked(
    local: Studio, vendor: Vendor
) -> None:
    crash(local, vendor, sent=False)
    known = local.guard.bound.pop("post")
    said = local.guard.reconcile()[0][1]
    assert said.startswith(
        "stays unknown: post is not bound here; `agentguard reconcile --bindings"
    )
    rebind(local, bindings_of(vendor)[0])
    assert "the declaration of post has no probe" in local.guard.reconcile()[0][1]
    (other,) = bindings_of(vendor, effect="probeable", probe=vendor.probe)
    rebind(local, other)
    assert "another version of its Binding" in local.guard.reconcile()[0][1]
    assert grants(local) == ["unknown"]
    assert vendor.asked == []
    local.guard.bound["post"] = known
    assert local.guard.reconcile()[0][1] == "failed"


@pytest.mark.parametrize(("effect", "found"), [("idempotent", "executed"), ("probeable", "stays")])
def test_I8_an_earlier_call_for_the_same_in_its_job_is_not_taken_for_it(
    tmp_path: Path, vendor: Vendor, effect: str, found: str
) -> None:
    """Both have one key. Where the vendor keeps one of each, it is there; else who knows which."""
    desk = open_desk(tmp_path, vendor, effect=effect)
    with desk.guard as guard:
        job = guard.open_job("poster", requested_by=KIM)
        assert post(desk, job) == "success: sent"
        crash(desk, vendor, sent=False, job=job, thread="u")
        ((_, said),) = guard.reconcile()
        assert said.startswith(found)
        if found == "stays":
            assert "another call of its job for the same" in said
            assert sorted(grants(desk)) == ["executed", "unknown"]
            vendor.keys.clear()  # and if it is not there, it is the later one that is not
            assert guard.reconcile()[0][1] == "failed"


# --- the key --------------------------------------------------------------------------------------


def test_the_key_is_that_of_the_grant_and_the_probe_is_told_it(
    local: Studio, vendor: Vendor
) -> None:
    began = local.clock.now
    caption = "ask omar@acme.example"  # and a person is asked
    crash(local, vendor, sent=True, caption=caption)
    local.guard.reconcile()
    (attempt,) = vendor.asked
    row = local.guard.ledger.one("SELECT * FROM grants")
    asset = local.guard.ledger.one("SELECT * FROM assets")
    assert row is not None
    assert asset is not None
    assert vendor.keys == [row["idempotency_key"]] == [attempt.idempotency_key]
    assert (attempt.tool, attempt.destination) == ("post", "team")
    assert attempt.assets == (asset["sha256"],)
    assert attempt.claimed_at == began
    assert attempt.arguments["source"] == asset["id"]
    assert "omar@" not in json.dumps(attempt.arguments)  # personal data stays out of it
    assert "caption" not in repr(attempt)


def test_I8_a_key_is_of_one_content_in_one_job(local: Studio, vendor: Vendor) -> None:
    """A model can't make two different calls answer for each other."""
    for _ in range(2):
        with local.guard.open_job("poster", requested_by=KIM) as job:
            post(local, job, thread=f"{job.id}-1", caption="one")
            post(local, job, thread=f"{job.id}-2", caption="two")
            post(local, job, thread=f"{job.id}-3", to="team", caption="one")
    first, second = vendor.keys[:3], vendor.keys[3:]
    assert first[0] == first[2] != first[1]
    assert second[0] == second[2] != second[1]
    assert not set(first) & set(second)
    assert all(len(key) == 64 and int(key, 16) for key in vendor.keys)


def test_outside_of_a_guarded_call_there_is_no_key(local: Studio, vendor: Vendor) -> None:
    with pytest.raises(ClaimError, match=r"monkeypatch\.setattr\(your_module"):
        idempotency_key()
    said: list[str] = []

    def elsewhere() -> None:
        try:
            idempotency_key()
        except ClaimError as error:
            said.append(str(error))

    def start() -> None:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    vendor.before = start
    with local.guard.open_job("poster", requested_by=KIM) as job:
        assert post(local, job) == "success: sent"
    assert "take the key before, and hand it over" in said[0]


def test_I8_what_a_tool_left_behind_gets_no_key(local: Studio, vendor: Vendor) -> None:
    kept: list[contextvars.Context] = []
    vendor.before = lambda: kept.append(contextvars.copy_context())
    with local.guard.open_job("poster", requested_by=KIM) as job:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(local.guard.ledger, "finish", away)
            assert "could not be recorded" in post(local, job)
        assert grants(local) == ["claimed"]  # owed: the ledger does not know yet that it is over
        with pytest.raises(ClaimError, match="this call is over"):
            kept[0].run(idempotency_key)


@pytest.mark.parametrize("ended", ["lease", "person", "swept"])
def test_I8_who_slept_past_the_end_of_its_job_gets_no_key_and_sends_nothing(
    desk: Studio, vendor: Vendor, ended: str
) -> None:
    """It was given up by then: found not to be there, and perhaps asked for again."""
    job = desk.guard.open_job("poster", requested_by=KIM)

    def sleep() -> None:
        if ended == "person":
            desk.guard.ledger.end_job(job.id, reason="stopped")
        else:
            desk.clock.turn(seconds=LEASE_S)
        if ended == "swept":
            assert desk.guard.reconcile()[0][1] == "failed"

    vendor.before = sleep
    said = post(desk, job)
    assert said.startswith("error")
    assert vendor.keys == []
    desk.clock.turn(seconds=LEASE_S)
    desk.guard.reconcile()
    assert grants(desk) == ["failed"]


async def test_an_asynchronous_tool_takes_its_key_on_a_thread(tmp_path: Path) -> None:
    keys: list[str] = []

    @tool
    async def post(source: str, to: str) -> str:
        """Post a picture by the developer's own code."""
        keys.append(await asyncio.to_thread(idempotency_key))
        keys.append(idempotency_key())
        return "sent"

    studio = open_studio(tmp_path)
    with studio.guard as guard:
        guard.bind(Binding(post, stage="export", assets=["source"], destination=Arg("to"),
                           effect="idempotent"))  # fmt: skip
        studio.tools["post"] = post
        with guard.open_job("poster", requested_by=KIM) as job:
            asset = job.import_asset(studio.picture(), ["brand"])
            graph = build(studio, [says(call("post", {"source": asset, "to": "team"}))],
                          {"export_tools": ("publisher", ["post"])})  # fmt: skip
            state = await graph.ainvoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
            assert results(state)[0].text == "sent"
        row = guard.ledger.one("SELECT idempotency_key FROM grants")
        assert row is not None
        assert keys == [row["idempotency_key"]] * 2


# --- the Binding ----------------------------------------------------------------------------------


class Asking:
    async def __call__(self, attempt: Attempt) -> bool:
        return True


async def _asking(attempt: Attempt) -> bool:
    return True


@tool
def look_up(attempt: str) -> bool:
    """Look for a post."""
    return True


@pytest.mark.parametrize(
    ("effect", "probe", "said"),
    [
        ("opaque", lambda attempt: True, r"an Opaque\(\) effect is one that nobody can ask about"),
        ("none", lambda attempt: True, "it has no effect="),
        ("probeable", "there", "expected a plain function"),
        ("probeable", _asking, "expected a plain function"),
        ("probeable", Asking(), "expected a plain function"),
        ("probeable", look_up, "which a model could call"),
        ("idempotent", lambda: True, "takes one argument, an Attempt"),
        ("idempotent", lambda attempt, more: True, "takes one argument, an Attempt"),
    ],
)
def test_a_probe_that_could_say_nothing_is_refused(effect: str, probe: Any, said: str) -> None:
    def render(source: str) -> str:
        """Render a picture."""
        return source

    with pytest.raises(BindingError, match=said):
        Binding(render, stage="render", assets=["source"], effect=effect, probe=probe)


def test_a_probe_is_no_part_of_what_a_call_does_so_it_does_not_change_the_digest(
    vendor: Vendor,
) -> None:
    """One can be added after the crash that it is for, and an approval outlives a better one."""
    (without,), (with_one,) = bindings_of(vendor), bindings_of(vendor, probe=vendor.probe)
    assert Bound(without).digest == Bound(with_one).digest
    (other,) = bindings_of(vendor, effect="probeable")
    assert Bound(other).digest != Bound(without).digest


# --- the page -------------------------------------------------------------------------------------


@pytest.mark.parametrize("arrives", [True, False])
def test_the_example_of_a_probe_runs_as_it_stands(tmp_path: Path, arrives: bool) -> None:
    (code,) = blocks("docs/explanation/crashes.md", "python")
    uploads = Uploads()
    studio = open_studio(tmp_path)
    try:
        scope: dict[str, Any] = {"VENDOR": uploads.url("page")}
        exec(compile(code, "docs/explanation/crashes.md", "exec"), scope)
        (binding,) = scope["bindings"]
        studio.guard.bound.pop("publish")
        studio.guard.bind(binding)
        studio.tools["publish"] = binding.tool
        job = studio.guard.open_job("poster", requested_by=KIM)
        asset = job.import_asset(studio.picture(), ["brand"])
        graph = build(studio, [says(call("publish", {"source": asset, "to": "team"}))])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(studio.guard.enforcement.executor, "collect", die)
            if not arrives:
                patch.setattr(studio.guard.enforcement.executor, "record_failure", die)
                patch.setitem(scope, "vendor", die)
            with pytest.raises(Killed):
                graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
        studio.clock.turn(seconds=LEASE_S)
        ((_, said),) = studio.guard.reconcile()
        assert said == ("executed" if arrives else "failed")
        assert len(uploads.of("page")) == arrives
    finally:
        studio.guard.close()
        uploads.close()


# --- the command line -----------------------------------------------------------------------------

MODULE = '''
from pathlib import Path
from tests.support.bindings import Arg, Binding

def post(source: str, to: str, caption: str = "") -> str:
    """Post a picture by the developer's own code."""
    return "sent"

def probe(attempt):
    print("asked")
    return attempt.idempotency_key in Path("arrived").read_text().split()

def bound(probe):
    return Binding(post, stage="export", assets=["source"], texts=["caption"],
                   destination=Arg("to"), effect="idempotent", probe=probe)

bindings = [bound(probe)]
twice = bindings * 2
nothing = ["a word"]
without = [bound(None)]
'''


def test_the_command_asks_the_probes_of_the_bindings_that_it_is_given(
    tmp_path: Path, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "desk_of_probes.py").write_text(MODULE)
    clock = Clock(now=1_000_000_000_000)  # long ago: the command has the real one
    desk = open_desk(tmp_path, vendor, clock=clock)
    crash(desk, vendor, sent=True)
    desk.guard.close()
    (tmp_path / "arrived").write_text("\n".join(vendor.keys))
    shell = Shell(tmp_path)
    said = shell("reconcile")
    assert "post is not bound here; `agentguard reconcile --bindings MODULE:NAME`" in said
    assert "--happened --by PERSON" in said  # or a person looks
    assert "is bound twice" in shell.error("reconcile", "--bindings", "desk_of_probes:twice")
    assert "expected a tool" in shell.error("reconcile", "--bindings", "desk_of_probes:nothing")
    assert "has no probe" in shell("reconcile", "--bindings", "desk_of_probes:without")
    shell("reconcile", "0" * 16, "--happened", "--by", KIM, "--bindings", "x:y", code=2)
    said, beside = shell.both("reconcile", "--bindings", "desk_of_probes:bindings", "--json")
    assert [one["found"] for one in json.loads(said)] == ["executed"]
    assert beside == "asked\n"  # what a probe prints is no part of it
    assert "No call has an unknown outcome" in shell("reconcile")
    with Guard.from_config(tmp_path / "agentguard.toml") as guard:
        row = guard.ledger.one("SELECT request FROM grants")
    assert row is not None
    assert "found by the probe of post" in shell("explain", row["request"])
    assert "records" in shell("audit", "verify")


def test_doctor_hints_at_a_probe_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "clinic_of_probes.py").write_text(MODULE)
    open_studio(tmp_path).guard.close()
    shell = Shell(tmp_path)
    hint = "post is idempotent and has no probe"

    def found(name: str) -> list[str]:
        said = shell.json("doctor", "--bindings", f"clinic_of_probes:{name}")
        return [one["state"] for one in said["findings"] if hint in one["text"]]

    assert found("without") == ["look"]
    assert found("bindings") == []


def test_I8_what_was_sent_under_another_configuration_is_not_looked_for_elsewhere(
    tmp_path: Path,
) -> None:
    """The destination's address changed in between: not there says nothing of where it was sent."""
    vendor = Vendor()
    studio = open_desk(tmp_path, vendor, effect="probeable")
    crash(studio, vendor, sent=True)
    studio.guard.close()
    written = (tmp_path / "agentguard.toml").read_text("utf-8")
    moved = written.replace('url = "file:out/team"', 'url = "file:out/elsewhere"')
    assert moved != written
    (tmp_path / "agentguard.toml").write_text(moved, "utf-8")
    later = Vendor()
    again = open_desk(tmp_path, later, keys=studio.keys, clock=studio.clock, effect="probeable")
    ((_, said),) = again.guard.reconcile()
    assert said.startswith("stays unknown: the configuration of team changed since it was begun")
    assert later.asked == []
    again.guard.close()
    (tmp_path / "agentguard.toml").write_text(written, "utf-8")
    back = open_desk(tmp_path, vendor, keys=studio.keys, clock=studio.clock, effect="probeable")
    assert [said for _, said in back.guard.reconcile()] == ["executed"]
    back.guard.close()
