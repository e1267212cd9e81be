"""`init` and `bind`: from nothing to a workspace, and from plain tools to drafted Bindings."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from agentguard.cli.commands.bind import bind
from agentguard.cli.output import say, visible, write_new
from agentguard.errors import ConfigError

_PLACEHOLDERS = ("you@example.com", "colleague@example.com")


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
    folder: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write it.")] = Path(),
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
