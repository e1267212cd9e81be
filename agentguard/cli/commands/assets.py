"""`assets`: media by the hash of its bytes; where it came from, where it may not go."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentguard.cli.context import find_asset, find_job, ledger_of, require_person, workspace_of
from agentguard.cli.output import (
    Json,
    Say,
    fields,
    print_json,
    say,
    say_more,
    table,
    visible,
    when,
)
from agentguard.errors import JobError

if TYPE_CHECKING:
    from agentguard.ledger.storage.open import Row

Asset = Annotated[
    str, typer.Argument(metavar="ASSET", help="Its id, or 12 or more characters of it.")
]
By = Annotated[str, typer.Option("--by", metavar="PERSON", help="Who does this; it is recorded.")]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Media: bring it in, follow it, hold it back.",
)


@app.command("import")
def import_asset(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A picture, video, sound or text.")],
    by: By,
    class_: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="CLASS", help="Its class; repeat it, or write a,b."),
    ] = None,
    job: Annotated[str | None, typer.Option(metavar="JOB", help="The job that may see it.")] = None,
    json_: Json = False,
) -> None:
    """Take a file into the workspace, with its class.

    Without --class it counts as `unclassified`, the highest sensitivity. Bytes that are known
    already get the new class in addition; no class is ever dropped. Who imports an asset can't
    approve its release.

    \b
    Example:
      $ agentguard assets import logo.png --class brand --by kim@acme.example

    Next: `agentguard assets show ID`; the agents of a job see it once --job gave it to them.
    """
    from agentguard.guard import Guard

    workspace = workspace_of(ctx)
    require_person(workspace, by)
    labels = {one.strip() for text in class_ or () for one in text.split(",")} - {""}
    with Guard.from_config(ctx.obj) as guard:
        if job is not None:
            row = find_job(guard.ledger, job)
            if row["state"] == "ended":
                raise JobError(f"job {row['id']} has ended; nothing can be given to it")
            job = row["id"]
        name = guard.import_asset(file, labels, by=by, job=job)
        asset = find_asset(guard.ledger, name)
    if json_:
        print_json(_as_data(asset))
        return
    say(f"{name}  {kind_of(asset)}  class {_class(asset)}")
    if not labels:
        say("no --class was given, so it counts as unclassified: the highest sensitivity", "yellow")
    say(f"Next: agentguard assets show {name}")


@app.command("list")
def list_assets(
    ctx: typer.Context,
    job: Annotated[
        str | None, typer.Option(metavar="JOB", help="Only what this job may see.")
    ] = None,
    count: Annotated[int, typer.Option("-n", min=1, metavar="N", help="How many at most.")] = 50,
    json_: Json = False,
) -> None:
    """List assets, newest first.

    \b
    Example:
      $ agentguard assets list --job job-0123456789ab

    Next: `agentguard assets show ID`, or `lineage ID` for where it came from.
    """
    from agentguard.ledger.queries.pages import assets_of, newest_assets

    workspace = workspace_of(ctx)
    with ledger_of(workspace) as ledger:
        if job is None:
            rows = newest_assets(ledger, count + 1)
        else:
            rows = assets_of(ledger, find_job(ledger, job)["id"], count + 1)
    more, rows = len(rows) > count, rows[:count]
    if json_:
        print_json([{**_as_data(row), "name": row["called"]} for row in rows])
        return
    if not rows:
        say("No assets yet. Next: agentguard assets import FILE --class CLASS --by PERSON")
        return
    table(
        ["asset", "kind", "class", "name"],
        [[row["id"], kind_of(row), _marked(row), visible(row["called"], 60)] for row in rows],
        tight=["asset"],
    )
    say_more(more, count)


@app.command("show")
def show(ctx: typer.Context, asset: Asset, json_: Json = False) -> None:
    """Show all that is known of an asset.

    \b
    Example:
      $ agentguard assets show asset-0123456789ab

    Next: `agentguard assets lineage ID` draws where it came from.
    """
    workspace = workspace_of(ctx)
    with ledger_of(workspace) as ledger:
        row = find_asset(ledger, asset)
        known = {
            name: [dict(one) for one in ledger.all(sql, row["sha256"])]
            for name, sql in _ABOUT.items()
        }
    for review in known["reviews"]:
        review["findings"] = json.loads(review["findings"])
    if json_:
        print_json({**_as_data(row), **known})
        return
    rows: list[tuple[str, str | Say]] = [
        ("asset", visible(row["id"])),
        ("sha256", visible(row["sha256"])),
        ("kind", f"{kind_of(row)}, {row['size']} bytes"),
        ("class", _marked(row)),
        ("terms", _terms(row)),
        ("provenance", visible(row["provenance"])),
    ]
    for origin in known["origins"]:
        rows.append(("came from", f"{origin_text(origin)}, {when(origin['at'])}"))
    people = ", ".join(one["person"] for one in known["contributors"])
    rows.append(("contributors", f"{visible(people)} (they can't approve its release)"))
    for one in known["jobs"]:
        rows.append(("in job", visible(f"{one['job']}: {one['how']} as {one['name']}")))
    for review in known["reviews"]:
        rows.append(("reviewed", f"{'clean' if review['clean'] else 'with findings'},"
                                 f" {when(review['at'])}"))  # fmt: skip
        rows += [("", finding_text(one)) for one in review["findings"]]
    for one in known["queued"]:
        rows.append(("queued", f"for {visible(one['destination'])}, {when(one['at'])}"))
    for one in known["receipts"]:
        rows.append(("released", f"{visible(one['location'])}, {when(one['at'])}"))
    fields(rows)


_ABOUT = {
    "origins": "SELECT source, tool, agent, person, name, at FROM origins WHERE sha256 = ?"
    " ORDER BY at",
    "contributors": "SELECT person FROM contributors WHERE sha256 = ? ORDER BY person",
    "jobs": "SELECT job, how, name, at FROM asset_jobs WHERE sha256 = ? ORDER BY at",
    "reviews": "SELECT job, clean, findings, at FROM reviews WHERE sha256 = ? ORDER BY at",
    "queued": "SELECT job, destination, at FROM queued WHERE sha256 = ? ORDER BY at",
    "receipts": "SELECT destination, location, at FROM receipts WHERE sha256 = ? ORDER BY at",
}


def finding_text(finding: Any) -> str:
    """One finding of a review, in one line."""
    if not isinstance(finding, dict):
        return visible(finding)
    return visible(f"{finding.get('severity', '?')}: {finding.get('message', finding)}")


@app.command("hold")
def hold(ctx: typer.Context, asset: Asset, by: By) -> None:
    """Put an asset under legal hold.

    It stays in the workspace, and no approval lets it leave.

    \b
    Example:
      $ agentguard assets hold asset-0123456789ab --by omar@acme.example

    Next: `agentguard assets release ID --by PERSON` lifts it.
    """
    _mark(ctx, asset, by, column="held", value=True)


@app.command("release")
def release(ctx: typer.Context, asset: Asset, by: By) -> None:
    """Lift the legal hold of an asset. (This is not an export.)

    \b
    Example:
      $ agentguard assets release asset-0123456789ab --by omar@acme.example

    Next: grants and approvals from before the hold are void; the agent asks again.
    """
    _mark(ctx, asset, by, column="held", value=False)


@app.command("recall")
def recall(ctx: typer.Context, asset: Asset, by: By) -> None:
    """Recall an asset for good.

    No tool may use it again, nor what was made from it: see its lineage.

    \b
    Example:
      $ agentguard assets recall asset-0123456789ab --by omar@acme.example

    Next: take it down where it says it was released.
    """
    _mark(ctx, asset, by, column="recalled", value=True)


def _mark(ctx: typer.Context, asset: str, by: str, *, column: str, value: bool) -> None:
    workspace = workspace_of(ctx)
    require_person(workspace, by)
    with ledger_of(workspace) as ledger:
        row = find_asset(ledger, asset)
        changed = ledger.mark_asset(row["sha256"], column=column, value=value, by=by)
        sent = ledger.all(
            "SELECT location, at FROM receipts WHERE sha256 = ? ORDER BY at", row["sha256"]
        )
        made = ledger.all(
            "SELECT DISTINCT id FROM lineage JOIN assets ON sha256 = child WHERE parent = ?",
            row["sha256"],
        )
    state = {"held": "under legal hold", "recalled": "recalled"}[column]
    if not value:
        state = f"not {state}"
    say(f"{row['id']} is {'now' if changed else 'already'} {state}")
    if column == "recalled":
        for one in sent:
            say(f"  it was released to {visible(one['location'])}, {when(one['at'])}: take it down")
    if value and made:
        said = "1 asset" if len(made) == 1 else f"{len(made)} assets"
        say(f"  made from it, and {state} with it: {said}; agentguard assets lineage {row['id']}")


def _as_data(row: Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "sha256": row["sha256"],
        "media_type": row["media_type"],
        "size": row["size"],
        "width": row["width"],
        "height": row["height"],
        "class": json.loads(row["labels"]),
        "terms": json.loads(row["terms"]),
        "provenance": row["provenance"],
        "held": bool(row["held"]),
        "recalled": bool(row["recalled"]),
        "created_at": row["created_at"],
    }


def kind_of(row: Row) -> str:
    """What an asset is, and its size in pixels."""
    size = f" {row['width']}x{row['height']}" if row["width"] else ""
    return visible(row["media_type"]) + size


def _class(row: Row) -> str:
    return visible(" + ".join(json.loads(row["labels"])))


def _marked(row: Row) -> Say:
    marks = [name for name in ("held", "recalled") if row[name]]
    return _class(row) + "".join(f", {mark.upper()}" for mark in marks), "red" if marks else ""


def _terms(row: Row) -> str:
    terms = json.loads(row["terms"])
    said = [f"{name} {when(terms[name])}" for name in ("release_at", "until") if terms.get(name)]
    if terms.get("channels") is not None:
        said.append(f"only to {visible(', '.join(terms['channels']))}")
    if terms.get("consent") is False:
        said.append("consent withdrawn")
    return "; ".join(said) or "none"


def origin_text(origin: Mapping[str, Any]) -> str:
    """Where an asset came from, in one line."""
    if origin["tool"]:
        return visible(f"{origin['tool']}, called by {origin['agent']}")
    return visible(f"{origin['name']}, imported by {origin['person'] or 'nobody known'}")
