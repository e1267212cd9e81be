"""A tool that holds a client, or that an unknown library made, says where it sends (I5)."""

from __future__ import annotations

import asyncio
import collections
import contextvars
import ftplib
import functools
import http.client
import importlib
import logging
import random
import re
import smtplib
import socket
import sqlite3
import subprocess
import sys
import sysconfig
import threading
import types
import urllib.request
import weakref
import xmlrpc.client
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy
import openai
import pytest
import requests
import tenacity
import typer.main
from deepagents import create_deep_agent
from langchain_core.tools import BaseTool, StructuredTool, create_retriever_tool, tool
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import ChatOpenAI
from langgraph.pregel.remote import RemoteGraph
from langgraph_sdk import get_client
from mcp import ClientSession
from PIL import Image
from pydantic import PrivateAttr

from agentguard.bindings.bound import Bound
from agentguard.bindings.draft import draft
from agentguard.bindings.reach import _REMOTE, reach_of
from agentguard.errors import BindingError
from tests.support.bindings import Binding

URL = "http://127.0.0.1:9"


def bind(made: BaseTool, **meaning: Any) -> Bound:
    return Bound(Binding(made, **{"stage": "edit", "texts": ["words"], **meaning}))


def closing_over(client: Any) -> BaseTool:
    @tool
    def send(words: str) -> str:
        """Send."""
        return str(client and words)

    return send


class OwnClient(httpx.Client):
    """A user's class is a client if its base is."""


class _Callable:
    def __init__(self, client: Any) -> None:
        self.client = client

    def send(self, words: str) -> str:
        """Send."""
        return str(self.client and words)


CLIENTS: dict[str, Callable[[], Any]] = {
    "httpx": httpx.Client,
    "async httpx": httpx.AsyncClient,
    "its subclass": OwnClient,
    "requests": requests.Session,
    "openai": lambda: openai.OpenAI(api_key="k", base_url=URL),
    "async openai": lambda: openai.AsyncOpenAI(api_key="k", base_url=URL),
    "http.client": lambda: http.client.HTTPConnection("127.0.0.1", 9),
    "urllib": urllib.request.build_opener,
    "smtp": smtplib.SMTP,
    "ftp": ftplib.FTP,
    "xmlrpc": lambda: xmlrpc.client.ServerProxy(URL),
    "mcp session": lambda: ClientSession.__new__(ClientSession),
    "RemoteGraph": lambda: RemoteGraph("g", url=URL),
    "langgraph_sdk": lambda: get_client(url=URL),
    "a method": lambda: requests.Session().post,
    "a partial": lambda: functools.partial(requests.post, URL),
    "a function": lambda: requests.post,
    "a class": lambda: httpx.Client,
    "a module": lambda: requests,
    "in a dict": lambda: {"a": [{"b": (httpx.Client(),)}]},
    "in a deque": lambda: collections.deque([httpx.Client()]),
    "in a set": lambda: {httpx.Client()},
    "in an object": lambda: types.SimpleNamespace(at=types.SimpleNamespace(c=httpx.Client())),
    "behind a lambda": lambda: (lambda c: lambda: c)(httpx.Client()),
    "in a default": lambda: lambda c=httpx.Client(): c,  # noqa: B008
    "in a context variable": lambda: contextvars.ContextVar("c", default=httpx.Client()),  # noqa: B039
    "in a cached function": lambda: _filled(functools.lru_cache(httpx.Client)),
    "in a thread's locals": lambda: _local(httpx.Client()),
    "a tool that holds it": lambda: closing_over(httpx.Client()),
    "a generator": lambda: _started(_generator(httpx.Client())),
    "no module of its class": lambda: type("Client", (), {"__module__": "nowhere.at_all"})(),
}


def _filled(cached: Any) -> Any:
    cached()
    return cached


def _local(client: Any) -> threading.local:
    made = threading.local()
    made.client = client
    return made


def _generator(client: Any) -> Iterator[Any]:
    yield client
    yield client


def _started(generator: Iterator[Any]) -> Iterator[Any]:
    next(generator)
    return generator


