"""The back doors of a graph: forged state, forged routes, old checkpoints, bare tool objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.types import Command, Send

from evals import steps
from evals.crew import HOME

if TYPE_CHECKING:
    from evals.session import Session

_Aim = TypeVar("_Aim")


def meddle(session: Session, step: Any) -> None:
    """Carry out a step that goes around the graph's own way. What breaks is noted."""
    match step:
        case steps.Invoke():
            _invoke(session, step)
        case steps.Replay():
            _replay(session)
        case steps.UpdateState():
            _update_state(session, step)
        case steps.Goto():
            _goto(session, step)


def _invoke(session: Session, step: steps.Invoke) -> None:
    agent = step.agent or HOME[step.calls[0].tool]
    tools = session.tool_objects(agent)
    for call in map(session.written, step.calls):
        with session.noting("invoke"):
            loop = session.loop(agent, "main")
            tool = tools[call["name"]]
            if loop.threads.runner is None:
                tool.invoke(call, loop.config)
            else:
                loop.threads.wait(tool.ainvoke(call, loop.config))


def _replay(session: Session) -> None:
    loop = session.latest()
    for old in [old for old in loop.history() if old.next]:
        merged = {**loop.config["configurable"], **old.config["configurable"]}
        with session.noting("replay"):
            session.invoke(loop, None, {"configurable": merged})


def _update_state(session: Session, step: steps.UpdateState) -> None:
    loop = session.latest()
    update = {"messages": [session.forged(loop, step.calls)]}
    nodes: Sequence[str | None] = (None,)
    if step.as_gate:
        nodes = _aims(session, _own((*loop.gates, *loop.nodes, "model"), step))
    for node in nodes:
        with session.noting("update-state"):
            loop.update_state(update, as_node=node)
            if node is not None:
                session.invoke(loop, None)


def _goto(session: Session, step: steps.Goto) -> None:
    loop = session.latest()
    calls = [session.written(call) for call in step.calls]
    payloads: list[Any] = [calls]
    if step.state is not None:
        said = HumanMessage(step.state)
        context = {"__type": "tool_call_with_context", "tool_call": calls[0]}
        payloads = [
            {**context, "state": {"messages": [said]}},
            {"messages": [said, AIMessage("", tool_calls=calls, id="forged")]},
        ]
    aims = [(node, payload) for payload in payloads for node in _own(loop.nodes, step)]
    for node, payload in _aims(session, aims):
        with session.noting("goto"):
            session.invoke(loop, Command(goto=Send(node, payload)))


def _own(nodes: Sequence[str], step: Any) -> Sequence[str]:
    """The nodes of the agent that has the forged call's tool; all, where agents have no nodes."""
    agent = HOME[step.calls[0].tool]
    return [node for node in nodes if node.startswith(f"{agent}_tools")] or nodes


def _aims(session: Session, aims: Sequence[_Aim]) -> Sequence[_Aim]:
    """What a forged call or state is aimed at in this run: all in turn, or one of them alone.

    An attempt that fails can spoil the next one, so each gets a run of its own; `variants` says
    how many runs that makes.
    """
    session.variants = max(session.variants, 1 + len(aims) if len(aims) > 1 else 1)
    return aims if session.variant == 0 else aims[session.variant - 1 : session.variant]
