"""What a guarded call costs next to the same call unguarded, in one run.

    python -m bench [--rounds N]

Machines are noisy, so the rounds of both sides alternate, and the ratio of the medians is what
counts. The graph is one model node and one ToolNode over a tool that does nothing, with
SqliteSaver; guarded, every call is decided, granted, claimed and recorded in a ledger on disk.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from rich.console import Console
from rich.table import Table

from agentguard import Binding, Guard
from agentguard.config import template
from agentguard.decide import decide
from agentguard.gather import facts, prepare
from agentguard.identity import create_log_key
from agentguard.jobs import Job
from agentguard.langgraph import GuardMiddleware, protect
from agentguard.langgraph.calls import make_call

KIM, OMAR = "kim@acme.example", "omar@acme.example"
_ids = itertools.count()


@tool
def note(text: str) -> str:
    """Do nothing with a text."""
    return "noted"


class _Model(GenericFakeChatModel):
    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


def _message(calls: int) -> AIMessage:
    made = [
        {
            "name": "note",
            "args": {"text": "a calm sea"},
            "id": f"c{next(_ids)}",
            "type": "tool_call",
        }
        for _ in range(calls)
    ]
    return AIMessage("", tool_calls=made, id=f"m{next(_ids)}")


def _builder(calls: int) -> StateGraph[Any, Any, Any, Any]:
    def model(state: MessagesState) -> dict[str, Any]:
        answered = isinstance(state["messages"][-1], ToolMessage)
        return {"messages": [AIMessage("done") if answered else _message(calls)]}

    builder: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    builder.add_node("model", model)
    builder.add_node("tools", ToolNode([note]))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    return builder


@contextmanager
def _guard() -> Iterator[Guard]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "agentguard.toml").write_text(template("bench", [KIM, OMAR]), "utf-8")
        (root / ".agentguard").mkdir()
        create_log_key(root / ".agentguard" / "log.key")
        binding = Binding(note, stage="edit", plain=["text"])
        with Guard.from_config(root / "agentguard.toml", bindings=[binding]) as guard:
            yield guard


def _timed(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return (time.perf_counter() - began) * 1000


def _graphs(guard: Guard, job: Job, folder: Path, calls: int, rounds: int) -> tuple[float, float]:
    """p50 in ms of one run through a bare ToolNode, and through `protect`."""
    with (
        SqliteSaver.from_conn_string(str(folder / f"bare-{calls}.db")) as one,
        SqliteSaver.from_conn_string(str(folder / f"guarded-{calls}.db")) as two,
    ):
        bare = _builder(calls).compile(checkpointer=one)
        sealed = protect(_builder(calls), guard, agents={"tools": "editor"})
        guarded = sealed.compile(checkpointer=two)
        times: tuple[list[float], list[float]] = ([], [])
        for number in range(rounds + 5):
            config = job.config(thread_id=f"t{number}")
            for side, graph in zip(times, (bare, guarded), strict=True):
                taken = _timed(lambda g=graph, c=config: _run(g, c, calls))  # type: ignore[misc]
                if number >= 5:  # warm
                    side.append(taken)
    return statistics.median(times[0]), statistics.median(times[1])


def _run(graph: Any, config: Any, calls: int) -> None:
    state = graph.invoke({"messages": [("user", "go")]}, config)
    done = [m for m in state["messages"] if isinstance(m, ToolMessage) and m.status == "success"]
    assert len(done) == calls, state["messages"][-2:]


def _agents(guard: Guard, job: Job, folder: Path, rounds: int) -> tuple[float, float]:
    """p50 in ms of one run of `create_agent`, without and with GuardMiddleware."""
    with SqliteSaver.from_conn_string(str(folder / "agents.db")) as saver:
        times: tuple[list[float], list[float]] = ([], [])
        script = itertools.cycle((lambda: _message(1), lambda: AIMessage("done")))
        model = _Model(messages=(say() for say in script))
        bare = create_agent(model, [note], checkpointer=saver)
        middleware = [GuardMiddleware(guard, agent="editor")]
        guarded = create_agent(
            model, guard.tools([note]), middleware=middleware, checkpointer=saver
        )
        for number in range(rounds + 5):
            for name, side, agent in (("b", times[0], bare), ("g", times[1], guarded)):
                config = job.config(thread_id=f"{name}{number}")
                taken = _timed(lambda a=agent, c=config: _run(a, c, 1))  # type: ignore[misc]
                if number >= 5:
                    side.append(taken)
    return statistics.median(times[0]), statistics.median(times[1])


def _decisions(guard: Guard, job: Job, rounds: int) -> tuple[float, float]:
    """p50 and p99 in µs of `decide` alone, for a permitted call."""
    call = make_call(
        guard,
        guard.bound["note"],
        agent="editor",
        arguments={"text": "a calm sea"},
        call_id="bench",
        configurable=job.config()["configurable"],
        source="bench",
    )
    guard.gate.credential(call)
    prepared = prepare(call, guard.workspace, guard.ledger)
    known = facts(call, prepared, guard.workspace, guard.ledger, now=guard.ledger.clock())
    now = guard.ledger.clock()
    times = [
        _timed(lambda: decide(guard.policy, prepared.request, known, (), now)) * 1000
        for _ in range(rounds * 20)
    ]
    return statistics.median(times), statistics.quantiles(times, n=100)[98]


def main() -> None:
    """Run all benchmarks and print one table."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="timed runs of each side")
    rounds = parser.parse_args().rounds
    table = Table("what", "bare, p50 ms", "guarded, p50 ms", "ratio", box=None)
    with (
        _guard() as guard,
        tempfile.TemporaryDirectory() as folder,
        guard.open_job("bench", requested_by=KIM) as job,
    ):
        for calls in (1, 8):
            bare, guarded = _graphs(guard, job, Path(folder), calls, rounds)
            what = f"protect, {calls} call{'s' * (calls > 1)} a message"
            table.add_row(what, f"{bare:.1f}", f"{guarded:.1f}", f"{guarded / bare:.2f}")
        bare, guarded = _agents(guard, job, Path(folder), rounds)
        table.add_row(
            "GuardMiddleware, 1 call", f"{bare:.1f}", f"{guarded:.1f}", f"{guarded / bare:.2f}"
        )
        p50, p99 = _decisions(guard, job, rounds)
        records = guard.ledger.storage.tree_size()
        verified = _timed(guard.verify)
    console = Console()
    console.print(table)
    console.print(f"decide alone: p50 {p50:.0f} µs, p99 {p99:.0f} µs, {len(guard.policy.rules)}"
                  " policies in the set")  # fmt: skip
    console.print(f"audit verify: {verified:.0f} ms for {records} records")


if __name__ == "__main__":
    main()
