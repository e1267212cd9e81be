"""Ready-made Bindings for tools that touch no media, so that nobody is locked out of them.

    from agentguard.langgraph import known

    guard = Guard.from_config("agentguard.toml", tools=[*known.deep_agent(), *mine])

Todo lists, sub-agents, hand-offs, retrievers, file tools over the graph's own state or store, and
file search in a folder that you name. Other file tools over a disk or a sandbox, and `execute`,
reach this machine or another: they have no Binding here.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from pathlib import Path
from typing import Any, Literal

from langchain_core.tools import BaseTool, StructuredTool

from agentguard.bindings.declaration import Binding
from agentguard.bindings.known_tool import KnownTool
from agentguard.bindings.reach import reach_of
from agentguard.bindings.roles import Plain, Text
from agentguard.errors import BindingError

_FILES = {  # the words in the arguments of each; what else they take is numbers and choices
    "ls": ("path",),
    "read_file": ("file_path",),
    "write_file": ("file_path", "content"),
    "edit_file": ("file_path", "old_string", "new_string"),
    "delete": ("file_path",),
    "glob": ("pattern", "path"),
    "grep": ("pattern", "path", "glob"),
}
_WRITES_FILES = frozenset({"write_file", "edit_file", "delete"})


def deep_agent() -> list[Binding]:
    """Bindings for what `create_deep_agent` adds: todo list, files in state or store, sub-agents.

    Each agent's own tool objects are taken, as long as they run the library's code. Sub-agents need
    GuardMiddleware of their own, since what `task` runs is searched: also `general-purpose`, which
    `create_deep_agent` adds without one unless you name a sub-agent so yourself.

    Raises:
        BindingError: deepagents is not installed.
    """
    return [todos(), *files(), task()]


def todos() -> Binding:
    """The Binding of `write_todos`, of LangChain's TodoListMiddleware.

    Raises:
        BindingError: langchain is not installed.
    """
    try:
        from langchain.agents.middleware import TodoListMiddleware
    except ImportError as error:
        raise BindingError(
            f'known.todos() needs langchain ({error}): pip install "agentguard[langchain]"'
        ) from error
    (sample,) = TodoListMiddleware().tools
    return _bind(sample, args={"todos[].content": Text()}, state=["todos"])


def files() -> list[Binding]:
    """The Bindings of a deep agent's file tools over a StateBackend or a StoreBackend.

    A tool over any other backend is refused when the agent is built or first called: its files lie
    on a disk, in a sandbox or on a server.

    Raises:
        BindingError: deepagents is not installed.
    """
    try:
        from deepagents import FilesystemMiddleware
        from deepagents.backends import StateBackend
    except ImportError as error:
        raise BindingError("known.files() needs deepagents: pip install deepagents") from error
    samples = {tool.name: tool for tool in FilesystemMiddleware(backend=StateBackend()).tools}
    return [
        _bind(
            samples[name],
            require=_require_state,
            args=dict.fromkeys(words, Text()),
            state=["files"] if name in _WRITES_FILES else [],
        )
        for name, words in _FILES.items()
        if name in samples
    ]


def task() -> Binding:
    """The Binding of `task`, with which a deep agent runs its sub-agents.

    Raises:
        BindingError: deepagents is not installed.
    """
    try:
        from deepagents import SubAgentMiddleware
        from deepagents.backends import StateBackend
    except ImportError as error:
        raise BindingError("known.task() needs deepagents: pip install deepagents") from error
    from langchain_core.runnables import RunnableLambda

    nobody: Any = {"name": "x", "description": "x", "runnable": RunnableLambda(lambda state: state)}
    (sample,) = SubAgentMiddleware(backend=StateBackend(), subagents=[nobody]).tools
    return _bind(
        sample,
        require=_require_here,
        args={"description": Text(), "subagent_type": Plain()},
        state=["files"],
        interrupts=True,
    )


def hand_offs(*agents: str, library: Literal["supervisor", "swarm"]) -> list[Binding]:
    """The Bindings of `transfer_to_<agent>`, with which a team hands the conversation on.

    Only the library's own code for exactly this agent is taken: its Command goes to the node of
    that name, in the graph around the agent that calls it, and to no other.

    Args:
        agents: whom the conversation may be handed to, by the names of their nodes.
        library: whose tools these are, langgraph-supervisor's or langgraph-swarm's.

    Raises:
        BindingError: the library is not installed.
    """
    try:
        create = importlib.import_module(f"langgraph_{library}.handoff").create_handoff_tool
    except ImportError as error:
        raise BindingError(
            f"known.hand_offs() needs langgraph-{library}: pip install langgraph-{library}"
        ) from error
    bindings = []
    for agent in agents:
        require = functools.partial(_require_target, agent)
        bindings.append(_bind(create(agent_name=agent), require=require, unsafe_routes=True))
    return bindings


def file_search(root: Path | str) -> list[Binding]:
    """The Bindings of `glob_search` and `grep_search`, of FilesystemFileSearchMiddleware.

    The model reads the names and lines of files below the folder, whatever they hold: give it a
    folder of notes, not the workspace.

    Args:
        root: the folder that the middleware searches; another one is refused.

    Raises:
        BindingError: langchain is not installed.
    """
    try:
        from langchain.agents.middleware import FilesystemFileSearchMiddleware
    except ImportError as error:
        raise BindingError(
            f'known.file_search() needs langchain ({error}): pip install "agentguard[langchain]"'
        ) from error
    searching = FilesystemFileSearchMiddleware(root_path=str(root))
    require = functools.partial(_require_root, searching.root_path)
    samples = {tool.name: tool for tool in searching.tools}
    return [
        _bind(samples["glob_search"], require=require, args={"pattern": Text(), "path": Text()}),
        _bind(
            samples["grep_search"],
            require=require,
            args={
                "pattern": Text(),
                "path": Text(),
                "include": Text(),
                "output_mode": Plain(),
            },
        ),
    ]


def retriever(tool: BaseTool) -> Binding:
    """The Binding of a tool that `create_retriever_tool` made: it searches, and returns words.

    Args:
        tool: the tool; only this object, or a copy of it, is taken.

    Raises:
        BindingError: its retriever holds a client of a server, so that the query leaves this
            machine: bind it yourself, and say where to.
    """
    return Binding(tool, stage=None, args={"query": Text()})


def _bind(sample: Any, require: Any = None, **meaning: Any) -> Binding:
    if not isinstance(sample, StructuredTool):
        raise BindingError(f"{sample.name}: got {type(sample).__name__}, expected StructuredTool")
    known = KnownTool(sample=sample, require=require)
    return Binding(sample, stage=None, known=known, **meaning)


def _held(tool: BaseTool) -> dict[str, Any]:
    """What the function of a tool closes over."""
    function = getattr(tool, "func", None)
    return dict(inspect.getclosurevars(function).nonlocals) if function else {}


def _require_target(agent: str, tool: BaseTool) -> None:
    """A hand-off goes to the node that its Binding names."""
    target = _held(tool).get("agent_name")
    if target != agent:
        raise BindingError(
            f"{tool.name} hands over to {target!r}, and known.hand_offs() was given {agent!r}; name"
            " each agent that the conversation may be handed to"
        )


def _require_root(root: Path, tool: BaseTool) -> None:
    """A file search looks into the folder that its Binding names, and no other."""
    from langchain.agents.middleware import FilesystemFileSearchMiddleware

    held = _held(tool).get("self")
    if type(held) is not FilesystemFileSearchMiddleware or held.root_path != root:
        raise BindingError(
            f"{tool.name} searches {getattr(held, 'root_path', 'another folder')}, and"
            f" known.file_search() was given {root}"
        )


def _require_here(tool: BaseTool) -> None:
    """`task` hands its words to agents in this process, not to a graph on a server."""
    reached = reach_of(tool)
    if reached is not None:
        raise BindingError(
            f"{tool.name} has {reached}, so what a sub-agent is told may leave this machine; bind"
            " it yourself, with to=None if nothing leaves"
        )


def _require_state(tool: BaseTool) -> None:
    """A file tool works on the graph's state or store, and on nothing else."""
    from deepagents import FilesystemMiddleware

    for function in (getattr(tool, "func", None), getattr(tool, "coroutine", None)):
        held = inspect.getclosurevars(function).nonlocals.get("self") if function else None
        if type(held) is not FilesystemMiddleware:
            raise BindingError(
                f"{tool.name} is not a file tool of deepagents' own FilesystemMiddleware; bind it"
                " yourself"
            )
        _require_harmless(tool.name, held.backend)


def _require_harmless(name: str, backend: object) -> None:
    from deepagents.backends import CompositeBackend, StateBackend, StoreBackend

    if type(backend) is CompositeBackend:
        for each in (backend.default, *backend.routes.values()):
            _require_harmless(name, each)
    elif type(backend) not in (StateBackend, StoreBackend):
        raise BindingError(
            f"{name} works on a {type(backend).__name__}, whose files are not the graph's own;"
            " known.files() takes StateBackend and StoreBackend only"
        )
