"""Connections of tools that declare no destination: caught for the call, whatever the tool does."""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path

import pytest

from agentguard.testing import TestWorkspace, UndeclaredConnection, workspace
from tests.integration.testing.tools_under_test import POOL, REACHED, TOOLS, connect


@pytest.mark.parametrize(
    "tool", ["phone_home", "phone_by_datagram", "phone_quietly", "phone_in_a_thread"]
)
def test_undeclared_connection_fails_the_call(ws: TestWorkspace, port: int, tool: str) -> None:
    logo = ws.import_asset(labels=["brand"])
    sentence = rf"^{tool} opened a connection to 127\.0\.0\.1.*declares no to="
    with pytest.raises(UndeclaredConnection, match=sentence):
        ws.call(tool, source=logo, port=port)
    assert REACHED == []


async def test_undeclared_connection_of_an_asynchronous_tool_fails_the_call(
    ws: TestWorkspace, port: int
) -> None:
    logo = ws.import_asset(labels=["brand"])
    with pytest.raises(UndeclaredConnection, match=r"^phone_later opened a connection to 127"):
        await ws.acall("phone_later", source=logo, port=port)
    assert REACHED == []


def test_declared_connection_is_made(ws: TestWorkspace, port: int) -> None:
    logo = ws.import_asset(labels=["brand"])
    outcome = ws.call("upscale", source=logo, port=port)
    assert (outcome.effect, outcome.failed) == ("permit", False)
    assert REACHED == ["127.0.0.1"]
    assert len(ws.sent("images")) == 1


def test_event_loop_of_a_tool_is_no_connection(ws: TestWorkspace) -> None:
    outcome = ws.call("run_a_loop", source=ws.import_asset(labels=["brand"]))
    assert (outcome.effect, outcome.failed) == ("permit", False)


def test_the_test_itself_may_connect(ws: TestWorkspace, port: int) -> None:
    logo = ws.import_asset(labels=["brand"])
    connect(port)
    assert ws.call("copy", source=logo).effect == "permit"
    connect(port)
    assert len(REACHED) == 2


def test_one_connection_is_told_once(ws: TestWorkspace, port: int) -> None:
    logo = ws.import_asset(labels=["brand"])
    with pytest.raises(UndeclaredConnection):
        ws.call("phone_home", source=logo, port=port)
    assert ws.call("copy", source=logo).effect == "permit"


def test_end_of_the_workspace_tells_what_no_call_told(config: Path, port: int) -> None:
    """As in a graph of your own, whose tool swallows the exception."""

    def run() -> None:
        with workspace(config, tools=TOOLS) as ws:
            run_past_call(ws, port)

    with pytest.raises(UndeclaredConnection, match=r"^phone_quietly"):
        run()
    assert REACHED == []


def test_exception_of_the_test_is_kept_with_a_note(config: Path, port: int) -> None:
    def run() -> None:
        with workspace(config, tools=TOOLS) as ws:
            run_past_call(ws, port)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as raised:
        run()
    assert raised.value.__notes__[0].startswith("phone_quietly opened a connection")


def run_past_call(ws: TestWorkspace, port: int) -> None:
    (tool,) = ws.guard.tools(["phone_quietly"], agent="editor", gate="inline")
    with ws.job() as job:
        logo = ws.import_asset(labels=["brand"])
        call = {"name": tool.name, "args": {"source": logo, "port": port}, "id": "1"}
        said = tool.invoke({**call, "type": "tool_call"}, job.config(thread_id="t"))
    assert "copied" in said.content


def test_inner_workspace_is_watched_as_well(ws: TestWorkspace, config: Path, port: int) -> None:
    with workspace(config, tools=TOOLS) as inner:
        with pytest.raises(UndeclaredConnection):
            inner.call("phone_home", source=inner.import_asset(labels=["brand"]), port=port)
        with pytest.raises(UndeclaredConnection):
            ws.call("phone_home", source=ws.import_asset(labels=["brand"]), port=port)
    with pytest.raises(UndeclaredConnection):
        ws.call("phone_home", source=ws.import_asset(labels=["brand"]), port=port)
    assert REACHED == []


def test_pool_that_a_call_started_goes_on_afterwards(ws: TestWorkspace, port: int) -> None:
    """The watch is for the call only: a pool that tools share serves those that declare `to`."""
    assert ws.call("use_the_pool", source=ws.import_asset(labels=["brand"])).effect == "permit"
    POOL.submit(connect, port).result()
    assert REACHED == ["127.0.0.1"]


def test_hook_sleeps_while_no_workspace_is_open(config: Path, port: int) -> None:
    from agentguard.testing import sockets

    start = threading.Thread.start
    with workspace(config, tools=TOOLS):
        assert len(sockets._watches) == 1
        with workspace(config, tools=TOOLS):
            assert threading.Thread.start is not start
        assert threading.Thread.start is not start
    assert threading.Thread.start is start
    assert sockets._watches == []
    sys.audit("socket.connect", socket.socket, ("127.0.0.1", port))
    connect(port)
    assert threading.current_thread() not in sockets._started
