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
_NO_SCHEMA = (AttributeError, NameError, RuntimeError, TypeError, ValueError)
"""What LangChain and Pydantic raise about type hints; `PydanticUserError` is a RuntimeError."""

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
    from agentguard.bindings.declaration import declarations_of
    from agentguard.bindings.draft import draft, told

    module, found = import_object(named)
    drafts: list[dict[str, Any]] = []
    for index, item in enumerate(_items(named, found)):
        expression = _expression(module, named, item, index, found)
        name = str(getattr(item, "name", None) or getattr(item, "__name__", expression))
        known: dict[str, Any] = {"tool": name, "expression": expression}
        try:
            tool = _tool(item)
            known["tool"] = tool.name
            if declarations_of(item):
                source, says = expression, ["declared by @media_tool: it needs no Binding"]
            else:
                source, says = draft(tool, expression), told(tool)
        except BindingError as error:
            drafts.append({**known, "error": str(error)})
        except _NO_SCHEMA as error:
            why = (str(error) or type(error).__name__).partition("\n")[0]
            drafts.append({**known, "error": f"{name} can't be drafted: {why}"})
        else:
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


def _items(named: str, found: Any) -> list[Any]:
    """The tools and functions that a name holds.

    Raises:
        BindingError: there are none, or something else is among them.
    """
    from langchain_core.tools import BaseTool

    items = list(found.values()) if isinstance(found, dict) else found
    items = list(items) if isinstance(items, (list, tuple)) else [items]
    for item in items:
        if not isinstance(item, BaseTool) and (not callable(item) or isinstance(item, type)):
            raise BindingError(
                f"{named}: got a {type(item).__name__}, expected LangChain tools or functions"
            )
    if not items:
        raise BindingError(f"{named} holds no tools")
    return items


def _tool(item: Any) -> BaseTool:
    from langchain_core.tools import BaseTool
    from langchain_core.tools import tool as make_tool

    return item if isinstance(item, BaseTool) else make_tool(item)


def _expression(module: Any, named: str, item: Any, index: int, found: Any) -> str:
    function = getattr(item, "func", None) or getattr(item, "coroutine", None)
    for name, value in vars(module).items():
        if value is item or (function is not None and value is function):
            return str(name)
    path = named.partition(":")[2]
    if isinstance(found, dict):
        return f"{path}[{list(found)[index]!r}]"
    return f"{path}[{index}]" if isinstance(found, (list, tuple)) else path


def _print_source(named: str, drafts: list[dict[str, Any]]) -> None:
    module = named.partition(":")[0]
    drafted = [one for one in drafts if "source" in one]
    names = sorted({re.split(r"[.\[]", one["expression"])[0] for one in drafted})
    used = [name for name in ("Binding", *_NAMES) if _uses(drafted, name)]
    lines = [_HEADER]
    if used:
        lines += [f"from agentguard import {', '.join(sorted(used))}"]
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
