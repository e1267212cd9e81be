"""`assets lineage`: what an asset was made from, and what was made from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import typer

from agentguard.cli.commands.assets import Asset
from agentguard.cli.context import find_asset, ledger_of, workspace_of
from agentguard.cli.output import Json, console, print_json, say, visible
from agentguard.cli.views.asset import kind_of, origin_text

if TYPE_CHECKING:
    from rich.tree import Tree

    from agentguard.ledger.ledger import Ledger
    from agentguard.ledger.rows.assets import AssetRow

_DEEPEST = 40  # generations shown


def register(app: typer.Typer) -> None:
    app.command("lineage")(lineage)


def lineage(ctx: typer.Context, asset: Asset, json_: Json = False) -> None:
    """Draw what an asset was made from and into.

    \b
    Example:
      $ agentguard assets lineage asset-0123456789ab

    Next: `agentguard assets recall ID --by PERSON` stops the use of one; look below it first.
    """
    workspace = workspace_of(ctx)
    with ledger_of(workspace) as ledger:
        known = find_asset(ledger, asset)
        if json_:
            print_json(
                {
                    "asset": known.id,
                    "made_from": _branch(ledger, known.sha256, "parent", ()),
                    "made_into": _branch(ledger, known.sha256, "child", ()),
                }
            )
            return
        _draw(known, "made from", _branch(ledger, known.sha256, "parent", ()))
        _draw(known, "made into", _branch(ledger, known.sha256, "child", ()))


def _branch(
    ledger: Ledger, sha256: str, want: Literal["parent", "child"], above: tuple[str, ...]
) -> list[dict[str, Any]]:
    """The next assets one way along the lineage; the same bytes can come round again."""
    from agentguard.ledger.queries.assets import next_to

    found = []
    path = (*above, sha256)
    for one in {one.sha256: one for one in ledger.rows(next_to(sha256, want))}.values():
        again = one.sha256 in path or len(path) > _DEEPEST
        found.append(
            {
                "asset": one.id,
                "kind": kind_of(one),
                "class": sorted(one.labels),
                "by": origin_text(one),
                "again": again,
                "next": [] if again else _branch(ledger, one.sha256, want, path),
            }
        )
    return found


def _draw(asset: AssetRow, title: str, branch: list[dict[str, Any]]) -> None:
    from rich.text import Text
    from rich.tree import Tree

    if not branch:
        say(f"{asset.id} was {title} nothing else")
        return
    tree = Tree(Text(f"{asset.id} was {title}", style="bold"))

    def grow(under: Tree, many: list[dict[str, Any]]) -> None:
        for one in many:
            text = f"{one['asset']}  {visible(' + '.join(one['class']))}\n{one['by']}"
            grow(under.add(Text(text + (" (again)" if one["again"] else ""))), one["next"])

    grow(tree, branch)
    console().print(tree)
