"""The demo: a brief becomes pictures, a film and exports; then a hijacked step tries to get round.

    python -m graphs.demo            a person at the terminal answers the one question
    python -m graphs.demo --yes      answers as a demo person, with that person's key, and says so

Everything is real but the people: files, signatures, ledger, refusals. Each run makes a new folder.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from agentguard.errors import AgentGuardError
from graphs.show import Show, link

if TYPE_CHECKING:
    from agentguard import Guard
    from graphs.attacks import Scene

BRIEF = (
    "Launch of the Aurora trail shoe. Two pictures: a misty mountain lake at dawn with our logo;"
    " a pine forest in golden evening light with the photo of our customer and the line"
    " “I run before the city wakes”. Make a short film of both. Send everything to the team."
    " Then publish the first picture on the site."
)


def demo(
    out: Annotated[Path, typer.Option(help="Where the folder of this run is made.")] = Path(
        "demo-out"
    ),
    model: Annotated[
        str | None, typer.Option(help="A chat model, e.g. openai:gpt-5; none is the scripted one.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Answer as a demo person.")] = False,
) -> None:
    """Watch a guarded studio work, and a hijacked one be refused."""
    show = Show(Console(highlight=False))
    try:
        run(show, out=out, model=model, ask=sys.stdin.isatty() and not yes)
    except AgentGuardError as error:
        show.rest()
        show.console.print(f"[red]✗[/red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None
    finally:
        show.rest()


def run(show: Show, *, out: Path, model: str | None, ask: bool) -> Path:
    """The whole demo; returns the folder of this run.

    Args:
        ask: read the answer from the terminal; else a demo person answers.
    """
    began = time.monotonic()
    # The steps below say what was refused; the library's own warnings would stand between them.
    logging.getLogger("agentguard").addHandler(logging.NullHandler())
    show.title("agentguard demo", "a brief becomes media; every tool call passes one guard")
    with show.busy("loading the tools"):
        from graphs import attacks, running, studio
        from graphs.approver import Approver
        from graphs.director import load_model
        from graphs.material import draw_customer, draw_logo
        from graphs.show import Watch, decisions, short
        from graphs.workspace import REQUESTER, make_workspace, new_folder, open_guard

        folder = new_folder(out, "run").resolve()
        keys = make_workspace(folder)
        material = [
            (folder / "material" / "logo.png", ("brand",)),
            (folder / "material" / "customer.jpg", ("customer-data",)),
        ]
        material[0][0].parent.mkdir()
        draw_logo(material[0][0])
        draw_customer(material[1][0])
        library = attacks.StockLibrary()
        guard = open_guard(folder / "agentguard.toml", library.binding)
    ask = ask and show.console.is_terminal
    with guard, running.threads(folder / "threads.db") as saver:
        chat = load_model(model)
        graph = studio.build(guard, model=chat, checkpointer=saver)
        approver = Approver(guard, show, key_of=keys.of, ask=ask, folder=folder / "to-approve")
        show.step("The brief")
        show.line(escape(BRIEF))
        with guard.open_job("Aurora launch", requested_by=REQUESTER) as job:
            input, ids = running.begin(job, BRIEF, material)
            for path, labels in material:
                show.line(f"[dim]imported[/dim] {link(path, path.name)} [dim]as[/dim]"
                          f" {short(ids[path.name])}, {' + '.join(labels)}")  # fmt: skip
            show.line(
                "[dim]kim asks, so she approves nothing; sam owns the agents, so neither does he."
                " Provenance is not read yet: it counts as unknown, and so every"
                " public export asks a person.[/dim]"
            )
            told = running.carry_out(
                graph, guard, job, thread="brief", input=input,
                watch=Watch(show, guard, job.id), answer=approver,
            )  # fmt: skip
            show.rest()
            show.step("The director reports")
            for line in short(told or "The job was left waiting.").splitlines():
                show.line(escape(line))
            scene = attacks.Scene(
                guard=guard, job=job, graph=graph, saver=saver, approver=approver, thread="brief",
                library=library,
                public=_newest(guard, job.id, "brand"),
                private=_newest(guard, job.id, "customer-data"),
            )  # fmt: skip
            show.step("A hijacked step tries to get round the guard")
            _attack(show, scene)
        # The approval that the byte swap wasted could still be used: it dies with the job.
        guard.ledger.end_job(job.id, reason="the demo is over")
        show.step("What was decided")
        show.line(decisions(guard, job.id))
        show.step(f"Results, after {time.monotonic() - began:.0f} s")
        _results(show, guard, folder)
        report = guard.verify()
    show.line(f"audit verified: {report.records} records", 0)
    return folder


def _attack(show: Show, scene: Scene) -> None:
    from graphs import attacks

    before = scene.effects()
    for attack in attacks.ALL:
        show.line(f"[bold]{attack.title}[/bold] [dim]{', '.join(attack.scenarios)}[/dim]")
        with show.busy(attack.title.lower()):
            tried = attack.carry_out(scene)
        for one in tried:
            show.deny(escape(one.what), one.answer)
    achieved = scene.effects() - before
    colour = "red" if achieved else "green"
    show.line(f"[{colour}]{achieved} effects[/{colour}], {before} deliveries as before the attack")
    show.line(
        "[dim]the same against other guards: .venv/bin/python -m evals run --only byte-swap[/dim]"
    )


def _newest(guard: Guard, job: str, label: str) -> str:
    """The newest picture of a job whose class is this label, and `generated` at most."""
    rows = guard.ledger.all(
        "SELECT id, labels FROM assets JOIN asset_jobs USING (sha256) WHERE job = ?"
        " AND media_type LIKE 'image/%' ORDER BY asset_jobs.at DESC", job,
    )  # fmt: skip
    own = ({label}, {label, "generated"})
    return str(next(row["id"] for row in rows if set(json.loads(row["labels"])) in own))


def _results(show: Show, guard: Guard, folder: Path) -> None:
    from graphs.running import destinations

    rows = []
    for place, files in destinations(guard).items():
        for file in files:
            known = guard.ledger.one("SELECT labels FROM assets WHERE id = ?", f"asset-{file.stem}")
            labels = " + ".join(json.loads(known["labels"])) if known is not None else "unknown"
            rows.append((place, f"{link(file, str(file.relative_to(folder)))} [dim]{labels}[/dim]"))
    show.facts(rows, 3)
    show.line(f"\n{link(folder)}", 0)
    show.line("[dim]next, a graph of your own: 'Guard your own graph' in README.md[/dim]", 0)


if __name__ == "__main__":
    typer.run(demo)
