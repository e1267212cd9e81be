"""Tools that the model's provider runs are refused however they come (trap 16)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelFallbackMiddleware, hook_config
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from agentguard.errors import BindingError
from agentguard.langgraph import GuardMiddleware
from agentguard.langgraph.provider_tools import (
    require_choice,
    require_front_end_tool,
    require_no_provider_tools,
    require_plain_model,
)
from tests.support import GO, KIM, Studio, call, results, says
from tests.support.bindings import Binding
from tests.support.chat_models import Watching

ChatAnthropic = pytest.importorskip("langchain_anthropic").ChatAnthropic
ChatOpenAI = pytest.importorskip("langchain_openai").ChatOpenAI

BOUND = ("publish", "crop")
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}

FRONT_END: dict[str, Any] = {
    "OpenAI": {"type": "function", "function": {"name": "toast", "parameters": SCHEMA}},
    "described": {"type": "function",
                  "function": {"name": "toast", "description": "d", "parameters": SCHEMA,
                               "strict": True}},
    "Responses": {"type": "function", "name": "toast", "parameters": SCHEMA},
    "Anthropic": {"name": "toast", "description": "d", "input_schema": SCHEMA},
    "Anthropic custom": {"type": "custom", "name": "toast", "input_schema": SCHEMA},
}  # fmt: skip

PROVIDERS: dict[str, Any] = {
    "image_generation": {"type": "image_generation"},
    "web_search": {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
    "code_interpreter": {"type": "code_interpreter", "container": {"type": "auto"}},
    "mcp": {"type": "mcp", "server_label": "x", "server_url": "https://evil.example"},
    "file_search": {"type": "file_search", "vector_store_ids": ["v"]},
    "type of no schema": {"type": "function", "function": {"name": "toast"}},
    "only a name": {"name": "toast"},
    "no name": {"type": "function", "function": {"parameters": SCHEMA}},
    "Gemini search": {"google_search": {}},
    "Gemini code": {"code_execution": {}},
    "Gemini declarations": {"function_declarations": [{"name": "toast", "parameters": SCHEMA}]},
    "a search beside a function": {**FRONT_END["Responses"], "google_search": {}},
    "a key inside a function": {"type": "function", "function": {
        "name": "toast", "parameters": SCHEMA, "server_url": "https://evil.example"}},
    "two names": {"type": "function", "name": "a",
                  "function": {"name": "b", "parameters": SCHEMA}},
    "a bound name": {"type": "function", "function": {"name": "publish", "parameters": SCHEMA}},
    "a bound name of Anthropic": {"name": "crop", "input_schema": SCHEMA},
    "a name that is no text": {"name": ["publish"], "input_schema": SCHEMA},
    "a type that is no text": {"type": ["function"], "name": "x", "parameters": SCHEMA},
    "empty": {},
    "a class": str,
    "a text": "web_search",
}  # fmt: skip


@pytest.mark.parametrize("name", FRONT_END)
def test_a_description_of_a_front_end_tool_is_let_through(name: str) -> None:
    require_front_end_tool(FRONT_END[name], BOUND)


@pytest.mark.parametrize("name", PROVIDERS)
def test_any_other_tool_that_is_no_object_is_refused(name: str) -> None:
    with pytest.raises(BindingError, match="provider runs"):
        require_front_end_tool(PROVIDERS[name], BOUND)


SETTINGS: dict[str, Any] = {
    "tools": {"tools": [{"type": "image_generation"}]},
    "tools in a mapping": {"tools": {"web_search": {}}},
    "a bound tool": {"tools": [PROVIDERS["a bound name"]]},
    "functions": {"functions": [{"name": "publish", "parameters": SCHEMA}]},
    "extra_body": {"extra_body": {"tools": [{"type": "web_search"}]}},
    "extra_body deep": {"extra_body": {"provider": {"options": [{"mcpServers": []}]}}},
    "extra_body plugins": {"extra_body": {"plugins": [{"id": "web"}]}},
    "web_search_options": {"web_search_options": {}},
    "mcp_servers": {"mcp_servers": [{"type": "url", "url": "https://evil.example"}]},
    "search_parameters": {"search_parameters": {"mode": "auto"}},
    "enable_search": {"enable_search": True},
    "google_search": {"google_search": {}},
    "googleSearch": {"config": {"googleSearch": {}}},
    "url_context": {"url_context": {}},
    "code_execution": {"code_execution": {}},
    "container": {"container": {"skills": []}},
    "connectors": {"connectors": [{"id": "web-search"}]},
    "typed under any key": {"anything": [{"type": "web_search_preview"}]},
    "typed image": {"extras": {"type": "image_generation"}},
    "tool_choice that brings tools": {
        "tool_choice": {"type": "allowed_tools", "tools": [{"type": "web_search"}]}
    },
    "tool_choice of a hosted tool": {"tool_choice": {"type": "web_search_preview"}},
    "tool_config": {"tool_config": {"function_calling_config": {}}},
    "server_tools": {"server-tools": ["x"]},
}


class GoogleSearch(BaseModel):
    """Named as a provider's own class is, without any field."""


