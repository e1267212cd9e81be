"""The command `agentguard`: people's front door to a workspace."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from agentguard.cli.commands import (
    approvals,
    assets,
    audit,
    doctor,
    explain,
    jobs,
    lineage,
    matrix,
    people,
    policy,
)
from agentguard.cli.commands import (
    init as start,
)
from agentguard.cli.output import ERROR, UNVERIFIED, visible
from agentguard.errors import AgentGuardError, LedgerCorrupt, VerificationFailed


class _Group(TyperGroup):
    """Turns errors that have a message for people into that message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except AgentGuardError as error:
            for line in str(error).splitlines():
                typer.echo(f"error: {visible(line, 2000)}", err=True)
            unsound = isinstance(error, (VerificationFailed, LedgerCorrupt))
            raise typer.Exit(UNVERIFIED if unsound else ERROR) from None


app = typer.Typer(
    cls=_Group,
    add_completion=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,  # its tracebacks can show local variables: passphrases
    rich_markup_mode=None,
)


@app.callback()
def overview(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="agentguard.toml, or a pyproject.toml with [tool.agentguard]. Without it the"
            " nearest one counts, in this folder or above.",
        ),
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Authorize every media tool call of an LLM agent, and ask people about sensitive exports.

    \b
    Getting started:
      1. agentguard init                         agentguard.toml, for two people
      2. agentguard people add you@example.com   each person makes their own key
      3. agentguard bind tools.edit:TOOLS        drafts what arguments mean
      4. wrap your graph in Python:
           graph = protect(builder, guard, agents={"tools": "editor"})
      5. agentguard doctor                       says what is still missing

    \b
    From then on:
      agentguard approvals list                  what waits for a person
      agentguard approvals approve ID --as YOU   look, then sign
      agentguard matrix                          who may do what, what is asked
      agentguard policy schema                   what your own policies can read
      agentguard audit verify                    nobody changed the records

    \b
    Exit codes: 0 ok or permit, 1 error, 2 usage, 3 deny, 4 approval pending,
    5 verification failed. Every command has --help with an example.
    """
    ctx.obj = config
    if version:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as version_of

        try:
            typer.echo(version_of("agentguard"))
        except PackageNotFoundError:
            raise AgentGuardError("agentguard is not installed, so it has no version") from None
    elif ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


start.register(app)
doctor.register(app)
explain.register(app)
matrix.register(app)
lineage.register(assets.app)
app.add_typer(people.app, name="people")
app.add_typer(policy.app, name="policy")
app.add_typer(assets.app, name="assets")
app.add_typer(approvals.app, name="approvals")
app.add_typer(jobs.app, name="jobs")
app.add_typer(audit.app, name="audit")
jobs.register(app)


def main() -> None:
    """The entry point; exits with one of the codes that the overview lists."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without UTF-8
    app()


if __name__ == "__main__":
    main()
