"""The solo agent: one `create_agent` loop for all stages, guarded by the middleware.

One model drives every stage here. Each stage still has its own agent, credential and record, but a
hijacked model reaches all of them, which is why the guard wants to hear `unsafe_shared_driver`.
Run it with `python -m graphs.solo --help`; `langgraph dev` serves it (`served`).
"""

from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph_sdk.runtime import ServerRuntime

from agentguard import Guard
from agentguard.langgraph import GuardMiddleware
from graphs.bindings import AGENTS, toolboxes
from graphs.prompts import solo_prompt
from graphs.studio import Graph


def build(
    guard: Guard,
    *,
    model: BaseChatModel,
    checkpointer: BaseCheckpointSaver[Any] | None = None,
) -> Graph:
    """The compiled agent; arguments as in `graphs.studio.build`."""
    by_stage = {stage: agent for agent, stage in AGENTS.items()}
    agent: Graph = create_agent(
        model,
        [tool for box in toolboxes(guard).values() for tool in box],
        system_prompt=solo_prompt(guard.workspace),
        middleware=[GuardMiddleware(guard, agent=by_stage, unsafe_shared_driver=True)],
        checkpointer=checkpointer,
        name="solo",
    )
    return agent.with_config(recursion_limit=200)


async def served(config: RunnableConfig, runtime: ServerRuntime[None]) -> Graph:
    """The solo agent on a LangGraph server; see graphs/serving.py for jobs and people."""
    from graphs import serving

    return await serving.graph(build, config, runtime)


if __name__ == "__main__":
    from graphs.command import run

    run("solo", build)
