"""The worst-case agent: it says whatever the scenario says, in the graph that a guard built."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import PrivateAttr

from evals.scenario import Inside


@dataclass
class Mouth:
    """What the model says next; when there is nothing left, it is done."""

    lines: deque[AIMessage] = field(default_factory=deque)
    agents: dict[str, str] = field(default_factory=dict)
    """Message id → the agent that says it."""
    _ids: Any = field(default_factory=lambda: itertools.count(1))

    def load(self, agent: str, calls: Sequence[Mapping[str, Any]]) -> AIMessage:
        """The next message."""
        message = AIMessage("", tool_calls=[dict(c) for c in calls], id=f"m{next(self._ids)}")
        self.agents[message.id or ""] = agent
        self.lines.append(message)
        return message

    def speak(self) -> AIMessage:
        try:
            return self.lines.popleft()
        except IndexError:
            return AIMessage("Done.", id=f"m{next(self._ids)}")


class ScriptedModel(BaseChatModel):
    """A chat model that says what its mouth is loaded with."""

    _mouth: Mouth = PrivateAttr()

    def __init__(self, mouth: Mouth) -> None:
        super().__init__()
        self._mouth = mouth

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._mouth.speak())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Threads:
    """Where a run keeps its threads, and how it runs them.

    Attributes:
        saver: a checkpointer; asynchronous if there is a runner.
        runner: what `ainvoke` runs on; None: `invoke`.
    """

    saver: Any
    runner: asyncio.Runner | None = None

    def wait(self, awaitable: Any) -> Any:
        """The result of something asynchronous, run in the caller's own Python context."""
        assert self.runner is not None
        return self.runner.run(awaitable, context=contextvars.copy_context())


OpenThreads = Callable[[Path], AbstractContextManager[Threads]]
"""Opens the threads of one run, given a folder of its own."""


@contextlib.contextmanager
def threads_in_memory(folder: Path) -> Iterator[Threads]:
    """Threads that nothing keeps."""
    yield Threads(saver=InMemorySaver())


@dataclass
class Loop:
    """One compiled graph on one thread."""

    graph: Any
    config: RunnableConfig
    agent: str
    nodes: tuple[str, ...]
    """Nodes that take tool calls: where a forged one can be sent."""
    runners: tuple[str, ...]
    """Nodes that run tools."""
    gates: tuple[str, ...] = ()
    """Other nodes that decide what runs next: whom a forged state can pretend to come from."""
    said: AIMessage | None = None
    held: list[bool] | None = None
    """Answers that were given and not delivered yet (stock HITL)."""
    threads: Threads = field(default_factory=lambda: Threads(saver=None))

    def invoke(
        self, value: Any, config: RunnableConfig | None = None, stop: list[str] | None = None
    ) -> Any:
        """Run the graph.

        Args:
            config: of an old checkpoint; None: of the thread's last one.
            stop: nodes before which the run stops.
        """
        where = config or self.config
        if self.threads.runner is None:
            return self.graph.invoke(value, where, interrupt_before=stop)
        return self.threads.wait(self.graph.ainvoke(value, where, interrupt_before=stop))

    def snapshot(self) -> Any:
        """The thread as its checkpointer has it."""
        if self.threads.runner is None:
            return self.graph.get_state(self.config)
        return self.threads.wait(self.graph.aget_state(self.config))

    def history(self) -> list[Any]:
        """Every checkpoint of the thread, the newest first."""
        if self.threads.runner is None:
            return list(self.graph.get_state_history(self.config))

        async def collect() -> list[Any]:
            return [old async for old in self.graph.aget_state_history(self.config)]

        found: list[Any] = self.threads.wait(collect())
        return found

    def update_state(self, values: Any, *, as_node: str | None) -> None:
        """Write to the thread's state, as a node of the graph if one is named."""
        if self.threads.runner is None:
            self.graph.update_state(self.config, values, as_node=as_node)
        else:
            self.threads.wait(self.graph.aupdate_state(self.config, values, as_node=as_node))

    def messages(self) -> list[Any]:
        """The messages of the thread; an entrypoint's state is what it returned: its messages."""
        values = self.snapshot().values or {}
        return list(values.get("messages", ()) if isinstance(values, Mapping) else values)

    def stopped(self) -> bool:
        """Whether the thread has something left to do."""
        return bool(self.snapshot().next)

    def waiting(self) -> tuple[Any, ...]:
        """The interrupts of this thread."""
        return tuple(self.snapshot().interrupts)


class Meddler(AgentMiddleware[Any, Any, Any]):
    """The developer's middleware of a scenario, before the guard's own, as README asks for.

    Args:
        args: what the arguments become, for kind `arguments`.
        other: the tool object that runs instead, for kind `object`.
    """

    def __init__(self, inside: Inside, args: Mapping[str, Any], other: BaseTool | None) -> None:
        super().__init__()
        self._inside = inside
        self._args = args
        self._other = other

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        return handler(self._changed(request))

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        return await handler(self._changed(request))

    def _changed(self, request: Any) -> Any:
        call = request.tool_call
        if call["name"] != self._inside.tool:
            return request
        if self._inside.kind == "arguments":
            return request.override(tool_call={**call, "args": {**call["args"], **self._args}})
        if self._inside.kind == "name":
            return request.override(tool_call={**call, "name": self._inside.to})
        return request.override(
            tool=self._other,
            tool_call={**call, "name": self._inside.to, "args": {**call["args"], **self._args}},
        )


def agent_loop(
    mouth: Mouth,
    tools: Sequence[BaseTool],
    middleware: Sequence[AgentMiddleware[Any, Any, Any]],
    saver: Any,
) -> Any:
    """A `create_agent` loop; its tools are in the node `tools`."""
    return create_agent(
        ScriptedModel(mouth), list(tools), middleware=list(middleware), checkpointer=saver
    )
