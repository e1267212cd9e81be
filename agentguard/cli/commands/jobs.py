"""`jobs`, and `sweep`, which ends what is over."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentguard.cli.commands.reconcile import reconcile
from agentguard.cli.context import find_job, ledger_of, workspace_of
from agentguard.cli.output import (
    EFFECT_STYLES,
    Json,
    Say,
    fields,
    listing,
    picked,
    print_json,
    say,
    short,
    table,
    visible,
    when,
)
from agentguard.model import JobState

if TYPE_CHECKING:
    from agentguard.ledger.rows.jobs import JobSummary

_COLOURS = {"open": "green", "waiting": "yellow"}

JobId = Annotated[
    str, typer.Argument(metavar="JOB", help="Its id, or 12 or more characters of it.")
]

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Runs of work, and all that lives in them."
)


def register(app: typer.Typer) -> None:
    app.command("reconcile")(reconcile)
    app.command("sweep")(sweep)


@app.command("list")
def list_jobs(
    ctx: typer.Context,
    count: Annotated[int, typer.Option("-n", min=1, metavar="N", help="How many at most.")] = 50,
    json_: Json = False,
) -> None:
    """List jobs, newest first.

    \b
    Example:
      $ agentguard jobs list -n 10

    Next: `agentguard jobs show JOB`.
    """
    from agentguard.ledger.queries.jobs import newest_jobs

    workspace = workspace_of(ctx)
    with ledger_of(workspace) as ledger:
        now = ledger.clock()
        found = ledger.rows(newest_jobs(now, count + 1))
    listing(
        found,
        {
            "job": lambda one: visible(one.id),
            "state": lambda one: _state(one, now),
            "for": lambda one: visible(one.purpose, 60),
            "asked by": lambda one: visible(one.requested_by, 60),
            "waits for": lambda one: _asked(one.asked, one.state),
        },
        json_=json_,
        data=_as_data,
        empty="No jobs yet. A job is opened in Python:"
        " with guard.open_job(purpose, requested_by=…)",
        tight=["job", "asked by"],
        newest=count,
    )


@app.command("show")
def show(ctx: typer.Context, job: JobId, json_: Json = False) -> None:
    """Show a job: its calls, credentials and media.

    \b
    Example:
      $ agentguard jobs show job-0123456789ab

    Next: `agentguard explain REQUEST` says why a call was decided so.
    """
    from agentguard.ledger.queries.assets import assets_of_job
    from agentguard.ledger.queries.jobs import job_summary, live_credentials_of
    from agentguard.ledger.queries.requests import calls_of_job

    workspace = workspace_of(ctx)
    with ledger_of(workspace) as ledger:
        name = find_job(ledger, job).id
        now = ledger.clock()
        (known,) = ledger.rows(job_summary(name, now))
        calls = ledger.rows(calls_of_job(name))
        live = ledger.rows(live_credentials_of(name, now))
        media = ledger.rows(assets_of_job(name))
    if json_:
        print_json(
            {
                **_as_data(known),
                "calls": [asdict(one) for one in calls],
                "credentials": [picked(one, "agent", "stage", "expires_at") for one in live],
                "assets": [picked(one, "id", "how", "labels", name="called") for one in media],
            }
        )
        return
    ended = f"{when(known.ended_at)}: {visible(known.reason)}" if known.ended_at else "no"
    credentials = ", ".join(f"{one.agent} ({one.stage})" for one in live)
    fields(
        [
            ("job", visible(known.id)),
            ("for", visible(known.purpose)),
            ("asked by", visible(known.requested_by)),
            ("state", _state(known, now)),
            ("opened", when(known.opened_at)),
            ("ended", ended),
            ("credentials", visible(credentials) or "none live"),
            *(("media", visible(f"{one.id}: {one.how} as {one.called}")) for one in media),
        ]
    )
    if calls:
        say()
        table(
            calls,
            {
                "request": lambda one: short(one.digest),
                "call": lambda one: (
                    visible(f"{one.agent}: {one.tool}")
                    + (f" to {visible(one.destination)}" if one.destination else "")
                ),
                "decision": lambda one: (visible(one.effect), EFFECT_STYLES.get(one.effect, "")),
                "approval": lambda one: visible(one.approval or "-"),
                "grant": lambda one: visible(one.grant_state or "-"),
            },
            tight=["request"],
        )
        say("Why: agentguard explain REQUEST")


@app.command("end")
def end(
    ctx: typer.Context,
    job: JobId,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is recorded.")],
) -> None:
    """End a job now, and all that lives in it.

    Its credentials, unused grants and pending approvals die with it.

    \b
    Example:
      $ agentguard jobs end job-0123456789ab --reason "campaign cancelled"

    Next: a call that had already started is not stopped; `agentguard reconcile` finds out.
    """
    from agentguard.ledger.queries.grants import unsettled

    workspace = workspace_of(ctx)
    with ledger_of(workspace) as ledger:
        name = find_job(ledger, job).id
        changed = ledger.end_job(name, reason=reason)
        started = ledger.rows(unsettled(name))
    say(f"{name} {'has ended' if changed else 'had ended already'}")
    for request in started:
        say(f"  had started: agentguard explain {short(request)}", "yellow")


def sweep(ctx: typer.Context, json_: Json = False) -> None:
    """End jobs, reviews and rights that are over.

    Jobs of dead processes, closed review windows, lapsed credentials and grants. The guard does
    this whenever it opens the ledger; run it from cron where it seldom does.

    \b
    Example:
      $ agentguard sweep

    Next: `agentguard jobs list`.
    """
    workspace = workspace_of(ctx)
    with ledger_of(workspace) as ledger:
        done = dict(ledger.sweep())
    if json_:
        print_json(done)
        return
    say("ended: " + ", ".join(f"{number} {name}" for name, number in done.items()))


def _asked(count: int, state: str) -> str:
    """What a job waits for: people, or whoever resumes its threads once they have answered."""
    none = "being resumed" if state == "waiting" else "-"
    return {0: none, 1: "1 approval"}.get(count, f"{count} approvals")


def _state(job: JobSummary, now: int) -> Say:
    if job.state == JobState.OPEN and (job.until is None or job.until <= now):
        return "lapsed (sweep ends it)", "yellow"
    return visible(job.state), _COLOURS.get(job.state, "dim")


def _as_data(job: JobSummary) -> dict[str, Any]:
    return picked(
        job,
        *("id", "purpose", "requested_by", "state", "opened_at", "ended_at", "reason"),
        lease_until="until",
        pending_approvals="asked",
    )
