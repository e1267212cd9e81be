"""Every private name of LangGraph and LangChain that this package touches, in one place.

Each has a canary in tests/langgraph/test_upstream.py, which fails with the name when an upgrade
moves it; langgraph-prebuilt is capped below its next minor version for the same reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

import langgraph.errors
from langchain_core.messages import AnyMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langchain_core.tools.base import _get_runnable_config_param
from langgraph._internal._constants import (
    CONFIG_KEY_CHECKPOINTER,
    CONFIG_KEY_READ,
)
from langgraph._internal._runnable import RunnableCallable
from langgraph.prebuilt import ToolNode

__all__ = [
    "RunnableCallable",
    "filled_by_run",
    "has_checkpointer",
    "is_invalid_resume",
    "messages_key",
    "messages_of",
    "parse_calls",
    "to_arguments",
    "wrappers_of",
]


def is_invalid_resume(error: BaseException) -> bool:
    """Whether a tool's own `interrupt` got a resume value off its `response_schema`.

    LangGraph fails the run then, so that the interrupt can be answered again.
    """
    known = getattr(langgraph.errors, "is_invalid_resume", None)  # newer than our lower bound
    return known is not None and bool(known(error))


def has_checkpointer(configurable: Mapping[str, Any]) -> bool:
    """Whether an interrupt of this run can be resumed."""
    return bool(configurable.get(CONFIG_KEY_CHECKPOINTER))


def state_of(config: RunnableConfig) -> dict[str, Any] | None:
    """The state in the running task's channels; None outside a graph."""
    read = config.get("configurable", {}).get(CONFIG_KEY_READ)
    if read is None:
        return None
    values: dict[str, Any] = read(list(read.args[1]), True)
    return values


def wrappers_of(node: ToolNode) -> tuple[Any, Any]:
    """The wrappers that a ToolNode was given for its calls: synchronous, asynchronous."""
    return node._wrap_tool_call, node._awrap_tool_call


def messages_key(node: ToolNode) -> str:
    """The state key that holds a ToolNode's messages."""
    return node._messages_key


def parse_calls(
    node: ToolNode, input: Any
) -> tuple[list[dict[str, Any]], Literal["list", "dict", "tool_calls"]]:
    """The tool calls in any form of input that ToolNode takes, and which form it was.

    Raises:
        ValueError: no message, or no AI message, as ToolNode itself raises.
    """
    calls, form = node._parse_input(input)
    return [dict(call) for call in calls], form


def messages_of(node: ToolNode, input: Any) -> list[AnyMessage]:
    """The messages in a state-like input, empty where there are none."""
    if isinstance(input, list):
        return input
    if isinstance(input, Mapping):
        return list(input.get(node._messages_key, ()))
    return list(getattr(input, node._messages_key, ()))


def to_arguments(
    tool: BaseTool, tool_input: dict[str, Any], tool_call_id: str | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a tool's own schema makes of its input, as `BaseTool.run` computes it.

    Raises:
        pydantic.ValidationError: the input is off the schema.
    """
    return tool._to_args_and_kwargs(tool_input, tool_call_id)


def filled_by_run(tool: BaseTool) -> frozenset[str]:
    """The parameters of `_run` that `BaseTool.run` fills itself, whatever the model wrote there."""
    names: set[str] = set()
    for method in (tool._run, tool._arun):
        names |= {"run_manager"} & set(inspect.signature(method).parameters)
        config = _get_runnable_config_param(method)
        names |= {config} if config else set()
    return frozenset(names)
