"""The back doors of a graph: forged state, forged routes, old checkpoints, bare tool objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import HumanMessage
from langgraph.types import Command, Send

from evals import steps
from evals.crew import HOME

if TYPE_CHECKING:
    from evals.session import Session


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
            tools[call["name"]].invoke(call, session.loop(agent, "main").config)


def _replay(session: Session) -> None:
    loop = session.latest()
    for old in [old for old in loop.graph.get_state_history(loop.config) if old.next]:
        merged = {**loop.config["configurable"], **old.config["configurable"]}
        with session.noting("replay"):
            session.invoke(loop, None, {"configurable": merged})


def _update_state(session: Session, step: steps.UpdateState) -> None:
    loop = session.latest()
    update = {"messages": [session.forged(loop, step.calls)]}
    nodes: Sequence[str | None] = (None,)
    if step.as_gate:
        nodes = _aims(session, (*loop.gates, *loop.nodes, "model"), step)
    for node in nodes:
        with session.noting("update-state"):
            loop.graph.update_state(loop.config, update, as_node=node)
            if node is not None:
                session.invoke(loop, None)


def _goto(session: Session, step: steps.Goto) -> None:
    loop = session.latest()
    calls = [session.written(call) for call in step.calls]
    payload: Any = calls
    if step.state is not None:
        payload = {
            "__type": "tool_call_with_context",
            "tool_call": calls[0],
            "state": {"messages": [HumanMessage(step.state)]},
        }
    for node in _aims(session, loop.nodes, step):
        with session.noting("goto"):
            session.invoke(loop, Command(goto=Send(node, payload)))


def _aims(session: Session, nodes: Sequence[str], step: Any) -> Sequence[str]:
    """The nodes that a forged call or state is aimed at: all in turn, or one of them alone.

    An attempt that fails can spoil the next one, so each node of the call's agent gets a run of
    its own; `variants` says how many runs that makes.
    """
    agent = HOME[step.calls[0].tool]
    own = [node for node in nodes if node.startswith(f"{agent}_tools")] or list(nodes)
    session.variants = max(session.variants, 1 + len(own) if len(own) > 1 else 1)
    return nodes if session.variant == 0 else own[session.variant - 1 : session.variant]
