"""Ask a person and go on, next to LangChain's own HumanInTheLoopMiddleware.

The guarded side asks in the ledger, verifies a signed Answer there, decides again, claims and
records; stock believes whatever it is resumed with. That a person signs takes no time here: the
Answer is signed between the two runs, and only its way in is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command

from agentguard.approvals import sign_answer
from agentguard.jobs import Job
from agentguard.langgraph import GuardMiddleware, protect
from agentguard.model import Answer, Verdict
from bench.figures import Figure
from bench.rounds import Scale, p
from bench.studio import (
    GO, KIM, OMAR, Studio, graph, publish, says, studio, succeeded, turns,
)  # fmt: skip

_AIMS = {"per_call": 0.8, "batched": 1.0}


def measure(scale: Scale) -> list[Figure]:
    """Ask-and-resume by every way in, in turn with both modes of stock."""
    scale.say("asking: a sensitive export, asked and approved")
    with (
        studio() as place,
        place.guard.open_job("bench", requested_by=KIM) as job,
        SqliteSaver.from_conn_string(str(place.folder / "saver.db")) as saver,
    ):
        asset = job.import_asset(place.picture(), ["customer-data"])

        def say() -> Any:
            return says("publish", {"source": asset, "to": "press"})

        sides: dict[str, tuple[Any, Callable[[Any, Any], float]]] = {
            "per_call": (_stock(say, saver, "per_call"), _by_payload(_approve_call)),
            "batched": (_stock(say, saver, "batched"), _by_payload(_approve_all)),
            "protect": (asking_graph(place, asset).compile(checkpointer=saver), by_person(place)),
            "GuardMiddleware": (_agent(place, say, saver), by_person(place)),
        }
        times: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(scale.rounds + 3):
            for name, (compiled, run) in sides.items():
                took = run(compiled, job.config(thread_id=f"{name}{number}"))
                if number >= 3:
                    times[name].append(took)
    medians = {name: p(50, each) for name, each in times.items()}
    return [
        Figure(
            subject="asking",
            what=f"{way}: ask and resume ÷ stock {mode}",
            value=medians[way] / medians[mode],
            unit="×",
            aim=aim,
            detail=f"{medians[mode]:.1f} → {medians[way]:.1f} ms",
        )
        for way in ("protect", "GuardMiddleware")
        for mode, aim in _AIMS.items()
    ]


def asking_graph(place: Studio, asset: str) -> Any:
    """A protected graph whose one call is an export that a person must approve; uncompiled."""
    builder = graph([publish], lambda: says("publish", {"source": asset, "to": "press"}))
    return protect(builder, place.guard, agents={"tools": "publisher"})


def by_person(place: Studio) -> Callable[[Any, Any], float]:
    """Ask, answer in the ledger under OMAR's key, resume; returns the ms without the signing."""

    def run(compiled: Any, config: Any) -> float:
        began = time.perf_counter()
        asked = compiled.invoke(GO, config)
        took = time.perf_counter() - began
        answer = _signed(place, asked["__interrupt__"][0].value)
        began = time.perf_counter()
        place.guard.approvals.answer(answer)
        state = compiled.invoke(None, config)
        took += time.perf_counter() - began
        succeeded(state, 1)
        return took * 1000

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


def _stock(say: Callable[[], Any], saver: Any, mode: Literal["per_call", "batched"]) -> Any:
    asks = HumanInTheLoopMiddleware({"publish": True}, interrupt_mode=mode)
    return create_agent(turns(say), [publish], middleware=[asks], checkpointer=saver)


def _agent(place: Studio, say: Callable[[], Any], saver: Any) -> Any:
    asks = GuardMiddleware(place.guard, agent="publisher")
    tools = place.guard.tools([publish])
    return create_agent(turns(say), tools, middleware=[asks], checkpointer=saver)


def _approve_call(asked: Any) -> Any:
    return {asked["__interrupt__"][0].id: {"type": "approve"}}


def _approve_all(asked: Any) -> Any:
    return {"decisions": [{"type": "approve"}]}


def _by_payload(answer: Callable[[Any], Any]) -> Callable[[Any, Any], float]:
    def run(compiled: Any, config: Any) -> float:
        began = time.perf_counter()
        asked = compiled.invoke(GO, config)
        state = compiled.invoke(Command(resume=answer(asked)), config)
        took = time.perf_counter() - began
        succeeded(state, 1)
        return took * 1000

    return run
