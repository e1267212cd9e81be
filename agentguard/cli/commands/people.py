"""`people`: their keys, and what each may answer as."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentguard.cli.context import require_person, workspace_of
from agentguard.cli.output import Json, Say, listing, passphrase, say, visible

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from agentguard.people.signers import Signers

KeyFolder = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Where the key is; ~/.config/agentguard/keys without it."),
]

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Who can approve, and with which key."
)


@app.command("add")
def add(
    ctx: typer.Context,
    person: Annotated[str, typer.Argument(metavar="PERSON", help="An id of [people].")],
    key_folder: KeyFolder = None,
    second_key: Annotated[
        bool,
        typer.Option("--second-key", help="Add this key beside one that the person has already."),
    ] = False,
) -> None:
    """Make a person's own key.

    Its public half is noted in the signers file. The person runs this on their own machine and
    picks a passphrase (or sets AGENTGUARD_PASSPHRASE). The private half stays in their key folder;
    the signers file is shared with the workspace: commit it. A person who has a key already, from
    another workspace, is asked for its passphrase and uses it here too.

    Whoever holds a key of a person answers as that person. So a person who has a key here gets
    another one with --second-key only; `agentguard doctor` and each answer show that there are two.

    \b
    Example:
      $ agentguard people add omar@acme.example

    Next: `agentguard approvals list` shows what waits for them.
    """
    from agentguard.people import keys
    from agentguard.people import signers as identity

    workspace = workspace_of(ctx)
    require_person(workspace, person)
    path = keys.person_key_path(key_folder or keys.key_folder(), person)
    signers = identity.Signers.load(workspace.signers)  # broken: found before a key is made
    comment = f"added {datetime.now(UTC).date().isoformat()}"
    if path.exists():
        key = _known_key(path, person, signers)
        identity.append_signer(
            workspace.signers, person, key, comment=comment, second_key=second_key
        )
        say(f"{visible(person)} uses key {identity.key_id(key)} here too")
    else:
        if not second_key:
            signers.require_no_key(person)
        key = keys.create_person_key(path, passphrase(new=True))
        try:
            identity.append_signer(
                workspace.signers, person, key, comment=comment, second_key=second_key
            )
        except BaseException:
            path.unlink()  # a key that speaks for nobody
            raise
        say(f"{visible(person)} has key {identity.key_id(key)}")
    say(f"  private  {visible(path)} (keep it, nobody can restore it)")
    say(f"  public   {visible(workspace.signers)} (share it: commit this file)")
    say("Next: agentguard approvals list")


def _known_key(path: Path, person: str, signers: Signers) -> Ed25519PublicKey:
    """The public half of a key that is there already, if it does not speak for the person yet."""
    from agentguard.errors import ApprovalError
    from agentguard.people import keys
    from agentguard.people import signers as identity

    said = f"{visible(path)} is there already; its passphrase"
    try:
        key = keys.load_person_key(path, passphrase(text=said)).public_key()
    except ApprovalError as error:
        raise ApprovalError(
            f"{error}. This key was there already; to use it here without its passphrase, copy"
            f" {person}'s line from the other workspace's {signers.file.name}"
        ) from None
    name = identity.key_id(key)
    if signers.lookup(person, name) is not None:
        raise ApprovalError(
            f"{person} has key {name} here already ({path}); nothing was changed. A key is never"
            " overwritten: for a second one, name another --key-folder and add --second-key"
        )
    return key


@app.command("list")
def list_people(ctx: typer.Context, json_: Json = False) -> None:
    """Show people, their groups, keys and agents.

    \b
    Example:
      $ agentguard people list

    Next: `agentguard people add PERSON` for whoever has no key.
    """
    from agentguard.people.signers import Signers

    workspace = workspace_of(ctx)
    signers = Signers.load(workspace.signers)
    listed: list[dict[str, Any]] = [
        {
            "person": name,
            "groups": sorted(person.groups),
            "keys": sorted(signers.keys.get(name, ())),
            "owns": sorted(k for k, agent in workspace.agents.items() if agent.owner == name),
        }
        for name, person in workspace.people.items()
    ]
    shown = listing(
        listed,
        {
            "person": lambda one: visible(one["person"]),
            "groups": lambda one: visible(", ".join(one["groups"])) or "-",
            "key": lambda one: _keys(one["keys"]),
            "owns agents": lambda one: visible(", ".join(one["owns"])) or "-",
        },
        json_=json_,
        data=dict,
    )
    if shown:
        say("Nobody approves in a job they asked for, or media that their agents worked on.")


def _keys(held: Sequence[str]) -> str | Say:
    if not held:
        return ("no key", "yellow")
    return held[0] if len(held) == 1 else (f"{len(held)} keys: {', '.join(held)}", "yellow")
