"""`agentguard bind`: a first draft of Bindings, from the tools of a module."""

from __future__ import annotations

import re
import sys
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentguard.cli.context import import_object
from agentguard.cli.output import ERROR, Json, print_json, say, visible
from agentguard.errors import BindingError

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

_NAMES = ("Asset", "McpTool", "Opaque", "OperationId", "Output", "Plain", "Text", "To")
_HEADER = """\
# Drafted from signatures: a guess. Before you use it, look at each line, and replace each "?":
# - stage: where this tool belongs; an agent may only call tools of its own stages
# - to: where media or words go if they leave this machine, image APIs included: a configured
#   destination; None if nothing leaves
# - Asset(): arguments and results that hold media (the model sees asset ids instead)
# - Text(): prompts and captions. Plain(): short words, never a path. Numbers need no role
# - Output(): arguments that the tool writes a file to (the guard fills them in)
# - To(): names the destination; To({"team": "#team"}) says what the tool takes for each
# - effect: Idempotent(probe), Probeable(probe) or Opaque(), for whatever has an effect outside; a
#   probe says after a crash whether it is there (docs/explanation/crashes.md), else a person looks
# - mcp: pins what an MCP server says of its tool, which the chat model will read: read it first
# For a function of your own, @media_tool(stage=...) and roles in its type hints say the same.
"""


def bind(
    named: Annotated[
        str, typer.Argument(metavar="MODULE:TOOLS", help="A tool, or a list or dict of tools.")
    ],
    json_: Json = False,
) -> None:
    """Draft Bindings for plain tools, as Python source.

    The module is imported from the working directory. The draft is guessed from argument names
    and types: correct it, nothing uses it before you do.

    \b
    Example:
      $ agentguard bind tools.edit:TOOLS > bindings.py

    Next: correct bindings.py, give `bindings` to Guard.from_config(..., tools=bindings), and
    run `agentguard doctor --bindings bindings:bindings`.
    """
    from agentguard.bindings.draft import draft, told

    module, found = import_object(named)
    drafts: list[dict[str, Any]] = []
    for index, tool in enumerate(_tools(named, found)):
        expression = _expression(module, named, tool, index, found)
        known: dict[str, Any] = {"tool": tool.name, "expression": expression}
        try:
            source = draft(tool, expression)
        except BindingError as error:
            drafts.append({**known, "error": str(error)})
            continue
        says = told(tool)
        drafts.append({**known, "source": source, **({"says": says} if says else {})})
    if json_:
        print_json(drafts)
    else:
        _print_source(named, drafts)
    failed = [one for one in drafts if "error" in one]
    if failed:
        for one in failed:
            say(f"error: {visible(one['error'])}", err=True)
        raise typer.Exit(ERROR)
    if not json_ and sys.stdout.isatty():
        say("Next: save it as bindings.py, correct it, then run", err=True)
        say("  agentguard doctor --bindings bindings:bindings", err=True)


def _tools(named: str, found: Any) -> list[BaseTool]:
    from langchain_core.tools import BaseTool
    from langchain_core.tools import tool as make_tool

    items = list(found.values()) if isinstance(found, dict) else found
    items = list(items) if isinstance(items, (list, tuple)) else [items]
    made = []
    for item in items:
        if isinstance(item, BaseTool):
            made.append(item)
        elif callable(item) and not isinstance(item, type):
            try:
                made.append(make_tool(item))
            except ValueError as error:
                raise BindingError(f"{named}: {error}") from error
        else:
            raise BindingError(
                f"{named}: got a {type(item).__name__}, expected LangChain tools or functions"
            )
    if not made:
        raise BindingError(f"{named} holds no tools")
    return made


def _expression(module: Any, named: str, tool: BaseTool, index: int, found: Any) -> str:
    function = getattr(tool, "func", None) or getattr(tool, "coroutine", None)
    for name, value in vars(module).items():
        if value is tool or (function is not None and value is function):
            return str(name)
    path = named.partition(":")[2]
    if isinstance(found, dict):
        return f"{path}[{list(found)[index]!r}]"
    return f"{path}[{index}]" if isinstance(found, (list, tuple)) else path


def _print_source(named: str, drafts: list[dict[str, Any]]) -> None:
    module = named.partition(":")[0]
    drafted = [one for one in drafts if "source" in one]
    names = sorted({re.split(r"[.\[]", one["expression"])[0] for one in drafted})
    used = ["Binding", *(name for name in _NAMES if _uses(drafted, name))]
    lines = [_HEADER, f"from agentguard import {', '.join(sorted(used))}"]
    if names:
        lines += [f"from {module} import {', '.join(names)}"]
    lines += ["", "bindings = ["]
    for one in drafted:
        lines += [f"    # {visible(line, 2000)}" for line in one.get("says", ())]
        lines += [f"{textwrap.indent(one['source'], '    ')},"]
    lines += [f"    # {visible(one['error'])}" for one in drafts if "error" in one]
    typer.echo("\n".join([*lines, "]"]))


def _uses(drafts: list[dict[str, Any]], name: str) -> bool:
    return any(re.search(rf"\b{name}\(", one["source"]) for one in drafts)
