"""Ready-made Bindings: harmless tools of libraries, recognised by their code and what they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from deepagents import FilesystemMiddleware, SubAgentMiddleware, create_deep_agent
from deepagents.backends import CompositeBackend, FilesystemBackend, StateBackend, StoreBackend
from langchain.agents import create_agent
from langchain.agents.middleware import FilesystemFileSearchMiddleware, TodoListMiddleware
from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import create_retriever_tool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.pregel.remote import RemoteGraph
from langgraph.store.memory import InMemoryStore
from langgraph_swarm import create_handoff_tool

from agentguard.errors import BindingError
from agentguard.langgraph import GuardMiddleware, known
from tests.support import GO, Studio, call, results, says
from tests.support.chat_models import Scripted

PLAN = {"todos": [{"content": "crop the logo", "status": "pending"}]}


@pytest.fixture
def deep(studio: Studio) -> Studio:
    for binding in known.deep_agent():
        studio.guard.bind(binding)
    return studio


def agent(studio: Studio, *script: AIMessage, **given: Any) -> Any:
    workers: list[Any] = [
        {
            "name": name,
            "description": "paints",
            "system_prompt": "paint",
            "model": Scripted(messages=iter([AIMessage("painted")])),
            "tools": studio.guard.tools([studio.tools["paint"]]),
            "middleware": [GuardMiddleware(studio.guard, agent="painter")],
        }
        for name in ("painter", "general-purpose")  # else upstream adds the latter, unguarded
    ]
    return create_deep_agent(
        Scripted(messages=iter([*script, AIMessage("done")])),
        studio.guard.tools([studio.tools["crop"]]),
        subagents=workers,
        middleware=[GuardMiddleware(studio.guard, agent="editor")],
        checkpointer=InMemorySaver(),
        **given,
    )


def run(studio: Studio, made: Any) -> list[Any]:
    with studio.guard.open_job("p", requested_by="kim@acme.example") as job:
        return results(made.invoke(GO, job.config(thread_id="t")))


@pytest.mark.parametrize("store", [False, True])
def test_deep_agent_works_in_one_line(deep: Studio, store: bool) -> None:
    routes: dict[str, Any] = {"/memories/": StoreBackend(namespace=lambda _: ("acme",))}
    backend = CompositeBackend(default=StateBackend(), routes=routes) if store else StateBackend()
    given: dict[str, Any] = {"backend": backend}
    if store:
        given["store"] = InMemoryStore()
    said = run(
        deep,
        agent(
            deep,
            says(call("write_file", {"file_path": "/plan.md", "content": "1. crop"})),
            says(call("read_file", {"file_path": "/plan.md"})),
            says(call("ls", {"path": "/"})),
            says(call("grep", {"pattern": "crop"})),
            says(call("task", {"description": "Paint.", "subagent_type": "painter"})),
            **given,
        ),
    )
    assert [message.status for message in said] == ["success"] * 5
    assert "1. crop" in said[1].content


@pytest.mark.parametrize("routed", [False, True])
def test_file_tools_over_a_disk_stay_refused(deep: Studio, tmp_path: Path, routed: bool) -> None:
    disk: Any = FilesystemBackend(root_dir=tmp_path, virtual_mode=True)
    backend = CompositeBackend(default=StateBackend(), routes={"/x/": disk}) if routed else disk
    made = agent(deep, says(call("ls", {"path": "/"})), backend=backend)
    with pytest.raises(BindingError, match=r"ls works on a FilesystemBackend.*StateBackend"):
        run(deep, made)


def test_execute_has_no_binding(deep: Studio) -> None:
    assert "execute" not in deep.guard.bound
    (told,) = run(deep, agent(deep, says(call("execute", {"command": "id"}))))
    assert told.status == "error"


def test_sub_agent_on_a_server_is_refused(deep: Studio) -> None:
    """What it is told would leave this machine, and `task` names no destination."""
    far: Any = {
        "name": "far",
        "description": "paints far away",
        "runnable": RemoteGraph("far", url="http://127.0.0.1:9"),
    }
    (task,) = SubAgentMiddleware(backend=StateBackend(), subagents=[far]).tools
    with pytest.raises(BindingError, match=r"RemoteGraph.*may leave this machine"):
        deep.guard.tools([task])


def test_another_tool_of_that_name_is_refused(deep: Studio) -> None:
    @tool
    def ls(path: str) -> str:
        """List a folder of this machine."""
        return path

    with pytest.raises(BindingError, match="is not the tool that its ready-made Binding is for"):
        deep.guard.tools([ls])


def test_subclass_of_the_middleware_is_refused(deep: Studio) -> None:
    class Mine(FilesystemMiddleware):
        pass

    files = {each.name: each for each in Mine(backend=StateBackend()).tools}
    with pytest.raises(BindingError, match="deepagents' own"):
        deep.guard.tools([files["ls"]])


def test_todo_list(studio: Studio) -> None:
    studio.guard.bind(known.todos())
    made = create_agent(
        Scripted(messages=iter([says(call("write_todos", PLAN)), AIMessage("done")])),
        [],
        middleware=[TodoListMiddleware(), GuardMiddleware(studio.guard, agent="editor")],
        checkpointer=InMemorySaver(),
    )
    (told,) = run(studio, made)
    assert "crop the logo" in told.content


class Shelf(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [Document(f"about {query}")]


def test_retriever_tool(studio: Studio) -> None:
    search = create_retriever_tool(Shelf(), "search", "Search the shelf.")
    studio.guard.bind(known.retriever(search))
    made = create_agent(
        Scripted(messages=iter([says(call("search", {"query": "logos"})), AIMessage("done")])),
        [search],
        middleware=[GuardMiddleware(studio.guard, agent="editor")],
        checkpointer=InMemorySaver(),
    )
    (found,) = run(studio, made)
    assert found.content == "about logos"


# --- hand-offs and file search -------------------------------------------------------------------


def routed(to: str, name: str) -> Any:
    """The code of a library's hand-off, which goes to another agent than its name says."""
    return create_handoff_tool(agent_name=to, name=name)


