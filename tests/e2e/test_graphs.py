"""The reference graphs: the scripted director, the studio, the solo agent, their command line."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from rich.console import Console

from agentguard import Guard
from agentguard.errors import ConfigError
from agentguard.model import Verdict
from agentguard.people.answers import sign_answer
from agentguard.people.approvals import Approval
from graphs import director, solo, studio
from graphs.approver import Approver
from graphs.bindings import AGENTS, toolboxes
from graphs.command import _carry_out
from graphs.director import HAND_OVER, ScriptedModel, load_model
from graphs.material import draw_customer, draw_logo
from graphs.running import begin, carry_out, destinations
from graphs.show import Show
from graphs.workspace import REQUESTER, Keys, make_workspace, new_folder, open_guard

ROOT = Path(__file__).parents[2]


class World:
    """A fresh built-in workspace, with material and everybody's keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys: Keys = make_workspace(folder)
        self.guard: Guard = open_guard(folder / "agentguard.toml")
        self.answers: list[Approval] = []

    def material(self, name: str, label: str) -> tuple[Path, tuple[str, ...]]:
        path = self.folder / name
        (draw_logo if "logo" in name else draw_customer)(path)
        return path, (label,)

    def answer(self, verdict: Verdict) -> Any:
        """An `answer` for `carry_out`: the first eligible person's."""

        def answering(pending: Sequence[Approval]) -> bool:
            for one in pending:
                self.answers.append(one)
                person = self.guard.approvals.eligible(one)[0]
                key = self.keys.held[person]
                now = self.guard.ledger.clock()
                self.guard.approvals.answer(
                    sign_answer(key, request=one.request, verdict=verdict, person=person,
                                group=None, at=now)
                )  # fmt: skip
            return True

        return answering

    def run(
        self, graph: Any, brief: str, *material: Any, verdict: Verdict = Verdict.APPROVE
    ) -> tuple[str, list[BaseMessage]]:
        """Carry out a brief; returns the last words and all messages."""
        with self.guard.open_job("test", requested_by=REQUESTER) as job:
            input, _ = begin(job, brief, material)
            told = carry_out(graph, self.guard, job, thread="t", input=input,
                             watch=lambda chunk: None, answer=self.answer(verdict))  # fmt: skip
            state = graph.get_state(job.config(thread_id="t"))
        return told or "", state.values["messages"]

    def delivered(self) -> dict[str, int]:
        return {id: len(files) for id, files in destinations(self.guard).items()}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(director, "_SIZE", "640x360")  # the painter's time goes with the pixels
    made = World(tmp_path / "w")
    yield made
    made.guard.close()


def graph_of(world: World, build: Any, **more: Any) -> Any:
    model = more.pop("model", ScriptedModel())
    return build(world.guard, model=model, checkpointer=InMemorySaver(), **more)


# --- the studio -----------------------------------------------------------------------------------


def test_every_tool_node_of_the_studio_stands_behind_a_gate(world: World) -> None:
    nodes = set(graph_of(world, studio.build).nodes)
    for agent in AGENTS:
        assert {f"{agent}_tools", f"{agent}_tools.execute", f"{agent}_tools.ask"} <= nodes


def test_each_model_is_shown_the_tools_of_its_own_stage_only(world: World) -> None:
    shown: list[tuple[str, ...]] = []

    class Watched(ScriptedModel):
        def bind_tools(self, tools: Any, **more: Any) -> Any:
            bound: Any = super().bind_tools(tools, **more)
            shown.append(bound.tools)
            return bound

    graph_of(world, studio.build, model=Watched())
    boxes = toolboxes(world.guard)
    assert shown == [(HAND_OVER,), *(tuple(t.name for t in boxes[agent]) for agent in AGENTS)]
    stages = {
        name: world.guard.bound[name].binding.stage
        for names in shown[1:]
        for name in names
        if name != "list_assets"
    }
    for agent, names in zip(AGENTS, shown[1:], strict=True):
        assert {stages[name] for name in names if name in stages} == {AGENTS[agent]}


def test_ids_come_from_the_state_and_a_no_is_reported(world: World) -> None:
    told, messages = world.run(
        graph_of(world, studio.build),
        "A red shoe with our logo. Send it to the team, then publish it on the site.",
        world.material("our-logo.png", "brand"),
        verdict=Verdict.DENY,
    )
    (asked,) = world.answers
    made = {row["id"] for row in world.guard.ledger.all("SELECT id FROM assets")}
    assert asked.shown["assets"][0]["asset"] in made
    assert "refused: a person said no" in told
    assert "refused: refused" not in told
    assert world.delivered() == {"team": 1}
    assert messages[-1].name == "director"


def test_a_refused_painter_ends_the_work_with_the_reason(world: World) -> None:
    secret = "sk-proj-" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9" * 2
    told, messages = world.run(graph_of(world, studio.build), f"A red shoe, key {secret}.")
    assert told.startswith("Nothing was made.")
    assert "secret" in told
    assert world.delivered() == {}
    assert [m for m in messages if isinstance(m, ToolMessage) and m.status == "error"]


async def test_the_studio_runs_asynchronously(world: World) -> None:
    graph = graph_of(world, studio.build)
    async with world.guard.open_job("test", requested_by=REQUESTER) as job:
        input, _ = begin(job, "A lake at dawn.", [])
        state = await graph.ainvoke(input, job.config(thread_id="t"))
    assert world.delivered() == {"team": 1}
    assert state["messages"][-1].text.startswith("Made 1 picture.")