@pytest.mark.parametrize("client", CLIENTS)
def test_a_tool_that_holds_a_client_says_where_it_sends(client: str) -> None:
    made = closing_over(CLIENTS[client]())
    with pytest.raises(BindingError, match=r"may leave this machine; say where to.*to=None"):
        bind(made)
    assert bind(made, destination="images").binding.destination == "images"
    assert bind(made, local=True).binding.local


def test_a_weak_reference_and_an_open_socket_are_followed() -> None:
    client = httpx.Client()
    assert "httpx" in str(reach_of(closing_over(weakref.ref(client))))
    assert "httpx" in str(reach_of(closing_over(weakref.proxy(client))))
    assert reach_of(closing_over(weakref.proxy(set()))) is None
    with socket.socket() as opened:
        assert "socket" in str(reach_of(closing_over(opened)))
        assert "socket" in str(reach_of(closing_over(opened.send)))


class Holder(BaseTool):
    """A tool class that holds a client in one of several ways."""

    name: str = "send"
    description: str = "Send."
    client: Any = None
    _private: Any = PrivateAttr(default=None)

    def _run(self, words: str) -> str:
        return words


class ClassHolder(Holder):
    shared: Any = None

    def _run(self, words: str) -> str:
        return str(_Shared.client and words)


class _Shared:
    client = httpx.Client()


class ByName(Holder):
    def _run(self, words: str) -> str:
        return _helper(words)


CLIENT = httpx.Client()


def _helper(words: str) -> str:
    return str(CLIENT and words)


@tool
def by_name(words: str) -> str:
    """Send by a helper, with a client that a global holds."""
    return _helper(words)


@tool
async def by_inner_name(words: str) -> str:
    """Send in a function of its own."""

    def inner() -> str:
        return str(CLIENT and words)

    return inner()


@tool
def by_import(words: str) -> str:
    """Send with a client of another module."""
    from tests.unit.bindings.test_reach import _Shared as shared

    return str(shared.client and words)


class Slotted(Holder):
    __slots__ = ("_slot",)


def _slotted(client: Any) -> BaseTool:
    made = Slotted()
    object.__setattr__(made, "_slot", client)
    return made


def _private() -> BaseTool:
    made = Holder()
    made._private = httpx.Client()
    return made


def _function(function: Any) -> BaseTool:
    schema: Any = by_name.args_schema
    return StructuredTool(name="send", description="Send.", func=function, args_schema=schema)


def _of_mcp_server() -> BaseTool:
    return by_ordinary.model_copy(update={"metadata": {"mcp": {"server": {"name": "x"}}}})


@pytest.mark.parametrize(
    "make",
    [
        lambda: Holder(client=httpx.Client()), _private, ClassHolder, ByName,
        lambda: by_name, lambda: by_inner_name,
        lambda: by_import, lambda: _slotted(httpx.Client()),
        lambda: _function(_Callable(httpx.Client()).send),
        lambda: _function(functools.partial(requests.post, URL)),
        lambda: _function(requests.post),
        lambda: _function(lambda words, client=httpx.Client(): words),  # noqa: B008
        _of_mcp_server,
    ],
)  # fmt: skip
def test_it_is_found_wherever_the_tool_holds_it(make: Callable[[], BaseTool]) -> None:
    with pytest.raises(BindingError, match="may leave this machine"):
        bind(make())


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An installed adapter library that the guard doesn't know."""
    folder = tmp_path / "site-packages"
    (folder / "some_adapter").mkdir(parents=True)
    (folder / "some_adapter" / "__init__.py").touch()
    (folder / "some_adapter" / "tools.py").write_text(
        "from langchain_core.tools import BaseTool, tool\n"
        "class Search(BaseTool):\n"
        "    name: str = 'search'\n"
        "    description: str = 'Search.'\n"
        "    def _run(self, words: str) -> str:\n"
        "        return words\n"
        "class Client:\n"
        "    pass\n"
        "@tool\n"
        "def search(words: str) -> str:\n"
        "    '''Search.'''\n"
        "    return words\n"
        "def decorated(function):\n"
        "    import functools\n"
        "    return functools.wraps(function)(lambda words: function(words))\n",
        "utf-8",
    )
    monkeypatch.syspath_prepend(folder)
    yield importlib.import_module("some_adapter.tools")
    for name in ("some_adapter", "some_adapter.tools"):
        sys.modules.pop(name, None)


