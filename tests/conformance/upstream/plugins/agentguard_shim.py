"""A pytest plugin, for tests only: every tool of every ToolNode is guarded, every call authorized.

Upstream's tests know nothing of jobs, Bindings or gates. This opens a job around each test, makes
a Binding of each tool's own schema, and authorizes each call where ToolNode is about to run it,
with the arguments as the model wrote them. From there on all is the package's own: the decision
under the default policy, the Grant in a SQLite ledger, the guarded tool's claim, the tool's body,
and the recorded outcome. The package has nothing that grants itself.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool
from langgraph.prebuilt import ToolNode
from langgraph.prebuilt.tool_node import ToolCallRequest, _get_all_injected_args

from agentguard import Guard
from agentguard.bindings.argument_schema import Shape, jsonable
from agentguard.bindings.bound import Bound
from agentguard.bindings.compiled_binding import CompiledBinding
from agentguard.bindings.model_schema import injected, json_schema
from agentguard.calls.call import Call
from agentguard.canonical import digest
from agentguard.errors import BindingError
from agentguard.langgraph.guarded_tool import guarded, invoker_of
from agentguard.langgraph.runtime import CallContext
from agentguard.ledger.storage.open import wall_clock
from agentguard.model import ToolAction
from agentguard.transparency.log_key import create_log_key

_PERSON = "kim@acme.example"
_CONFIG = f"""
workspace = "upstream"
[people]
"{_PERSON}" = {{ groups = [] }}
[agents]
upstream = {{ stages = ["edit"], owner = "{_PERSON}" }}
"""


def pytest_configure(config: pytest.Config) -> None:
    shim = _Shim()
    shim.patch()
    config.pluginmanager.register(shim, "agentguard-shim")


class PlainBound(Bound):
    """Upstream's tools take paths and URLs as plain strings, which a Binding refuses (I3)."""

    def _require_plain(self, path: str, value: Any) -> None:
        pass


