"""A tool of an MCP server, bound by server, name and digest.

A server decides at each listing what its tools are called, say and take. Which object came is of
no use, since every listing makes new ones: what a person read and bound is pinned instead. The
digest covers the description too, because the chat model reads it: a server that rewrites it
speaks to the model (I3). Nothing here imports an MCP package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.tools import BaseTool

from agentguard.canonical import digest
from agentguard.errors import BindingError, CanonicalError

_ADAPTER = "langchain_mcp_adapters.tools"
_PARTS = ("connection", "server_name", "tool", "tool_interceptors")


@dataclass(frozen=True, slots=True)
class McpTool:
    """Which tool of which MCP server a Binding is about.

    Args:
        server: the server's name in your client's configuration.
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
                f" {self.server!r}; load it with langchain-mcp-adapters, or drop mcp="
            )
        if found.server is None:
            raise BindingError(
                f"{tool.name}: its MCP server has no name; load it with"
                " MultiServerMCPClient.get_tools(), or load_mcp_tools(..., server_name=...)"
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
        server: its name in the client's configuration; None: loaded without one.
        name: the tool's name there.
        schema: the digest of what it says it is, as `McpTool` takes it.
        remote: it is called over HTTP: what it gets leaves this machine.
        intercepted: other code of the client's runs between the gate and the call.
    """

    server: str | None
    name: str
    schema: str
    remote: bool
    intercepted: bool


def origin(tool: BaseTool) -> Origin | None:
    """Where a tool of langchain-mcp-adapters came from; None for any other tool.

    The adapter keeps this in the closure of the tool's coroutine and nowhere else; a canary test
    fails when it moves.

    Raises:
        BindingError: it is such a tool, and says too little of itself (I11).
    """
    coroutine = getattr(tool, "coroutine", None)
    if getattr(coroutine, "__module__", None) != _ADAPTER:
        return None
    names = getattr(getattr(coroutine, "__code__", None), "co_freevars", ())
    cells = getattr(coroutine, "__closure__", None) or ()
    held = {name: cell.cell_contents for name, cell in zip(names, cells, strict=False)}
    name = getattr(held.get("tool"), "name", None)
    if not all(part in held for part in _PARTS) or not isinstance(name, str):
        raise BindingError(
            f"{tool.name}: this langchain-mcp-adapters does not say which server its tools call;"
            " use 0.3.2, or bind a tool of your own that calls the server"
        )
    server, connection = held["server_name"], held["connection"]
    return Origin(
        server=server if isinstance(server, str) else None,
        name=name,
        schema=_schema(tool, name),
        remote=isinstance(connection, Mapping) and "url" in connection,
        intercepted=bool(held["tool_interceptors"]),
    )


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