def test_what_an_unknown_library_made_is_refused(library: Any) -> None:
    class Own(library.Search):  # type: ignore[misc]  # a module that the test wrote
        pass

    wrapped = _function(library.decorated(by_ordinary.func))  # type: ignore[attr-defined]
    for made in (library.search, library.Search(), Own(), closing_over(library.Client()), wrapped):
        with pytest.raises(BindingError, match=r"some_adapter\.tools.*may leave this machine"):
            bind(made)
        assert bind(made, local=True).binding.local


def test_a_function_that_claims_a_module_that_nobody_has_is_refused() -> None:
    def send(words: str) -> str:
        """Send."""
        return words

    send.__module__ = "composio_langchain.tools"
    with pytest.raises(BindingError, match=r"composio_langchain\.tools"):
        bind(_function(send))


def test_an_installed_application_that_requires_agentguard_is_the_users(
    library: Any, tmp_path: Path
) -> None:
    from agentguard.bindings import reach

    info = tmp_path / "site-packages" / "some_adapter-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-adapter\nVersion: 1\n"
                                   "Requires-Dist: agentguard>=0.1\n", "utf-8")  # fmt: skip
    (info / "top_level.txt").write_text("some_adapter\n", "utf-8")
    for cached in (reach._is_own, reach._requires_guard):
        cached.cache_clear()
    assert bind(library.search).name == "search"
    for cached in (reach._is_own, reach._requires_guard):
        cached.cache_clear()


def test_too_much_to_look_through_is_refused() -> None:
    many = [[n] for n in range(150_000)]
    with pytest.raises(BindingError, match="too many to look through"):
        bind(closing_over(many))


# --- what needs no word ------------------------------------------------------------------------


@tool
def by_ordinary(words: str) -> str:
    """Do ordinary work."""
    with Image.new("RGB", (2, 2)) as picture:
        LOG.info("%s", picture)
    return f"{RNG.random()} {SETTINGS.size} {PATTERN.match(words)} {requests.codes.ok} {words}"


@dataclass
class Settings:
    size: int = 3


LOG, RNG, SETTINGS, PATTERN = (
    logging.getLogger(__name__),
    random.Random(),
    Settings(),
    re.compile("a"),
)


Pair = list[requests.Session] | collections.OrderedDict[str, requests.Session]


@tool
def typed(words: str) -> str:
    """Name types, and modules that import a library too."""
    import tests.unit.bindings.test_reach as module

    return str(Pair) + module.__name__ + str(requests) + words


@tool
@tenacity.retry(stop=tenacity.stop_after_attempt(2))
def retried(words: str) -> str:
    """Try twice."""
    return words


@pytest.mark.parametrize(
    "held",
    [
        None, [], {"a": 1}, Path("."), threading.Lock(), asyncio.Lock(), RNG, SETTINGS, LOG,
        numpy.zeros(3), numpy.sum, Image.new("RGB", (1, 1)), sqlite3.connect, collections.Counter(),
        ThreadPoolExecutor, subprocess.run, contextvars.ContextVar("v"), weakref.WeakSet(),
        functools.partial(print), (lambda: by_ordinary), by_ordinary,
    ],
    ids=lambda held: type(held).__name__,
)  # fmt: skip
def test_ordinary_tools_need_no_word(held: Any) -> None:
    assert reach_of(closing_over(held)) is None
    assert "local" not in draft(closing_over(held))


@pytest.mark.parametrize("made", [by_ordinary, typed, retried])
def test_ordinary_tools_of_modules_need_no_word(made: BaseTool) -> None:
    assert reach_of(made) is None


def test_a_lock_that_was_used_leads_to_no_event_loop() -> None:
    async def use() -> Any:
        lock = asyncio.Lock()
        async with lock:
            waiting = asyncio.ensure_future(lock.acquire())
            await asyncio.sleep(0)
            waiting.cancel()
        return reach_of(closing_over(lock))

    assert asyncio.run(use()) is None


