"""Ask a person and go on, next to LangChain's own HumanInTheLoopMiddleware.

The guarded side asks in the ledger, verifies a signed Answer there, decides again, claims and
records; stock believes whatever it is resumed with. That a person signs takes no time here: the
Answer is signed between the two runs, and only its way in is timed. The same nodes with nothing in
them say how much of it is LangGraph's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import MessagesState
from langgraph.types import Command, Send, interrupt

from agentguard.jobs.job import Job
from agentguard.langgraph import GuardMiddleware, protect
from agentguard.model import Answer, Verdict
from agentguard.people.answers import sign_answer
from bench.figures import Figure
from bench.rounds import Scale, Times, ratio, timing
from bench.studio import (
    GO,
    OMAR,
    Studio,
    graph,
    job_beside,
    outside,
    publish,
    says,
    studio,
    succeeded,
    turns,
    unbound,
)  # fmt: skip

_AIMS = {"per_call": 0.8, "batched": 1.2}


def measure(scale: Scale) -> list[Figure]:
    """Ask-and-resume by every way in, in turn with both modes of stock."""
    scale.say("asking: a sensitive export, asked and approved")
    with (
        studio() as place,
        SqliteSaver.from_conn_string(str(place.folder / "saver.db")) as saver,
    ):
        with sensitive_job(place) as (_, asset):
            pass  # the same picture is the same asset in every job

        def say() -> Any:
            return says("publish", {"source": asset, "to": "press"})

        sides: dict[str, tuple[Any, Run]] = {
            "per_call": (stock(asset, saver, "per_call"), by_payload(approve_call)),
            "batched": (stock(asset, saver, "batched"), by_payload(_approve_all)),
            "protect": (asking_graph(place, asset).compile(checkpointer=saver), by_person(place)),
            "GuardMiddleware": (_agent(place, say, saver), by_person(place)),
            "nodes": (_nodes_alone(asset, saver), by_payload(lambda asked: True)),
        }
        times = {name: Times() for name in sides}
        for number in range(scale.rounds + 3):
            with sensitive_job(place) as (job, _):
                for name, (compiled, run) in sides.items():
                    thread = f"{name}{number}"
                    guarded = name in ("protect", "GuardMiddleware")
                    config = job.config(thread_id=thread) if guarded else outside(thread)
                    run(compiled, config, times[name] if number >= 3 else Times())
    return [
        ratio("asking", f"{way}: ask and resume ÷ stock {mode}", times[mode], times[way], aim)
        for way in ("protect", "GuardMiddleware")
        for mode, aim in _AIMS.items()
    ] + [
        ratio("asking", f"protect's nodes with nothing in them ÷ stock {mode}",
              times[mode], times["nodes"])
        for mode in _AIMS
    ]  # fmt: skip


@contextmanager
def sensitive_job(place: Studio) -> Iterator[tuple[Job, str]]:
    """A job of its own for a few questions (no job asks people more than 50), and its asset."""
    with job_beside(place.guard) as job:
        yield job, job.import_asset(place.picture(), ["customer-data"])


def asking_graph(place: Studio, asset: str) -> Any:
    """A protected graph whose one call is an export that a person must approve; uncompiled."""
    builder = graph([publish], lambda: says("publish", {"source": asset, "to": "press"}))
    return protect(builder, place.guard, agents={"tools": "publisher"})


Run = Callable[[Any, Any, Times], None]


def by_person(place: Studio) -> Run:
    """Ask, answer in the ledger under OMAR's key, resume; timed without the signing."""

    def run(compiled: Any, config: Any, times: Times) -> None:
        first, then = Times(), Times()
        with timing(first):
            asked = compiled.invoke(GO, config)
        answer = _signed(place, asked["__interrupt__"][0].value)
        with timing(then):
            place.guard.approvals.answer(answer)
            state = compiled.invoke(None, config)
        times.wall.append(first.wall[0] + then.wall[0])
        times.cpu.append(first.cpu[0] + then.cpu[0])
        succeeded(state, 1)

    return run


def by_payload(answer: Callable[[Any], Any]) -> Run:
    """Ask, and resume with what stock believes."""

    def run(compiled: Any, config: Any, times: Times) -> None:
        with timing(times):
            asked = compiled.invoke(GO, config)
            state = compiled.invoke(Command(resume=answer(asked)), config)
        succeeded(state, 1)

    return run


def _signed(place: Studio, payload: Any) -> Answer:
    return sign_answer(
        place.omar,
        request=payload["agentguard"]["request"],
        verdict=Verdict.APPROVE,
        person=OMAR,
        group=None,
        at=place.guard.ledger.clock(),
    )


def stock(asset: str, saver: Any, mode: Literal["per_call", "batched"]) -> Any:
    """An agent of LangChain's that asks before it publishes."""
    plain = unbound(publish)
    asks = HumanInTheLoopMiddleware({plain.name: True}, interrupt_mode=mode)
    say = turns(lambda: says(plain.name, {"source": asset, "to": "press"}))
    return create_agent(say, [plain], middleware=[asks], checkpointer=saver)


def _nodes_alone(asset: str, saver: Any) -> Any:
    """The nodes that `protect` makes, without a guard: what LangGraph takes to ask and go on."""
    plain = unbound(publish)
    builder = graph([plain], lambda: says(plain.name, {"source": asset, "to": "press"}))
    tools: Any = builder.nodes.pop("tools").runnable

    def authorize(state: MessagesState) -> Command[Any]:
        last = state["messages"][-1]
        assert isinstance(last, AIMessage)
        (call,) = last.tool_calls
        return Command(goto=Send("tools.ask", [call]))

    def ask(calls: list[Any], config: RunnableConfig) -> Any:
        interrupt({"description": "May this be sent?"})
        return tools.invoke(calls, config)

    builder.add_node("tools", authorize)
    node: Any = ask
    builder.add_node("tools.ask", node)
    builder.edges.discard(("tools", "model"))
    builder.add_edge("tools.ask", "model")
    return builder.compile(checkpointer=saver)


def _agent(place: Studio, say: Callable[[], Any], saver: Any) -> Any:
    asks = GuardMiddleware(place.guard, agent="publisher")
    tools = place.guard.tools([publish])
    return create_agent(turns(say), tools, middleware=[asks], checkpointer=saver)


def approve_call(asked: Any) -> Any:
    """The answer to the one interrupt of `per_call`."""
    return {asked["__interrupt__"][0].id: {"type": "approve"}}


def _approve_all(asked: Any) -> Any:
    return {"decisions": [{"type": "approve"}]}
