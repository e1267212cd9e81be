"""`assets lineage`: what an asset was made from, and what was made from it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from agentguard.cli.commands.assets import Asset, kind_of, origin_text
from agentguard.cli.context import find_asset, ledger_of, workspace_of
from agentguard.cli.output import Json, console, print_json, say, visible

if TYPE_CHECKING:
    from rich.tree import Tree

    from agentguard.ledger.ledger import Ledger
    from agentguard.ledger.storage.open import Row

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
        row = find_asset(ledger, asset)
        if json_:
            print_json(
                {
                    "asset": row["id"],
                    "made_from": _branch(ledger, row["sha256"], "parent", "child", ()),
                    "made_into": _branch(ledger, row["sha256"], "child", "parent", ()),
                }
            )
            return
        for title, way in (
            ("made from", ("parent", "child")),
            ("made into", ("child", "parent")),
        ):
            _draw(row, title, _branch(ledger, row["sha256"], *way, ()))


def _branch(
    ledger: Ledger, sha256: str, want: str, have: str, above: tuple[str, ...]
) -> list[dict[str, Any]]:
    """The next assets one way along the lineage; the same bytes can come round again."""
    found = []
    rows = ledger.all(
        f"SELECT DISTINCT assets.*, o.tool, o.agent, o.person, o.name AS called FROM lineage"
        f" JOIN assets ON assets.sha256 = lineage.{want} LEFT JOIN origins o ON o.sha256 ="
        f" assets.sha256 AND o.at = (SELECT min(at) FROM origins WHERE sha256 = assets.sha256)"
        f" WHERE lineage.{have} = ? ORDER BY assets.created_at, assets.id",
        sha256,
    )
    path = (*above, sha256)
    for row in {row["sha256"]: row for row in rows}.values():
        again = row["sha256"] in path or len(path) > _DEEPEST
        found.append(
            {
                "asset": row["id"],
                "kind": kind_of(row),
                "class": json.loads(row["labels"]),
                "by": origin_text({**dict(row), "name": row["called"]}),
                "again": again,
                "next": [] if again else _branch(ledger, row["sha256"], want, have, path),
            }
        )
    return found


def _draw(row: Row, title: str, branch: list[dict[str, Any]]) -> None:
    from rich.text import Text
    from rich.tree import Tree

    if not branch:
        say(f"{row['id']} was {title} nothing else")
        return
    tree = Tree(Text(f"{row['id']} was {title}", style="bold"))

    def grow(under: Tree, many: list[dict[str, Any]]) -> None:
        for one in many:
            text = f"{one['asset']}  {visible(' + '.join(one['class']))}\n{one['by']}"
            grow(under.add(Text(text + (" (again)" if one["again"] else ""))), one["next"])

    grow(tree, branch)
    console().print(tree)
