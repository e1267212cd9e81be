"""`init` and `bind`: from nothing to a workspace, and from plain tools to drafted Bindings."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentguard.cli.context import import_object
from agentguard.cli.output import ERROR, Json, print_json, say, visible, write_new
from agentguard.errors import BindingError, ConfigError

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

_PLACEHOLDERS = ("you@example.com", "colleague@example.com")

_HEADER = """\
# Drafted from signatures: a guess. Before you use it, look at each line:
# - stage: where this tool belongs; an agent may only call tools of its own stages
# - assets: arguments that hold media files (the model will give asset ids instead)
# - texts: prompts and captions; plain: numbers, choices and short words, never a path
# - outputs: arguments the tool writes a file to (the guard fills them in)
# - destination: where bytes or texts go if they leave this machine, image APIs included
# - effect: idempotent, probeable or opaque, for whatever has an effect outside; with the first two
#   probe=function says after a crash whether it is there (docs/crashes.md), else a person looks
# - mcp: pins what an MCP server says of its tool, which the chat model will read: read it first
# - local: the tool holds a client, or is of a library that the guard doesn't know: True if nothing
#   that it is given leaves this machine; else take it out and say destination=
"""


def register(app: typer.Typer) -> None:
    app.command("init")(init)
    app.command("bind")(bind)


def init(
    ctx: typer.Context,
    workspace: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its name; the folder's without it.")
    ] = None,
    person: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="A person's e-mail; give it twice. The first owns agents."),
    ] = None,
    folder: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write it.")] = Path("."),
) -> None:
    """Start a workspace in a folder.

    Writes agentguard.toml, and the key that signs the log. It takes two people, because nobody
    approves their own job. Nothing is ever overwritten.

    \b
    Example:
      $ agentguard init --person kim@acme.example --person omar@acme.example

    Next: `agentguard people add` for each of them.
    """
    from agentguard.config.template import template
    from agentguard.config.workspace import load
    from agentguard.transparency.log_key import create_log_key

    if ctx.obj is not None:
        raise typer.BadParameter("init writes FOLDER/agentguard.toml; use --folder")
    target = folder / "agentguard.toml"
    _refuse_known(folder, target)
    people = _two_people(person or [])
    name = workspace or re.sub("[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-")
    text = template(name or "media", people)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: can't be made: {error.strerror}") from error
    write_new(target, text)
    try:
        made = load(target)
        create_log_key(made.log_key)
        own = made.root / ".agentguard"
        own.mkdir(mode=0o700, exist_ok=True)
        if not (own / ".gitignore").exists():
            write_new(own / ".gitignore", "*\n")
    except BaseException:
        target.unlink()  # ours, and of no use without its key
        raise
    say(f"wrote {visible(target)}")
    own_key = made.log_key.is_relative_to(made.root)
    key = folder / made.log_key.relative_to(made.root) if own_key else made.log_key
    say(f"wrote {visible(key)} (signs the log; keep it off git and out of reach)")
    say()
    say("Next:", "bold")
    if folder.resolve() != Path.cwd():
        say(f"     cd {visible(folder)}")
    if set(people) & set(_PLACEHOLDERS):
        say("     put real people into agentguard.toml, in place of the examples")
    say(f"  1. agentguard people add {visible(people[0])}")
    say("     (each person runs it on their own machine; it makes the key they approve with)")
    say("  2. agentguard bind MODULE:TOOLS")
    say("     (drafts what the arguments of your tools mean)")
    say("  3. agentguard doctor")
    say("     (says what is still missing)")
    if len(people) == 2:
        say()
        say(f"With two people, {visible(people[1])} approves what {visible(people[0])} asks for.")
        say("Add a third to [people] for jobs that the other one asks for, and for media that needs"
            " two approvals;")  # fmt: skip
        say("until then doctor names both, and such exports are denied.")


def _refuse_known(folder: Path, target: Path) -> None:
    if os.path.lexists(target):
        raise ConfigError(f"{target}: exists and is not overwritten; `agentguard doctor` reads it")
    project = folder / "pyproject.toml"
    if project.exists() and "[tool.agentguard" in project.read_text("utf-8", "replace"):
        raise ConfigError(f"{project}: has [tool.agentguard]; a second configuration would hide it")
    if os.path.lexists(folder / ".agentguard" / "log.key"):
        raise ConfigError(
            f"{folder / '.agentguard' / 'log.key'}: exists, so a workspace was here; restore its"
            " agentguard.toml, or move .agentguard away"
        )


def _two_people(given: list[str]) -> list[str]:
    if not given and not sys.stdin.isatty():
        return list(_PLACEHOLDERS)
    if len(given) < 2 and not sys.stdin.isatty():
        raise typer.BadParameter("give --person twice: nobody approves their own job")
    asked = ["Your id, such as your e-mail", "Somebody else who can approve"]
    for index in range(len(given), 2):
        answer = typer.prompt(asked[index], default=_PLACEHOLDERS[index], err=True)
        given = [*given, str(answer).strip()]
    return given


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

    Next: correct bindings.py, give `bindings` to Guard.from_config(..., bindings=bindings),
    and run `agentguard doctor --bindings bindings:bindings`.
    """
    from agentguard.bindings.bound import draft, told

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
    used = ["Binding", *(name for name in ("Arg", "McpTool") if _uses(drafted, name))]
    lines = [_HEADER, f"from agentguard import {', '.join(sorted(used))}"]
    if names:
        lines += [f"from {module} import {', '.join(names)}"]
    lines += ["", "bindings = ["]
    for one in drafted:
        lines += [f"    # {visible(line, 2000)}" for line in one.get("says", ())]
        lines += [f"    {one['source']},"]
    lines += [f"    # {visible(one['error'])}" for one in drafts if "error" in one]
    typer.echo("\n".join([*lines, "]"]))


def _uses(drafts: list[dict[str, Any]], name: str) -> bool:
    return any(f"{name}(" in one["source"] for one in drafts)
