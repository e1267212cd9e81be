"""`assets`: media by the hash of its bytes; where it came from, where it may not go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentguard.cli.context import find_asset, find_job, ledger_of, require_person, workspace_of
from agentguard.cli.output import (
    Json,
    Line,
    fields,
    listing,
    picked,
    print_json,
    say,
    visible,
    when,
)
from agentguard.errors import JobError
from agentguard.model import JobState

if TYPE_CHECKING:
    from agentguard.ledger.rows.assets import NamedAsset
from agentguard.cli.views.asset import (
    asset_data,
    class_text,
    finding_text,
    kind_of,
    marked,
    origin_text,
    terms_text,
)

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
            known = find_job(guard.ledger, job)
            if known.state == JobState.ENDED:
                raise JobError(f"job {known.id} has ended; nothing can be given to it")
            job = known.id
        name = guard.import_asset(file, labels, by=by, job=job)
        asset = find_asset(guard.ledger, name)
    if json_:
        print_json(asset_data(asset))
        return
    say(f"{name}  {kind_of(asset)}  class {class_text(asset)}")
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
    from agentguard.ledger.queries.assets import newest_assets, newest_assets_of

    workspace = workspace_of(ctx)
    found: Sequence[NamedAsset]
    with ledger_of(workspace) as ledger:
        if job is None:
            found = ledger.rows(newest_assets(count + 1))
        else:
            found = ledger.rows(newest_assets_of(find_job(ledger, job).id, count + 1))
    listing(
        found,
        {
            "asset": lambda one: one.id,
            "kind": kind_of,
            "class": marked,
            "name": lambda one: visible(one.called, 60),
        },
        json_=json_,
        data=lambda one: {**asset_data(one), "name": one.called},
        empty="No assets yet. Next: agentguard assets import FILE --class CLASS --by PERSON",
        tight=["asset"],
        newest=count,
    )


@app.command("show")
def show(ctx: typer.Context, asset: Asset, json_: Json = False) -> None:
    """Show all that is known of an asset.

    \b
    Example:
      $ agentguard assets show asset-0123456789ab

    Next: `agentguard assets lineage ID` draws where it came from.
    """
    from agentguard.ledger.queries import assets, grants
    from agentguard.ledger.queries.parts import ALL

    workspace = workspace_of(ctx)
    with ledger_of(workspace) as ledger:
        known = find_asset(ledger, asset)
        origins = ledger.rows(assets.origins_of(known.sha256, ALL))
        contributors = ledger.rows(assets.contributors_of(known.sha256))
        jobs = ledger.rows(assets.seen_in(known.sha256))
        reviews = ledger.rows(assets.reviews_of(known.sha256))
        queued = ledger.rows(assets.queued_for(known.sha256))
        receipts = ledger.rows(grants.receipts_with(known.sha256))
    if json_:
        print_json(
            {
                **asset_data(known),
                "origins": [asdict(one) for one in origins],
                "contributors": [{"person": person} for person in contributors],
                "jobs": [asdict(one) for one in jobs],
                "reviews": [
                    {**picked(one, "job", "findings", "at"), "clean": int(one.clean)}
                    for one in reviews
                ],
                "queued": [asdict(one) for one in queued],
                "receipts": [picked(one, "destination", "location", "at") for one in receipts],
            }
        )
        return
    rows: list[Line] = [
        ("asset", visible(known.id)),
        ("sha256", visible(known.sha256)),
        ("kind", f"{kind_of(known)}, {known.size} bytes"),
        ("class", marked(known)),
        ("terms", terms_text(known.terms)),
        ("provenance", visible(known.provenance)),
    ]
    for origin in origins:
        rows.append(("came from", f"{origin_text(origin)}, {when(origin.at)}"))
    people = ", ".join(contributors)
    rows.append(("contributors", f"{visible(people)} (they can't approve its release)"))
    for seen in jobs:
        rows.append(("in job", visible(f"{seen.job}: {seen.how} as {seen.name}")))
    for review in reviews:
        rows.append(("reviewed", f"{'clean' if review.clean else 'with findings'},"
                                 f" {when(review.at)}"))  # fmt: skip
        rows += [("", finding_text(one)) for one in review.findings]
    for place in queued:
        rows.append(("queued", f"for {visible(place.destination)}, {when(place.at)}"))
    for sent in receipts:
        rows.append(("released", f"{visible(sent.location)}, {when(sent.at)}"))
    fields(rows)


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
    from agentguard.ledger.queries.assets import children_of
    from agentguard.ledger.queries.grants import receipts_with

    workspace = workspace_of(ctx)
    require_person(workspace, by)
    with ledger_of(workspace) as ledger:
        known = find_asset(ledger, asset)
        changed = ledger.mark_asset(known.sha256, column=column, value=value, by=by)
        sent = ledger.rows(receipts_with(known.sha256))
        made = ledger.rows(children_of(known.sha256))
    state = {"held": "under legal hold", "recalled": "recalled"}[column]
    if not value:
        state = f"not {state}"
    say(f"{known.id} is {'now' if changed else 'already'} {state}")
    if column == "recalled":
        for one in sent:
            say(f"  it was released to {visible(one.location)}, {when(one.at)}: take it down")
    if value and made:
        said = "1 asset" if len(made) == 1 else f"{len(made)} assets"
        say(f"  made from it, and {state} with it: {said}; agentguard assets lineage {known.id}")