def test_an_embedding_behind_a_retriever_is_found() -> None:
    class Embedding(openai.OpenAI):
        def embed_query(self, text: str) -> list[float]:
            return [1.0]

    store = InMemoryVectorStore(Embedding(api_key="k"))  # type: ignore[arg-type]
    made = create_retriever_tool(store.as_retriever(), "look_up", "Look up.")
    with pytest.raises(BindingError, match="openai"):
        bind(made, texts=["query"])


def test_the_agents_behind_task_have_gates_of_their_own_and_remote_graphs_do_not() -> None:
    model = ChatOpenAI(model="gpt-5", api_key="k", base_url=URL)  # type: ignore[arg-type]
    spec: Any = {"name": "helper", "description": "Helps.", "system_prompt": "Help."}
    task = _task_of(create_deep_agent(model=model, subagents=[spec]))
    assert reach_of(task) is None
    remote: Any = {"name": "far", "description": "Far.", "runnable": RemoteGraph("g", url=URL)}
    task = _task_of(create_deep_agent(model=model, subagents=[remote]))
    assert "RemoteGraph" in str(reach_of(task))


def _task_of(agent: Any) -> BaseTool:
    node = agent.nodes["tools"].bound
    made = node.tools_by_name["task"]
    assert isinstance(made, BaseTool)
    return made


def test_the_list_of_network_modules_is_complete() -> None:
    """Whatever the standard library's source says of sockets; none of the rest holds one."""
    holds_none = {
        "asyncio.events", "email.utils", "http.cookiejar", "mailbox", "platform", "pydoc", "uuid",
        "multiprocessing.forkserver", "multiprocessing.reduction",
        "multiprocessing.resource_sharer", "xml.dom.xmlbuilder", "xml.sax.saxutils",
    }  # fmt: skip
    imports = re.compile(
        r"^\s*(?:import|from)\s+[^#\n]*\b(?:_?socket|ssl|http\.client|urllib\.request)\b", re.M
    )
    root = Path(sysconfig.get_path("stdlib"))
    for name in sorted(sys.stdlib_module_names):
        package = root / name
        files = [root / f"{name}.py"] if not package.is_dir() else package.rglob("*.py")
        for file in files:
            parts = file.relative_to(root).with_suffix("").parts
            module = ".".join(parts).removesuffix(".__init__")
            skipped = {
                "test",
                "tests",
                "idlelib",
                "lib2to3",
                "distutils",
                "ensurepip",
                "turtledemo",
            } & set(parts)
            if not skipped and file.is_file() and imports.search(file.read_text("utf-8", "ignore")):
                listed = any(module == one or module.startswith(f"{one}.") for one in _REMOTE)
                assert listed or module in holds_none, module


# --- the word itself ---------------------------------------------------------------------------


def test_local_is_yes_or_nothing_and_no_place_at_once() -> None:
    with pytest.raises(BindingError, match="expected True, if nothing"):
        bind(closing_over(CLIENT), local="?")
    with pytest.raises(BindingError, match="keep the one that is true"):
        bind(closing_over(CLIENT), local=True, destination="images")


def test_local_is_part_of_the_digest_only_where_it_is_said() -> None:
    assert bind(by_ordinary).digest != bind(by_ordinary, local=True).digest
    assert "local" not in bind(by_ordinary)._meaning()


def test_a_draft_asks_where_a_client_sends() -> None:
    made = closing_over(CLIENT).model_copy(update={"name": "size_it", "description": "Size it."})
    assert 'to="?"' in draft(made)  # a place that no workspace has


def test_a_thread_under_another_frameworks_excepthook_is_no_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A command line of Typer's sets one, and every Thread made then closes over it."""
    monkeypatch.setattr(sys, "excepthook", typer.main.except_hook)
    thread = threading.Thread(target=print)

    @tool
    def crop(source: str) -> str:
        """Crop."""
        return f"{source} {thread.name}"

    assert reach_of(crop) is None
