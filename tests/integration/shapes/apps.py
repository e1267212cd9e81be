"""Rows 49-60: streams, checkpoints, servers, and what people send."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

from langchain.agents import create_agent
from langchain_core.tools import create_retriever_tool
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from langgraph.types import Command
from pydantic import BaseModel

from agentguard import Guard
from tests.integration.shapes.agents import agent_of
from tests.integration.shapes.bench import KIM, Bench, Go, begin, loop, told
from tests.integration.shapes.shape import Refused, shape
from tests.support import call, says
from tests.support.bindings import Binding

PUBLISHER = {"tools": "publisher"}


def graph_of(bench: Bench, state: Any = None, **compile: Any) -> Any:
    """The README's graph."""
    how = {} if state is None else {"state": state}
    builder = loop(bench.model(), ToolNode([bench.publish]), **how)
    return bench.protect(builder, PUBLISHER).compile(bench.saver, **compile)


@shape(49, 'interrupt_before=["tools"]')
def interrupt_before(bench: Bench) -> Go:
    graph = graph_of(bench, interrupt_before=["tools"])

    def go(resume: bool) -> Any:
        if not resume:
            graph.invoke(begin(), bench.config)
        return graph.invoke(None, bench.config)

    return go


@shape(49, "... time travel to before the tools", form=True)
def time_travel(bench: Bench) -> Go:
    graph = graph_of(bench)

    def go(resume: bool) -> Any:
        result = graph.invoke(None if resume else begin(), bench.config)
        if result.get("__interrupt__"):
            return result
        past = [one for one in graph.get_state_history(bench.config) if one.next == ("tools",)]
        place = past[0].config["configurable"]
        config = {**bench.config, "configurable": {**bench.config["configurable"], **place}}
        return graph.invoke(None, config)

    return go


@shape(49, "... stream in three modes", form=True)
def streaming(bench: Bench) -> Go:
    graph = graph_of(bench)

    def go(resume: bool) -> Any:
        modes = ["updates", "messages", "values"]
        given = None if resume else begin()
        chunks = list(graph.stream(given, bench.config, stream_mode=modes))
        return [chunk for mode, chunk in chunks if mode == "values"][-1]

    return go


class Plain(TypedDict):
    messages: Annotated[list[Any], operator.add]


class Model(BaseModel):
    messages: Annotated[list[Any], add_messages]


@shape(50, "state with operator.add")
def operator_add(bench: Bench) -> Go:
    return bench.graph(graph_of(bench, Plain))


@shape(50, "... as a pydantic model", form=True)
def pydantic_state(bench: Bench) -> Go:
    model = bench.model()
    builder = loop(model, ToolNode([bench.publish]), Model)
    said = lambda state: {"messages": [model.invoke(state.messages)]}  # noqa: E731
    builder.nodes.pop("llm_call")
    builder.add_node("llm_call", said)
    return bench.graph(bench.protect(builder, PUBLISHER).compile(bench.saver))


