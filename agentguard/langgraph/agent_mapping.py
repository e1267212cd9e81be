"""Which agents a ToolNode, or the loop of a middleware, acts as."""

from __future__ import annotations

from collections.abc import Mapping

from agentguard.bindings.bound import Bound
from agentguard.calls.enforcement_point import EnforcementPoint
from agentguard.errors import BindingError
from agentguard.model import Stage

Agents = str | Mapping[Stage, str]


def agent_for(agents: Agents | None, stage: Stage | None) -> str | None:
    """Which agent a ToolNode acts as for a tool of a stage; empty: none (refused)."""
    if agents is None or isinstance(agents, str):
        return agents
    if stage is None:
        return agents[min(agents)]
    return agents.get(stage, "")


def known_agents(
    point: EnforcementPoint,
    node: str,
    given: str | Mapping[Stage | str, str],
    unsafe_shared_driver: bool,
) -> Agents:
    """The agents that a node acts as, by stage if it shares a driver.

    Raises:
        BindingError: none, unknown ones, or several without `unsafe_shared_driver`.
    """
    if isinstance(given, str):
        if given not in point.workspace.agents:
            raise BindingError(
                f"no agent {given!r} is configured; there are"
                f" {', '.join(sorted(point.workspace.agents))}"
            )
        return given
    if not given:
        raise BindingError(f"{node} names no agent; say which agent acts there")
    unknown = sorted(str(stage) for stage in given if str(stage) not in set(Stage))
    if unknown:
        raise BindingError(
            f"{node}: {', '.join(unknown)} is no stage; stages are {', '.join(Stage)}"
        )
    by_stage = {Stage(stage): agent for stage, agent in given.items()}
    if len(set(by_stage.values())) > 1 and not unsafe_shared_driver:
        raise BindingError(
            f"{node}: one loop drives {', '.join(sorted(set(by_stage.values())))}; a hijacked"
            " model reaches them all. Give each agent its own loop, or say"
            " unsafe_shared_driver=True"
        )
    for stage, agent in by_stage.items():
        known = point.workspace.agents.get(agent)
        if known is None or stage not in known.stages:
            raise BindingError(f"{node}: {agent!r} is no configured agent of the {stage} stage")
    return by_stage


def require_stage(point: EnforcementPoint, where: str, bound: Bound, agents: Agents) -> None:
    """Require that a tool's stage is one that its agent takes.

    Args:
        where: the ToolNode or middleware that would run it, for the error.

    Raises:
        BindingError: naming tool, stage and agent.
    """
    stage = bound.binding.stage
    if stage is None:
        return
    agent = agent_for(agents, stage)
    known = point.workspace.agents.get(agent or "")
    if known is None or stage not in known.stages:
        raise BindingError(
            f"{where}: {bound.name} belongs to the {stage} stage, which"
            f" {f'{agent} does not take' if agent else 'no agent here takes'};"
            f" take {bound.name} out of this loop, or"
            f' name an agent of that stage: {{"{stage}": ...}}'
        )