class OpenBound(Bound):
    """A tool that no Binding may describe (an open object, a union of shapes): taken as it is."""

    def __init__(self, binding: CompiledBinding) -> None:
        tool: Any = binding.tool
        self.binding = binding
        self.name = tool.name
        schema = tool.tool_call_schema
        self._json_schema = schema if isinstance(schema, dict) else schema.model_json_schema()
        self._leaves = {}
        self._factories = frozenset()
        names = set(self._json_schema.get("properties", {}))
        # Upstream also injects by name alone: `runtime: Any`, which the model sees.
        by_name = _get_all_injected_args(tool).runtime
        self.injected = injected(tool, names) | ({by_name} if by_name else set())
        self.args_schema = tool.args_schema
        self.digest = digest("agentguard/binding/v1", {"tool": self.name, "open": True})
        self.action = ToolAction(name=self.name, stage=None, arguments={})

    def freeze(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        frozen: dict[str, Any] = jsonable(dict(raw))
        return frozen

    def bits(self, frozen: Mapping[str, Any]) -> int:
        return 0  # nothing leaves


def bound(tool: BaseTool) -> Bound:
    """A Binding of a tool's own schema: no media, all arguments plain, free to pause and route."""
    try:
        plain = list(Shape(json_schema(tool), tool.name).leaves)
        return PlainBound(
            CompiledBinding(tool, stage=None, plain=plain, interrupts=True, unsafe_routes=True)
        )
    except BindingError:
        return OpenBound(CompiledBinding(tool, stage=None, interrupts=True, unsafe_routes=True))


class _Shim:
    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="agentguard-upstream-")
        folder = Path(self._folder.name)
        (folder / "agentguard.toml").write_text(_CONFIG, "utf-8")
        (folder / ".agentguard").mkdir()
        create_log_key(folder / ".agentguard" / "log.key")
        self._numbers = itertools.count()
        self._guard = Guard.from_config(folder / "agentguard.toml", clock=self._clock)
        self._tools: Counter[str] = Counter()
        self._job = ""

    def _clock(self) -> int:
        return wall_clock() + next(self._numbers)  # no two decisions in one millisecond

    def patch(self) -> None:
        init = ToolNode.__init__
        execute, aexecute = ToolNode._execute_tool_sync, ToolNode._execute_tool_async

        def __init__(node: ToolNode, *args: Any, **kwargs: Any) -> None:
            init(node, *args, **kwargs)
            for name, tool in node.tools_by_name.items():
                node.tools_by_name[name] = self._copy(tool)

        def _execute_tool_sync(
            node: ToolNode, request: ToolCallRequest, input_type: Any, config: Any
        ) -> Any:
            return execute(node, self._authorized(request, config), input_type, config)

        async def _execute_tool_async(
            node: ToolNode, request: ToolCallRequest, input_type: Any, config: Any
        ) -> Any:
            request = await asyncio.to_thread(self._authorized, request, config)
            return await aexecute(node, request, input_type, config)

        for method in (__init__, _execute_tool_sync, _execute_tool_async):
            setattr(ToolNode, method.__name__, method)

    @pytest.fixture(autouse=True)
    def _binding_may_read(self, request: pytest.FixtureRequest) -> None:
        """Let tools be bound and guarded in a coroutine, where upstream's tests build their agents.

        That reads which packages are installed; a program does it before its event loop runs. What
        a call does is watched as upstream watches it.
        """
        if "blockbuster" in request.fixturenames:
            for function in request.getfixturevalue("blockbuster").functions.values():
                function.can_block_in(Path(__file__).name, self._copy.__name__)

    @pytest.fixture(autouse=True)
    def _agentguard_job(self) -> Iterator[None]:
        opened = self._guard.open_job("upstream's test", requested_by=_PERSON)
        with opened as job, self._guard.unguarded("upstream's tests call tools themselves"):
            self._job = job.id
            yield

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self) -> Generator[None, None, None]:
        yield  # until the test's event loop is closed, which ends calls whose sibling raised
        left = self._guard.ledger.all(
            "SELECT requests.tool FROM grants JOIN requests ON digest = request"
            " WHERE requests.job = ? AND grants.state = 'claimed'",
            self._job,
        )
        assert not left, f"no outcome was recorded of {[row['tool'] for row in left]} (I8)"

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        grants = self._guard.ledger.all("SELECT state, count(*) AS n FROM grants GROUP BY state")
        states = {row["state"]: row["n"] for row in grants}
        terminalreporter.write_line(f"guarded tools: {dict(self._tools)}; grants: {states}")

    def pytest_unconfigure(self) -> None:
        self._guard.close()
        self._folder.cleanup()

    def _copy(self, tool: BaseTool) -> BaseTool:
        if invoker_of(tool) is not None:
            return tool
        made = bound(tool)
        self._tools[type(made).__name__] += 1
        # Upstream's tests use one name for many tools, in turns; a guard knows one at a time.
        self._guard.bound[tool.name] = made
        return guarded(self._guard.enforcement, tool, agents="upstream")

    def _authorized(self, request: ToolCallRequest, config: Any) -> ToolCallRequest:
        """Authorize a call as the gate does, and give back the request with its guarded tool."""
        call = request.tool_call
        if request.tool is None or not call["id"]:
            return request
        tool = self._copy(request.tool)  # a wrapper may have put in a tool of its own
        invoker = invoker_of(tool)
        assert invoker is not None
        configurable = (config or {}).get("configurable", {})
        source = self._source(request.state, call["id"], configurable)
        context = CallContext.from_config(self._guard.enforcement, config or {}, source=source)
        found = invoker.call(context, invoker.arguments_of(call["args"]), call["id"])
        if isinstance(found, Call):  # else the tool finds no grant, and says why
            self._guard.enforcement.authorizer.authorize([found])
        return request if tool is request.tool else request.override(tool=tool)

    def _source(self, state: Any, call_id: str, configurable: Mapping[str, Any]) -> str:
        """The message or task that a call is of, which makes a call that is run again one call.

        Without a thread nothing can be run again, and upstream's tests use the same message and
        call ids in run after run: each call is then one of its own.
        """
        if not configurable.get("thread_id"):
            return f"call-{next(self._numbers)}"
        holder = state if isinstance(state, Mapping) else getattr(state, "__dict__", {})
        messages = holder.get("messages", ())
        for message in reversed(messages):
            if isinstance(message, AIMessage):
                if message.id and any(call["id"] == call_id for call in message.tool_calls):
                    return message.id
                break
        return str(configurable.get("__pregel_task_id", ""))