class Clumsy(ScriptedModel):
    """A director that hands over to nobody known, then to two agents at once."""

    def bind_tools(self, tools: Any, **more: Any) -> Any:
        bound: Any = super().bind_tools(tools, **more)
        return bound if bound.tools == (HAND_OVER,) else ScriptedModel().bind_tools(tools)

    def speak(self, messages: Sequence[BaseMessage]) -> AIMessage:
        said = sum(isinstance(message, AIMessage) for message in messages)
        calls = [
            [("boss", "Hello")],
            [("painter", "A lake, 640x360"), ("publisher", "Export to site: everything")],
        ]
        return AIMessage(
            "" if said < 2 else "That is all.",
            tool_calls=[
                {"name": HAND_OVER, "args": {"agent": a, "task": t}, "id": f"h{said}{a}"}
                for a, t in (calls[said] if said < 2 else ())
            ],
        )


def test_a_director_hands_over_one_task_at_a_time_to_agents_that_exist(world: World) -> None:
    told, messages = world.run(graph_of(world, studio.build, model=Clumsy()), "Anything.")
    assert told == "That is all."
    reports = [m for m in messages if isinstance(m, ToolMessage) and m.name == HAND_OVER]
    assert "No such agent" in reports[0].text
    assert "asset-" in reports[1].text
    assert not [m for m in messages if isinstance(m, AIMessage) and m.name == "publisher"]
    asked = {call["id"] for m in messages if isinstance(m, AIMessage) for call in m.tool_calls}
    assert asked == {m.tool_call_id for m in messages if isinstance(m, ToolMessage)}


# --- solo -----------------------------------------------------------------------------------------


def test_the_solo_agent_does_the_same_with_one_agent_per_stage_on_record(world: World) -> None:
    told, _ = world.run(
        graph_of(world, solo.build),
        "Two pictures: a red shoe with our logo; a forest with the photo of our customer."
        " Send the pictures to the team, then publish the first on the site.",
        world.material("logo.png", "brand"),
        world.material("customer.jpg", "customer-data"),
    )
    assert told.startswith("Made 2 pictures.")
    assert world.delivered() == {"team": 2, "site": 1}
    agents = {row["agent"] for row in world.guard.ledger.all("SELECT agent FROM requests")}
    assert agents == {"painter", "editor", "reviewer", "traffic", "publisher"}


# --- people at a terminal -------------------------------------------------------------------------


def test_the_approver_shows_what_where_why_and_takes_an_a(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(record=True, width=120, file=io.StringIO())
    monkeypatch.setattr(console, "input", lambda prompt: "a")
    approver = Approver(world.guard, Show(console), key_of=world.keys.of, ask=True,
                        folder=world.folder / "look")  # fmt: skip
    world.answer = lambda verdict: approver  # type: ignore[method-assign]
    world.run(graph_of(world, studio.build), "A red shoe with our logo. Publish it on the site.",
              world.material("logo.png", "brand"))  # fmt: skip
    said = " ".join(console.export_text().split())
    for words in ("export_asset waits for a person", "class brand + generated",
                  "site: public, production", "is labelled brand and goes to a public audience",
                  "export.sensitive", "ines@studio.example, omar@studio.example",
                  "ines@studio.example approves, signed"):  # fmt: skip
        assert words in said
    (copy,) = (world.folder / "look").iterdir()
    (published,) = destinations(world.guard)["site"]
    assert copy.read_bytes() == published.read_bytes()


# --- the command line -----------------------------------------------------------------------------


def test_in_your_own_workspace_a_job_waits_and_is_resumed(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    config = world.folder / "agentguard.toml"
    logo, _ = world.material("logo.png", "brand")
    console = Console(record=True, width=200, file=io.StringIO())

    def go(**more: Any) -> int:
        options: dict[str, Any] = {
            "brief": "", "assets": [], "model": None, "out": tmp_path, "config": config,
            "by": None, "resume": None, "yes": False,
        }  # fmt: skip
        return _carry_out("studio", studio.build, Show(console), **{**options, **more})

    brief = "A red shoe with our logo. Publish it on the site."
    assert go(brief=brief, assets=[f"{logo}:brand"]) == 4
    (pending,) = world.guard.approvals.list()
    said = "".join(console.export_text(clear=False).split())
    assert f"approvalsapprove{pending.request[:16]}--as" in said
    assert f"--resume {pending.job}" in console.export_text()
    assert world.delivered() == {}
    world.answer(Verdict.APPROVE)([pending])
    assert go(resume=pending.job) == 0
    assert world.delivered() == {"site": 1}


@pytest.mark.parametrize("name", ["studio", "solo"])
def test_help_teaches(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"graphs.{name}", "--help"], cwd=ROOT, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    for word in ("--brief", "--asset", "FILE:CLASS", "--model", "--out", "--config", "--resume"):
        assert word in done.stdout
    assert "published" not in done.stderr


@pytest.mark.parametrize("name", ["openai:gpt-5", "nonsense:x", "nonsense"])
def test_a_model_that_cannot_be_had_is_one_sentence(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match=f"--model {name}: "):
        load_model(name)


def test_runs_get_folders_of_their_own(tmp_path: Path) -> None:
    first = new_folder(tmp_path, "run")
    first.mkdir()
    assert [first.name, new_folder(tmp_path, "run").name] == ["run-1", "run-2"]
