"""`jobs`, and `sweep`, which ends what is over."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentguard.cli.commands.reconcile import reconcile
from agentguard.cli.context import find_job, ledger_of, workspace_of
from agentguard.cli.output import (
    EFFECT_STYLES,
    Json,
    Say,
    fields,
    print_json,
    say,
    say_more,
    short,
    table,
    visible,
    when,
)

if TYPE_CHECKING:
    from agentguard.ledger.storage.open import Row

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
    workspace = workspace_of(ctx)
    with ledger_of(workspace) as ledger:
        now = ledger.clock()
        rows = ledger.all(
            "SELECT jobs.*, leases.until, (SELECT count(*) FROM approvals WHERE job = jobs.id AND"
            " state = 'pending' AND expires_at > ?) AS asked FROM jobs LEFT JOIN leases"
            " ON leases.job = id ORDER BY opened_at DESC, id LIMIT ?",
            now,
            count + 1,
        )
    more, rows = len(rows) > count, rows[:count]
    if json_:
        print_json([_as_data(row) for row in rows])
        return
    if not rows:
        say("No jobs yet. A job is opened in Python: with guard.open_job(purpose, requested_by=…)")
        return
    table(
        ["job", "state", "for", "asked by", "waits for"],
        [
            [
                visible(row["id"]),
                _state(row, now),
                visible(row["purpose"], 60),
                visible(row["requested_by"], 60),
                _asked(row["asked"], row["state"]),
            ]
            for row in rows
        ],
        tight=["job", "asked by"],
    )
    say_more(more, count)


@app.command("show")
def show(ctx: typer.Context, job: JobId, json_: Json = False) -> None:
    """Show a job: its calls, credentials and media.

    \b
    Example:
      $ agentguard jobs show job-0123456789ab

    Next: `agentguard explain REQUEST` says why a call was decided so.
    """
    workspace = workspace_of(ctx)
    with ledger_of(workspace) as ledger:
        name = find_job(ledger, job)["id"]
        row = ledger.all(
            "SELECT jobs.*, leases.until, (SELECT count(*) FROM approvals WHERE job = jobs.id AND"
            " state = 'pending' AND expires_at > ?) AS asked FROM jobs LEFT JOIN leases"
            " ON leases.job = id WHERE id = ?",
            ledger.clock(),
            name,
        )[0]
        calls = ledger.all(
            "SELECT r.digest, r.agent, r.tool, r.destination, r.effect, r.decided_at,"
            " a.state AS approval, g.state AS grant_state FROM requests r"
            " LEFT JOIN approvals a ON a.request = r.digest"
            " LEFT JOIN grants g ON g.request = r.digest WHERE r.job = ?"
            " ORDER BY r.decided_at, r.digest",
            name,
        )
        live = ledger.all(
            "SELECT agent, stage, expires_at FROM credentials WHERE job = ? AND state = 'live'"
            " AND expires_at > ? ORDER BY agent, stage",
            name,
            ledger.clock(),
        )
        media = ledger.all(
            "SELECT id, how, name, labels FROM asset_jobs JOIN assets USING (sha256)"
            " WHERE job = ? ORDER BY at, id",
            name,
        )
        now = ledger.clock()
    if json_:
        print_json(
            {
                **_as_data(row),
                "calls": [dict(one) for one in calls],
                "credentials": [dict(one) for one in live],
                "assets": [{**dict(one), "labels": json.loads(one["labels"])} for one in media],
            }
        )
        return
    ended = f"{when(row['ended_at'])}: {visible(row['reason'])}" if row["ended_at"] else "no"
    credentials = ", ".join(f"{one['agent']} ({one['stage']})" for one in live)
    fields(
        [
            ("job", visible(row["id"])),
            ("for", visible(row["purpose"])),
            ("asked by", visible(row["requested_by"])),
            ("state", _state(row, now)),
            ("opened", when(row["opened_at"])),
            ("ended", ended),
            ("credentials", visible(credentials) or "none live"),
            *(("media", visible(f"{one['id']}: {one['how']} as {one['name']}")) for one in media),
        ]
    )
    if calls:
        say()
        table(
            ["request", "call", "decision", "approval", "grant"],
            [
                [
                    short(one["digest"]),
                    visible(f"{one['agent']}: {one['tool']}")
                    + (f" to {visible(one['destination'])}" if one["destination"] else ""),
                    (visible(one["effect"]), EFFECT_STYLES.get(one["effect"], "")),
                    visible(one["approval"] or "-"),
                    visible(one["grant_state"] or "-"),
                ]
                for one in calls
            ],
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
    workspace = workspace_of(ctx)
    with ledger_of(workspace) as ledger:
        name = find_job(ledger, job)["id"]
        changed = ledger.end_job(name, reason=reason)
        started = ledger.all(
            "SELECT request FROM grants WHERE job = ? AND state IN ('claimed', 'unknown')", name
        )
    say(f"{name} {'has ended' if changed else 'had ended already'}")
    for one in started:
        say(f"  had started: agentguard explain {short(one['request'])}", "yellow")


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


def _state(row: Row, now: int) -> Say:
    if row["state"] == "open" and (row["until"] is None or row["until"] <= now):
        return "lapsed (sweep ends it)", "yellow"
    return visible(row["state"]), _COLOURS.get(row["state"], "dim")


def _as_data(row: Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "purpose": row["purpose"],
        "requested_by": row["requested_by"],
        "state": row["state"],
        "opened_at": row["opened_at"],
        "ended_at": row["ended_at"],
        "reason": row["reason"],
        "lease_until": row["until"],
        "pending_approvals": row["asked"],
    }