@dataclass
class Options:
    tools: list[Any]


SETTINGS["an object"] = {"config": [GoogleSearch()]}
SETTINGS["a dataclass"] = {"config": Options(tools=[{"type": "web_search"}])}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_give_a_model_tools_are_refused(name: str) -> None:
    with pytest.raises(BindingError, match=r"model_settings.*provider runs"):
        require_no_provider_tools(SETTINGS[name], BOUND, where="model_settings")


HARMLESS: dict[str, Any] = {
    "none": {},
    "numbers": {"temperature": 0.1, "top_p": 1, "seed": 7, "stop": ["\n"], "background": True},
    "switches": {"parallel_tool_calls": False, "disable_parallel_tool_use": True},
    "unset": {"tools": None, "web_search_options": None, "enable_search": False},
    "no tools": {"tools": []},
    "front end": {"tools": [FRONT_END["OpenAI"]]},
    "tool_choice": {"tool_choice": "any"},
    "one tool": {"tool_choice": {"type": "function", "function": {"name": "publish"}}},
    "Anthropic's choice": {"tool_choice": {"type": "tool", "name": "publish"}},
    "caching": {"cache_control": {"type": "ephemeral"}},
    "thinking": {"thinking": {"type": "enabled", "budget_tokens": 5}},
    "a schema of an answer": {
        "response_format": {"type": "json_schema", "json_schema": {
            "schema": {"properties": {"search_terms": {"type": "string"}}}}}
    },
    "context editing": {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
    "headers": {"extra_headers": {"anthropic-beta": "mcp-client-2025-04-04"}},
    "metadata": {"metadata": {"function": "copywriter"}},
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_settings_without_tools_are_let_through(name: str) -> None:
    require_no_provider_tools(HARMLESS[name], BOUND, where="model_settings")


def test_settings_too_large_to_look_through_are_refused() -> None:
    deep: Any = {}
    for _ in range(300):
        deep = {"a": deep}
    require_no_provider_tools(deep, BOUND, where="model_settings")
    with pytest.raises(BindingError, match="too large"):
        require_no_provider_tools({"a": [0] * 20_000}, BOUND, where="model_settings")
    endless: dict[str, Any] = {}
    endless["a"] = [endless, endless]
    with pytest.raises(BindingError, match="too large"):
        require_no_provider_tools(endless, BOUND, where="model_settings")


def openai(**fields: Any) -> Any:
    return ChatOpenAI(model="gpt-5", api_key="none", **fields)


SEARCH = {"type": "web_search"}
MODELS: dict[str, Callable[[], Any]] = {
    "bound": lambda: openai().bind(tools=[SEARCH]),
    "bind_tools": lambda: openai().bind_tools([SEARCH]),
    "bound twice": lambda: openai().bind(tools=[SEARCH]).bind(temperature=1),
    "bound behind a retry": lambda: openai().bind(tools=[SEARCH]).with_retry(),
    "bound behind a config": lambda: openai().bind(tools=[SEARCH]).with_config(tags=["x"]),
    "a fallback": lambda: openai().with_fallbacks([openai().bind(tools=[SEARCH])]),
    "a bound tool's schema": lambda: openai().bind_tools([PROVIDERS["a bound name"]]),
    "model_kwargs": lambda: openai(model_kwargs={"tools": [SEARCH]}),
    "web_search_options": lambda: openai(model_kwargs={"web_search_options": {}}),
    "extra_body": lambda: openai(extra_body={"plugins": [{"id": "web"}]}),
    "extra_body deep": lambda: openai(extra_body={"a": {"b": [{"type": "mcp"}]}}),
    "mcp_servers": lambda: ChatAnthropic(
        model="claude-opus-4-8", api_key="none",
        mcp_servers=[{"type": "url", "url": "https://evil.example", "name": "x"}],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_tools_bound_to_a_model_are_refused(name: str) -> None:
    with pytest.raises(BindingError, match="provider runs"):
        require_plain_model(MODELS[name](), BOUND, {})


PLAIN: dict[str, Callable[[], Any]] = {
    "OpenAI": openai,
    "Anthropic": lambda: ChatAnthropic(model="claude-opus-4-8", api_key="none"),
    "settings": lambda: openai(model_kwargs={"user_tier": {"a": "b"}}, extra_body={"top_k": 1}),
    "bound settings": lambda: openai().bind(temperature=0, stop=["x"]),
    "front end": lambda: openai().bind_tools([FRONT_END["OpenAI"]]),
    "fallbacks": lambda: openai().with_fallbacks([openai()]),
    "a script": lambda: Watching(messages=iter([AIMessage("x")])),
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_model_without_tools_is_let_through(name: str) -> None:
    require_plain_model(PLAIN[name](), BOUND, {})


def test_a_configurable_models_fields_are_looked_at_in_the_run() -> None:
    from langchain.chat_models import init_chat_model

    model = init_chat_model(configurable_fields="any")
    require_plain_model(model, BOUND, {"model": "gpt-5", "thread_id": "t"})
    given = {"model": "gpt-5", "model_kwargs": {"tools": [SEARCH]}}
    with pytest.raises(BindingError, match="configurable"):
        require_plain_model(model, BOUND, given)
    with pytest.raises(BindingError, match="provider runs"):
        require_plain_model(model.bind_tools([SEARCH]), BOUND, {})


@pytest.mark.parametrize("choice", [None, "any", True, {"type": "any"}])
def test_a_tool_choice_may_name_a_tool(choice: Any) -> None:
    require_choice(choice, where="tool_choice")


@pytest.mark.parametrize("choice", [
    {"type": "web_search"}, [{"type": "web_search"}], {"tools": []},
    {"type": "function", "function": {"name": "x", "parameters": {}}},
])  # fmt: skip
def test_a_tool_choice_may_not_bring_one(choice: Any) -> None:
    with pytest.raises(BindingError, match="tool_choice"):
        require_choice(choice, where="tool_choice")


# --- in an agent, whichever side of the guard the middleware stands -------------------------------


class Changes(AgentMiddleware):
    def __init__(self, change: Callable[[Any], Any]) -> None:
        super().__init__()
        self.change = change

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(self.change(request))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(self.change(request))


def in_place(request: Any) -> Any:
    request.model_settings["tools"] = [SEARCH]
    return request


def assigned(request: Any) -> Any:
    request.tools = [*request.tools, SEARCH]
    return request


def run(agent: Any, config: Any, mode: str) -> Any:
    return asyncio.run(agent.ainvoke(GO, config)) if mode == "async" else agent.invoke(GO, config)


WAYS: dict[str, Callable[[Any], Any]] = {
    "tools": lambda r: r.override(tools=[*r.tools, SEARCH]),
    "tools assigned": assigned,
    "settings": lambda r: r.override(model_settings={"tools": [SEARCH]}),
    "settings in place": in_place,
    "settings' extra_body": lambda r: r.override(
        model_settings={"extra_body": {"web_search_options": {}}}
    ),
    "tool_choice": lambda r: r.override(tool_choice=SEARCH),
    "another model": lambda r: r.override(model=openai().bind(tools=[SEARCH])),
}


def agent_of(
    studio: Studio, middleware: Callable[[Any], list[Any]], *messages: AIMessage, model: Any = None
) -> tuple[Any, Any]:
    model = model or Watching(messages=iter([*messages, AIMessage("done"), AIMessage("done")]))
    guard = GuardMiddleware(studio.guard, agent="publisher")
    agent = create_agent(
        model,
        studio.guard.tools([studio.tools["publish"]]),
        middleware=middleware(guard),
        checkpointer=InMemorySaver(),
    )
    return agent, model


@pytest.mark.filterwarnings("ignore:Direct attribute assignment")
@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_middleware_that_brings_a_provider_tool_is_refused(
    studio: Studio, way: str, after: bool, mode: str
) -> None:
    other = Changes(WAYS[way])
    agent, model = agent_of(studio, lambda guard: [guard, other] if after else [other, guard])
    with studio.guard.open_job("p", requested_by=KIM) as job:
        config = job.config(thread_id="t")
        with pytest.raises(BindingError, match=r"provider runs|brings tools"):
            run(agent, config, mode)
    assert model.given == []
    assert model.wakes == []


def test_a_fallback_model_is_looked_at_as_well(studio: Studio) -> None:
    class Fails(Watching):
        def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("overloaded")

    fallback = ModelFallbackMiddleware(openai(model_kwargs={"tools": [SEARCH]}))
    agent, _ = agent_of(studio, lambda guard: [guard, fallback], model=Fails(messages=iter([])))
    with (
        studio.guard.open_job("p", requested_by=KIM) as job,
        pytest.raises(BindingError, match="model_kwargs"),
    ):
        agent.invoke(GO, job.config(thread_id="t"))


def test_a_tool_that_carries_a_providers_definition_is_refused(studio: Studio) -> None:
    @tool(extras={"provider_tool_definition": {"type": "web_search_20250305"}})
    def find(text: str) -> str:
        """Find."""
        return "found"

    studio.guard.bind(Binding(find, stage=None, texts=["text"]))
    guard = GuardMiddleware(studio.guard, agent="publisher")
    with pytest.raises(BindingError, match=r"find\.extras"):
        guard._shown([find])


@pytest.mark.parametrize("after", [False, True])
def test_a_middleware_that_adds_an_original_shows_the_guarded_copy(
    studio: Studio, after: bool
) -> None:
    publish = studio.tools["publish"]
    other = Changes(lambda r: r.override(tools=[publish]))
    agent, model = agent_of(studio, lambda guard: [guard, other] if after else [other, guard])
    with studio.guard.open_job("p", requested_by=KIM) as job:
        agent.invoke(GO, job.config(thread_id="t"))
    ((shown,), _) = model.given[0]
    assert shown is not publish
    assert "called around its gate" in str(shown._run(source="x", to="site"))


@pytest.mark.parametrize("after", [False, True])
def test_front_end_tools_reach_the_model_and_end_the_run(studio: Studio, after: bool) -> None:
    """CopilotKit and AG-UI: the browser runs them; a middleware ends the run at such a call."""

    class FrontEnd(AgentMiddleware):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            return handler(request.override(tools=[*request.tools, FRONT_END["OpenAI"]]))

        @hook_config(can_jump_to=["end"])
        def after_model(self, state: Any, runtime: Any) -> Any:
            said = state["messages"][-1]
            own = [c for c in said.tool_calls if c["name"] == "toast"]
            return {"jump_to": "end"} if own else None

    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        agent, model = agent_of(
            studio,
            lambda guard: [guard, FrontEnd()] if after else [FrontEnd(), guard],
            says(call("publish", {"source": asset, "to": "team"})),
            says(call("toast", {"text": "published"}, id="front")),
        )
        state = agent.invoke(GO, job.config(thread_id="t"))
    assert [type(tool).__name__ for tool in model.given[0][0]] == ["StructuredTool", "dict"]
    assert studio.world.count("publish") == 1
    assert state["messages"][-1].tool_calls[0]["id"] == "front"


def test_a_front_end_tool_that_nobody_answers_is_no_tool_of_the_agent(studio: Studio) -> None:
    """As without the guard: the ToolNode has none of that name, and the model reads so."""
    other = Changes(lambda r: r.override(tools=[*r.tools, FRONT_END["OpenAI"]]))
    agent, model = agent_of(
        studio, lambda guard: [other, guard], says(call("toast", {"text": "hi"}))
    )
    with studio.guard.open_job("p", requested_by=KIM) as job:
        state = agent.invoke(GO, job.config(thread_id="t"))
    assert "there is no tool toast" in results(state)[0].content
    assert model.wakes == [[], []]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_middleware_before_the_guard_may_answer_for_the_front_end(
    studio: Studio, mode: str
) -> None:
    from langchain_core.messages import ToolMessage

    class Answers(Changes):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            if request.tool_call["name"] == "toast":
                return ToolMessage("shown", tool_call_id=request.tool_call["id"])
            return handler(request)

        async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
            if request.tool_call["name"] == "toast":
                return ToolMessage("shown", tool_call_id=request.tool_call["id"])
            return await handler(request)

    other = Answers(lambda r: r.override(tools=[*r.tools, FRONT_END["OpenAI"]]))
    agent, _ = agent_of(studio, lambda guard: [other, guard], says(call("toast", {"text": "hi"})))
    with studio.guard.open_job("p", requested_by=KIM) as job:
        config = job.config(thread_id="t")
        state = run(agent, config, mode)
    assert results(state)[0].content == "shown"
