"""`python -m graphs.studio` and `python -m graphs.solo`: a graph on your own brief and files."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.markup import escape

from agentguard import Guard
from agentguard.errors import AgentGuardError, ApprovalError
from agentguard.people.keys import key_folder, load_person_key, person_key_path
from graphs.approver import Approver
from graphs.director import load_model
from graphs.running import begin, carry_out, folders, parse_material, threads
from graphs.show import Show, Watch, decisions, link, short
from graphs.studio import Graph
from graphs.workspace import REQUESTER, make_workspace, new_folder, open_guard

_HELP = (
    "Give the {name} a brief, and files to work with.",
    "Its media calls pass agentguard: it works freely inside the workspace, and a public export"
    " of sensitive media waits for a person.",
    "After `make demo`: [cyan].venv/bin/python -m graphs.{name} --asset"
    ' demo-out/run-1/material/logo.png:brand --brief "Two pictures: a misty mountain lake at dawn'
    " with our logo; a harbour at night. Make a film of both. Send everything to the"
    ' team, then publish the first picture on the site."[/cyan]',
    "The scripted director needs no key and reads briefs like this one: what the pictures show,"
    " with captions in quotes, then what to do with them. With --model any LangChain chat model"
    " directs instead; install its package and set its key.",
)


def run(name: str, build: Callable[..., Graph]) -> None:
    """The command line of a graph."""
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")

    @app.command(help="\n\n".join(_HELP).format(name=name), no_args_is_help=True)
    def command(
        brief: Annotated[str, typer.Option(help="What you want, in plain words.")] = "",
        asset: Annotated[
            list[str] | None,
            typer.Option(metavar="FILE:CLASS", help="Material and its class; may come again."),
        ] = None,
        model: Annotated[
            str | None, typer.Option(help="A chat model by name; none is the scripted one.")
        ] = None,
        out: Annotated[
            Path, typer.Option(help="Where the built-in workspace of this run is made.")
        ] = Path("demo-out"),
        config: Annotated[
            Path | None, typer.Option(help="Your own agentguard.toml instead of the built-in one.")
        ] = None,
        by: Annotated[
            str | None, typer.Option(help="Who asks for the job; else the first person configured.")
        ] = None,
        resume: Annotated[
            str | None, typer.Option(metavar="JOB", help="Go on with a job that waits for answers.")
        ] = None,
        yes: Annotated[
            bool, typer.Option("--yes", help="Built-in workspace: answer for its demo people.")
        ] = False,
    ) -> None:
        show = Show(Console(highlight=False))
        try:
            code = _carry_out(
                name, build, show, brief=brief, assets=asset or [], model=model, out=out,
                config=config, by=by, resume=resume, yes=yes,
            )  # fmt: skip
        except AgentGuardError as error:
            show.rest()
            show.console.print(f"[red]✗[/red] {escape(str(error))}", soft_wrap=True)
            code = 1
        raise typer.Exit(code)

    app()


def _carry_out(
    name: str,
    build: Callable[..., Graph],
    show: Show,
    *,
    brief: str,
    assets: list[str],
    model: str | None,
    out: Path,
    config: Path | None,
    by: str | None,
    resume: str | None,
    yes: bool,
) -> int:
    if not brief and resume is None:
        raise typer.BadParameter("say what you want: --brief '...'")
    if config is None and resume is not None:
        raise typer.BadParameter("--resume needs the --config of the job's workspace")
    key_of: Callable[[str], Ed25519PrivateKey | None] = _own_key
    if config is None:
        folder = new_folder(out, name)
        keys = make_workspace(folder)
        config, by, key_of = folder / "agentguard.toml", by or REQUESTER, keys.of
    elif yes:
        raise typer.BadParameter("--yes answers for demo people; yours answer themselves")
    material = [parse_material(text) for text in assets]
    ask = sys.stdin.isatty() and show.console.is_terminal and not yes
    with open_guard(config) as guard, threads(_beside(guard, "threads.db")) as saver:
        graph = build(guard, model=load_model(model), checkpointer=saver)
        person = by or next(iter(guard.workspace.people))
        job = (
            guard.open_job(brief[:200], requested_by=person)
            if resume is None
            else guard.rejoin_job(resume, by=person)
        )
        show.title(f"{name} · {guard.workspace.id}", f"{job.id} for {person}")
        approver = Approver(
            guard, show, key_of=key_of, ask=ask, folder=_beside(guard, "to-approve")
        )
        with job:
            input: Any = None
            if resume is None:
                input, ids = begin(job, brief, material)
                for file, labels in material:
                    show.line(f"{escape(file.name)} is {short(ids[file.name])},"
                              f" {' + '.join(labels)}")  # fmt: skip
            told = carry_out(
                graph, guard, job, thread=job.id, input=input,
                watch=Watch(show, guard, job.id), answer=approver,
            )  # fmt: skip
        show.rest()
        return _close(show, guard, job.id, told, name)


def _close(show: Show, guard: Guard, job: str, told: str | None, name: str) -> int:
    if told is None:
        config = guard.workspace.root / "agentguard.toml"
        show.console.print(
            f"\nThe job waits for answers. Go on with:\n  python -m graphs.{name}"
            f" --config {escape(str(config))} --resume {job}", soft_wrap=True,
        )  # fmt: skip
        return 4
    show.console.print()
    for line in short(told).splitlines():
        show.line(escape(line), 0)
    show.console.print()
    show.console.print(decisions(guard, job))
    show.console.print()
    for place, folder in folders(guard).items():
        show.line(f"{place}: {link(folder)}", 0)
    show.line(f"audit verified: {guard.verify().records} records", 0)
    return 0


def _beside(guard: Guard, name: str) -> Path:
    """A place for this program's own files: beside the workspace's log key."""
    return guard.workspace.log_key.parent / name


@cache
def _own_key(person: str) -> Ed25519PrivateKey | None:
    """A person's key on this machine, opened with the passphrase that they type."""
    path = person_key_path(key_folder(), person)
    if not path.exists() or not sys.stdin.isatty():
        return None
    while True:
        passphrase = getpass.getpass(f"     passphrase of {person} (empty: not now): ")
        if not passphrase:
            return None
        try:
            return load_person_key(path, passphrase)
        except ApprovalError as error:
            print(f"     {error}", file=sys.stderr)
