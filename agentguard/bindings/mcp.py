"""A tool of an MCP server, bound by server, name and digest.

A server decides at each listing what its tools are called, say and take. Which object came is of
no use, since every listing makes new ones: what a person read and bound is pinned instead. The
digest covers the description too, because the chat model reads it: a server that rewrites it
speaks to the model (I3). What a server says of itself, its name included, pins nothing: the name
is the one that the client's configuration gives it, or the address that the client connects to.
Nothing here imports an MCP package.
"""

from __future__ import annotations

import shlex
import sys
import types
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool

from agentguard.canonical import digest
from agentguard.errors import BindingError, CanonicalError


@dataclass(frozen=True, slots=True)
class McpTool:
    """Which tool of which MCP server a Binding is about.

    Args:
        server: the server's name in your client's configuration. `langchain.mcp` has none: there
            it is what the client connects to, a URL without its query or a command line, or the
            name in a `ClientGroup`.
        name: the tool's name on that server, without a prefix.
        schema: `sha256:` and the digest of its name, description and arguments, as
            `agentguard bind` prints it; read the description before you pin it.
        unsafe_interceptors: accept a client with `tool_interceptors`: they run behind the gate,
            and can change or repeat what was authorized (I8 is then theirs to keep).
    """

    server: str
    name: str
    schema: str
    unsafe_interceptors: bool = False

    def require(self, tool: BaseTool) -> None:
        """Refuse a tool object that is not this one.

        Raises:
            BindingError: it is of no MCP server, of another, another tool, or it changed.
        """
        found = origin(tool)
        if found is None:
            raise BindingError(
                f"{tool.name}: got a tool of this program, expected {self.name!r} of the MCP server"
                f" {self.server!r}; load it with langchain-mcp-adapters or langchain.mcp, or drop"
                " mcp="
            )
        if found.server is None:
            raise BindingError(
                f"{tool.name}: its MCP server has no name; load it with"
                " MultiServerMCPClient.get_tools(), load_mcp_tools(..., server_name=...), or an"
                " MCPAdapter of one URL, script or server"
            )
        if (found.server, found.name) != (self.server, self.name):
            raise BindingError(
                f"{tool.name}: got {found.name!r} of the MCP server {found.server!r}, expected"
                f" {self.name!r} of {self.server!r}; give each tool a Binding of its own"
                " (tool_name_prefix=True keeps their names apart)"
            )
        if found.schema != self.schema:
            raise BindingError(
                f"{tool.name}: the MCP server {self.server!r} changed this tool's description or"
                f" arguments: got {found.schema}, expected {self.schema:.80}; read what it says"
                " now (`agentguard bind MODULE:TOOLS` shows it) before you pin it again"
            )
        if found.intercepted and not self.unsafe_interceptors:
            raise BindingError(
                f"{tool.name}: its client has tool_interceptors, which run behind the gate and"
                " could change what was authorized; remove them, or say"
                " McpTool(..., unsafe_interceptors=True)"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where an MCP tool object came from.

    Args:
        server: its name in the client's configuration, or what the client connects to; None:
            loaded without a name.
        name: the tool's name there.
        schema: the digest of what it says it is, as `McpTool` takes it.
        endpoint: the URL or command line behind it; None: it does not say.
        remote: whether it is called over the network, so that what it gets leaves this machine;
            None: it does not say.
        intercepted: other code of the client's runs between the gate and the call.
    """

    server: str | None
    name: str
    schema: str
    endpoint: str | None
    remote: bool | None
    intercepted: bool


def origin(tool: BaseTool) -> Origin | None:
    """Where a tool of langchain-mcp-adapters or langchain.mcp came from; None for any other tool.

    The adapters keep this in the closure of the tool's coroutine and nowhere else; a canary test
    of each fails when it moves.

    Raises:
        BindingError: it is such a tool, and says too little of itself (I11).
    """
    coroutine = getattr(tool, "coroutine", None)
    if not isinstance(coroutine, types.FunctionType):
        return None
    claimed, runs_in = coroutine.__module__, coroutine.__globals__.get("__name__")
    adapter = next((name for name in (runs_in, claimed) if name in _ADAPTERS), None)
    if adapter is None:
        return None
    parts, read = _ADAPTERS[adapter]
    cells = coroutine.__closure__ or ()
    named = zip(coroutine.__code__.co_freevars, cells, strict=True)
    held = {name: cell.cell_contents for name, cell in named if cell != types.CellType()}
    name = getattr(held.get("tool"), "name", None)
    if (
        coroutine.__globals__ is not getattr(sys.modules.get(adapter), "__dict__", None)
        or claimed != adapter
        or not all(part in held for part in parts)
        or not isinstance(name, str)
    ):
        raise BindingError(
            f"{tool.name}: this {adapter.rpartition('.')[0]} does not say which server its tools"
            " call; use langchain-mcp-adapters 0.3.2 or langchain 1.4.7, or bind a tool of your"
            " own that calls the server"
        )
    if type(tool) is not StructuredTool or tool.func is not None:
        raise BindingError(
            f"{tool.name}: got a {type(tool).__qualname__} around a tool of an MCP server, expected"
            " the object that its adapter made; bind that one"
        )
    found = read(tool.name, held)
    return Origin(name=name, schema=_schema(tool, name), **found)


def require_same_endpoint(original: BaseTool, tool: BaseTool) -> None:
    """Refuse a tool that calls another server than the one that was bound, as far as both say.

    Raises:
        BindingError: it connects elsewhere.
    """
    bound, came = origin(original), origin(tool)
    expected, got = bound and bound.endpoint, came and came.endpoint
    if expected is not None and got is not None and expected != got:
        raise BindingError(
            f"{tool.name}: got a tool that connects to {got}, expected {expected}, which was bound"
            " under this name; give it a name and a Binding of its own"
        )


def require_place(tool: BaseTool, *, sends: bool, placed: bool, local: bool) -> None:
    """A tool of an MCP server that may be called over the network says where it sends.

    Args:
        sends: whether its Binding gives it media or texts.
        placed: whether its Binding names a destination.
        local: whether its Binding says that nothing leaves.

    Raises:
        BindingError: it says nothing, or what can't be true.
    """
    came = origin(tool)
    if came is None or came.remote is False:
        return
    if came.remote and local:
        raise BindingError(
            f"{tool.name}: the MCP server {came.server!r} is called over HTTP, which local=True"
            ' contradicts; say where its media and texts go: to="..."'
        )
    if not sends or placed or local:
        return
    if came.remote:
        raise BindingError(
            f"{tool.name}: the MCP server {came.server!r} is called over HTTP, so its media and"
            ' texts leave this machine; say where to: to="...", a configured vendor'
        )
    raise BindingError(
        f"{tool.name}: the MCP server {came.server!r} does not say how it is connected, so its"
        ' media and texts may leave this machine; say where to: to="...", a configured vendor,'
        " or to=None if nothing leaves"
    )


def _of_adapters(name: str, held: Mapping[str, Any]) -> dict[str, Any]:
    """langchain-mcp-adapters: a connection, as its client is configured, or an open session."""
    server, connection = held["server_name"], held["connection"]
    endpoint, remote = None, None
    if held["session"] is None and isinstance(connection, Mapping):
        if "url" in connection:
            endpoint, remote = _address(connection["url"]), True
        elif connection.get("transport") == "stdio":
            endpoint = _command(connection.get("command"), connection.get("args"))
            remote = False
    return {
        "server": server if isinstance(server, str) else None,
        "endpoint": endpoint,
        "remote": remote,
        "intercepted": bool(held["tool_interceptors"]),
    }


def _of_langchain(name: str, held: Mapping[str, Any]) -> dict[str, Any]:
    """langchain.mcp: a client of FastMCP, or a group of named ones."""
    client, server = held["client"], None
    members = getattr(client, "clients", None)
    if isinstance(members, Mapping):
        named = [key for key in members if name.startswith(f"{key}_")]
        if len(named) != 1:
            raise BindingError(
                f"{name}: it may be a tool of {' or '.join(named) or 'no server of its group'};"
                " give each server a name that begins no other's, or an MCPAdapter of its own"
            )
        server, client = named[0], members[named[0]]
    endpoint, remote = _transport(getattr(client, "transport", None))
    return {
        "server": server or endpoint,
        "endpoint": endpoint,
        "remote": remote,
        "intercepted": False,
    }


def _transport(transport: Any) -> tuple[str | None, bool | None]:
    """What a transport of FastMCP connects to, and whether that is over the network."""
    if not type(transport).__module__.startswith("fastmcp.client.transports."):
        return None, None
    kinds = {kind.__name__ for kind in type(transport).__mro__}
    if kinds & {"StreamableHttpTransport", "SSETransport"}:
        return _address(transport.url), True
    if "StdioTransport" in kinds:
        return _command(transport.command, transport.args), False
    if "FastMCPTransport" in kinds:
        return f"in-process:{transport.server.name}", None
    if "MCPConfigTransport" in kinds and len(transport.config.mcpServers) == 1:
        return _transport(transport.transport)
    return None, None


def _address(url: object) -> str:
    """A URL without user, password, query and fragment, which may be secrets."""
    parts = urllib.parse.urlsplit(str(url))
    return urllib.parse.urlunsplit(
        (parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")
    )


def _command(command: object, args: object) -> str:
    return "stdio:" + shlex.join(
        map(str, (command, *(args if isinstance(args, (list, tuple)) else ())))
    )


_ADAPTERS: Mapping[str, tuple[tuple[str, ...], Callable[..., dict[str, Any]]]] = {
    "langchain_mcp_adapters.tools": (
        ("connection", "server_name", "session", "tool", "tool_interceptors"),
        _of_adapters,
    ),
    "langchain.mcp.tools": (("client", "drives_interrupts", "tool"), _of_langchain),
}


def _schema(tool: BaseTool, name: str) -> str:
    said: dict[str, Any] = {
        "name": name,
        "description": tool.description,
        "arguments": tool.args_schema,
    }
    try:
        return "sha256:" + digest("agentguard/mcp-tool/v1", said)
    except CanonicalError as error:
        raise BindingError(f"{tool.name}: its schema has no canonical form: {error}") from error
