"""What a media tool's body sees of the run that called it: nobody who listens (I4).

A body holds private paths and whole pictures. Whatever it starts (a chat model, a Runnable, a
graph) and whatever it says (custom events, the stream writer) would go on to the caller's
handlers, streams and tracers as it is. So the body runs with callbacks, stream writer and tracers
taken away; its result is what comes out, by the way of every result.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, cast
from uuid import uuid4

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.callbacks.manager import (
    AsyncCallbackManagerForToolRun,
    BaseRunManager,
    CallbackManager,
    CallbackManagerForToolRun,
)
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers.context import tracing_v2_callback_var
from langgraph.prebuilt import ToolRuntime
from langgraph.runtime import Runtime
from langsmith.run_helpers import tracing_context

from agentguard.langgraph import upstream as _upstream
from agentguard.langgraph.unguarded_runs import BELT

_NOBODY = BaseCallbackHandler()


@contextlib.contextmanager
def detached(*, pauses: bool) -> Iterator[None]:
    """Run a tool's body with nobody listening; the belt stays on.

    Args:
        pauses: its Binding declares that it pauses (`interrupts=True`), so it keeps what its own
            question, or that of an agent inside, needs in order to be asked and answered.
    """
    muted: dict[ContextVar[Any], Any] = {
        variable: _NOBODY if by_environment else None
        for variable, by_environment in _upstream.configure_hooks()
        if variable.get() is not BELT
    }
    muted[tracing_v2_callback_var] = None
    muted[_upstream.tool_call_writer] = None
    config = var_child_runnable_config.get()
    if config is not None:
        muted[var_child_runnable_config] = quiet(config, pauses=pauses)
    with contextlib.ExitStack() as stack:
        for variable, value in muted.items():
            stack.callback(variable.reset, variable.set(value))
        stack.enter_context(tracing_context(enabled=False))
        yield


def quiet(config: RunnableConfig, *, pauses: bool) -> RunnableConfig:
    """A run's config without the caller's callbacks, stream and writer.

    Args:
        pauses: see `detached`; without it, nothing of the caller's graph is left that could be
            written to, saved in or resumed from.
    """
    made: dict[str, Any] = dict(config)
    configurable = _upstream.quiet_configurable(config.get("configurable") or {}, pauses=pauses)
    # Without a run to hang on, `dispatch_custom_event` would raise.
    made["callbacks"] = CallbackManager(handlers=[], parent_run_id=uuid4())
    made["configurable"] = {key: _quiet(value) for key, value in configurable.items()}
    return cast(RunnableConfig, made)


def quiet_arguments(
    arguments: Mapping[str, Any], *, configs: frozenset[str], pauses: bool
) -> dict[str, Any]:
    """What LangChain and LangGraph fill in for a tool, without the caller's callbacks and writer.

    Args:
        configs: the arguments that hold a config.
    """
    made: dict[str, Any] = {}
    for name, value in arguments.items():
        if name in configs and isinstance(value, Mapping):
            made[name] = quiet(cast(RunnableConfig, value), pauses=pauses)
        elif isinstance(value, ToolRuntime):
            made[name] = dataclasses.replace(
                value, config=quiet(value.config, pauses=pauses), stream_writer=_unheard
            )
        else:
            made[name] = _quiet(value)
    return made


def _quiet(value: Any) -> Any:
    if isinstance(value, Runtime):
        return value.override(stream_writer=_unheard)
    if isinstance(value, AsyncCallbackManagerForToolRun):
        return AsyncCallbackManagerForToolRun.get_noop_manager()
    if isinstance(value, BaseRunManager):
        return CallbackManagerForToolRun.get_noop_manager()
    return value


def _unheard(chunk: Any) -> None:
    """A stream writer that nobody reads."""