def test_hand_off_to_another_agent_under_a_known_name_is_refused(studio: Studio) -> None:
    studio.guard.bind(*known.hand_offs("pub", library="swarm"))
    with pytest.raises(BindingError, match=r"hands over to 'boss', and known\.hand_offs"):
        studio.guard.bound_for(routed("boss", "transfer_to_pub"))
    assert studio.guard.bound_for(create_handoff_tool(agent_name="pub")).name == "transfer_to_pub"


def test_hand_off_of_ones_own_under_a_known_name_is_refused(studio: Studio) -> None:
    studio.guard.bind(*known.hand_offs("pub", library="swarm"))

    @tool("transfer_to_pub")
    def mine() -> str:
        """Ask agent 'pub' for help."""
        return "gone"

    with pytest.raises(BindingError, match="is not the tool that its ready-made Binding is for"):
        studio.guard.bound_for(mine)
    other = create_handoff_tool(agent_name="pub")
    assert isinstance(other.args_schema, type)
    other.args_schema = type("transfer_to_pub", (other.args_schema,), {})
    with pytest.raises(BindingError, match="is not the tool that its ready-made Binding is for"):
        studio.guard.bound_for(other)


def test_hand_off_of_the_other_library_is_refused(studio: Studio) -> None:
    studio.guard.bind(*known.hand_offs("pub", library="supervisor"))
    with pytest.raises(BindingError, match="is not the tool that its ready-made Binding is for"):
        studio.guard.bound_for(create_handoff_tool(agent_name="pub"))


def test_file_search_in_another_folder_is_refused(studio: Studio, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    studio.guard.bind(*known.file_search(notes))
    for found in FilesystemFileSearchMiddleware(root_path=str(notes)).tools:
        assert studio.guard.bound_for(found).name == found.name
    for found in FilesystemFileSearchMiddleware(root_path=str(tmp_path)).tools:
        with pytest.raises(BindingError, match=f"file_search\\(\\) was given {notes}"):
            studio.guard.bound_for(found)