@shape(51, "agentic RAG: a retriever tool next to media tools")
def retriever(bench: Bench) -> Go:
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever

    class Notes(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            return [Document("brand colours are navy")]

    search = create_retriever_tool(Notes(), "search", "Searches notes.")
    bench.bind(Binding(search, stage=None, texts=["query"], local=True))
    model = bench.model(says(call("search", {"query": "colours"})))
    tools = bench.tools(search, bench.publish)
    return bench.graph(agent_of(bench, model=model, tools=tools))


@shape(52, "compile without a checkpointer", Refused("no checkpointer", kinds=["ask"]))
def no_checkpointer(bench: Bench) -> Go:
    builder = loop(bench.model(), ToolNode([bench.publish]))
    return bench.graph(bench.protect(builder, PUBLISHER).compile())


@shape(52, "... compile the builder instead", Refused("protect() returns"), form=True)
def builder_compiled(bench: Bench) -> Go:
    builder = loop(bench.model(), ToolNode(bench.tools(bench.publish)))
    bench.protect(builder, PUBLISHER)
    return bench.graph(builder.compile(bench.saver))


@shape(53, "langgraph dev: a module-level graph", Refused("a LangGraph server the graph's factory"))
def module_level(bench: Bench) -> Go:
    graph = agent_of(bench)
    bench.job.leave()

    def go(resume: bool) -> Any:
        return graph.invoke(begin(), {"configurable": {"thread_id": "1"}})

    return go


@shape(53, "... entered by a factory", form=True)
def factory(bench: Bench) -> Go:
    graph = agent_of(bench)

    def served() -> Any:
        return graph.with_config(bench.job.config(thread_id="1"))

    def go(resume: bool) -> Any:
        given = None if resume else begin()
        return served().invoke(given, {"configurable": {"thread_id": "1"}})

    return go


REJOIN = Refused("guard.rejoin_job(", kinds=["ask"])


@shape(54, "FastAPI, Chainlit: a job for each request", REJOIN)
def job_for_each_request(bench: Bench) -> Go:
    graph = agent_of(bench)

    def go(resume: bool) -> Any:
        bench.job.leave()
        with bench.guard.open_job("request", requested_by=KIM) as job:
            bench.asset = job.import_asset(bench.folder / "in.png", ["brand"])
            return graph.invoke(None if resume else begin(), job.config(thread_id="1"))

    return go


@shape(54, "... that re-enters the job of the question", form=True)
def job_of_the_question(bench: Bench) -> Go:
    graph = agent_of(bench)
    waits: list[str] = []

    def go(resume: bool) -> Any:
        bench.job.leave()
        guard = bench.guard
        with (
            guard.rejoin_job(waits[0], by=KIM)
            if resume
            else guard.open_job("request", requested_by=KIM)
        ) as job:
            bench.asset = job.import_asset(bench.folder / "in.png", ["brand"])
            waits[:] = [job.id]
            return graph.invoke(None if resume else begin(), job.config(thread_id="1"))

    return go


def streamed(bench: Bench, *, rejoins: bool) -> Go:
    graph = agent_of(bench)
    waits: list[str] = []

    def chunks(resume: bool) -> Any:
        guard = bench.guard
        with (
            guard.rejoin_job(waits[0], by=KIM)
            if resume and rejoins
            else guard.open_job("stream", requested_by=KIM)
        ) as job:
            job.import_asset(bench.folder / "in.png", ["brand"])
            waits[:] = [job.id]
            given = None if resume else begin()
            yield from graph.stream(given, job.config(thread_id="1"), stream_mode="values")

    def go(resume: bool) -> Any:
        last: Any = {}
        stream = chunks(resume)
        for chunk in stream:
            last = chunk
            if "__interrupt__" in chunk:
                stream.close()
                assert bench.open_questions(), "the question is revoked"
        return last

    return go


@shape(55, "a stream that its client closes, and a second one that re-enters the job")
def closed_stream(bench: Bench) -> Go:
    return streamed(bench, rejoins=True)


@shape(55, "... and a second one in a job of its own", REJOIN, form=True)
def closed_stream_and_another_job(bench: Bench) -> Go:
    return streamed(bench, rejoins=False)


@shape(56, "Streamlit: a new Guard for each rerun", Refused("a process opens one Guard"))
def new_guard_each_rerun(bench: Bench) -> Go:
    config_of_first = bench.config

    def go(resume: bool) -> Any:
        tools = [one.binding.tool for one in bench.guard.bound.values()]
        config = bench.folder / "agentguard.toml"
        clock = bench.guard.ledger.clock
        bindings = [one.binding for one in bench.guard.bound.values()]
        with Guard.from_config(config, tools=bindings, clock=clock) as rerun:
            before, bench.guard = bench.guard, rerun
            try:
                graph = agent_of(bench, tools=rerun.tools([tools[1]]))
                return graph.invoke(None if resume else begin(), config_of_first)
            finally:
                bench.guard = before

    return go


@shape(57, "a job that is opened without `with`")
def job_without_with(bench: Bench) -> Go:
    graph = agent_of(bench)
    job = bench.guard.open_job("no with", requested_by=KIM)
    bench.asset = job.import_asset(bench.folder / "in.png", ["brand"])
    bench.config = job.config(thread_id="1")
    bench.job.leave()
    return bench.graph(graph)


@shape(58, "an approve button that sends Command(resume=...)")
def approve_button(bench: Bench) -> Go:
    graph = agent_of(bench)
    formats: list[Any] = [True, "approve", {"type": "accept"}, [{"type": "approve"}]]

    def go(resume: bool) -> Any:
        if not resume:
            return graph.invoke(begin(), bench.config)
        result: Any = None
        for answer in formats:
            result = graph.invoke(Command(resume=answer), bench.config)
            if not bench.open_questions():
                break
        return result

    return go


@shape(59, "a person writes while a question is open")
def double_texting(bench: Bench) -> Go:
    model = bench.model()
    if bench.kind == "ask":
        model.script = [*model.script, *bench.model().script]
    graph = agent_of(bench, model=model)

    def go(resume: bool) -> Any:
        result = graph.invoke(None if resume else begin(), bench.config)
        if not resume and bench.open_questions():
            result = graph.invoke(begin(), bench.config)  # asked again; the old one is withdrawn
        return result

    return go


@shape(60, "two jobs in one process, and a run without a config", Refused("stands inside two"))
def two_jobs(bench: Bench) -> Go:
    graph = agent_of(bench)

    def go(resume: bool) -> Any:
        with bench.guard.open_job("inner", requested_by=KIM):
            return graph.invoke(None if resume else begin(), {"configurable": {"thread_id": "1"}})

    return go


__all__ = ["create_agent", "told"]
