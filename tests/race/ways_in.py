"""The three ways in, with the same tool behind each: what happens is counted in its body."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.checkpoint.memory import InMemorySaver

from agentguard.langgraph import GuardMiddleware, protect
from tests.support import Studio, tool_loop
from tests.support.bindings import Arg, Binding
from tests.support.late_tools import bind_in_a_job

WAYS = ("protect", "middleware", "inline")
MODES = ("sync", "async")
STAYS_S = 0.02  # so long the effect takes, for others to come in meanwhile


class Scripted(GenericFakeChatModel):
    """A chat model that says the next message of a script, by what was said before."""

    script: list[AIMessage]
    messages: Any = iter(())

    def _generate(self, messages: Any, *_: Any, **__: Any) -> ChatResult:
        said = sum(isinstance(message, AIMessage) for message in messages)
        message = self.script[said] if said < len(self.script) else AIMessage("done")
        return ChatResult(generations=[ChatGeneration(message=message)])

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self


def make_send(studio: Studio) -> BaseTool:
    """A bound tool with an opaque effect outside: `send(source, to)`, sync and async by itself."""

    def send(source: str, to: str) -> str:
        """Send a picture by the developer's own code."""
        time.sleep(STAYS_S)
        studio.world.effects.append(("send", to))
        return f"sent to {to}"

    async def asend(source: str, to: str) -> str:
        await asyncio.sleep(STAYS_S)
        studio.world.effects.append(("send", to))
        return f"sent to {to}"

    made = StructuredTool.from_function(send, asend)
    bind_in_a_job(
        studio.guard,
        Binding(made, stage="export", assets=["source"], destination=Arg("to"), effect="opaque"),
    )
    return made


def graph_of(
    studio: Studio,
    way: str,
    tool: BaseTool,
    script: list[AIMessage],
    *,
    agent: str = "publisher",
    stop_before: bool = False,
    saver: Any = None,
) -> Any:
    """A compiled graph of one model and one tool, guarded in one of the three ways.

    Args:
        stop_before: pause where the tools come next, so that many may go on from there.
    """
    compiled: dict[str, Any] = {"checkpointer": saver or InMemorySaver()}
    if stop_before:
        compiled["interrupt_before"] = ["tools"]
    if way == "middleware":
        return create_agent(
            Scripted(script=script),
            studio.guard.tools([tool]),
            middleware=[GuardMiddleware(studio.guard, agent=agent)],
            **compiled,
        )
    if way == "inline":
        (tool,) = studio.guard.tools([tool], agent=agent, gate="inline")
    builder = tool_loop(script, [tool])
    if way == "protect":
        builder = protect(builder, studio.guard, agents={"tools": agent})
    return builder.compile(**compiled)


def all_at_once(mode: str, runs: list[tuple[Any, Any, Any]]) -> list[Any]:
    """Runs (graph, input, config) all at once, in threads or on one event loop."""
    from tests.race.racers import race

    if mode == "sync":
        return race(*(_sync(*one) for one in runs))

    async def gathered() -> list[Any]:
        tasks = [graph.ainvoke(given, config) for graph, given, config in runs]
        return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(gathered())


def once(mode: str, graph: Any, given: Any, config: Any) -> Any:
    """Runs a graph once."""
    if mode == "sync":
        return graph.invoke(given, config)
    return asyncio.run(graph.ainvoke(given, config))


def _sync(graph: Any, given: Any, config: Any) -> Callable[[], Any]:
    return lambda: graph.invoke(given, config)
