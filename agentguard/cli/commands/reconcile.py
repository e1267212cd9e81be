"""`reconcile`: what became of calls whose process died, and which it is too early to ask about."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from agentguard.cli.context import bound_in, ledger_of, require_person, workspace_of
from agentguard.cli.output import Json, print_json, say, short, visible
from agentguard.model import GrantState

if TYPE_CHECKING:
    from agentguard.calls.reconcile import Reconciled
    from agentguard.ledger.ledger import Ledger

_MEANS = {
    GrantState.EXECUTED: "it happened (executed)",
    GrantState.FAILED: "it did not happen (failed)",
}


def reconcile(
    ctx: typer.Context,
    request: Annotated[
        str | None, typer.Argument(help="One request that a person looked into.")
    ] = None,
    happened: Annotated[
        bool | None, typer.Option("--happened/--did-not", help="What the person found.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="The person who looked.")] = None,
    bindings: Annotated[
        str | None,
        typer.Option(metavar="MODULE:NAME", help="Your list of Bindings, whose probes are asked."),
    ] = None,
    json_: Json = False,
) -> None:
    """Find out what became of calls after a crash.

    Asks each destination, and the probe of each tool's Binding, about calls whose outcome is
    unknown. Nothing is sent again. What can't be found out stays unknown until a person looks,
    and says what they found; it exits 0 then too. A call of a process that died a moment ago is
    still claimed until the lease of its job lapses, so run it again then.

    \b
    Examples:
      $ agentguard reconcile
      $ agentguard reconcile --bindings bindings:bindings
      $ agentguard reconcile 3f9a0c0011223344 --did-not --by omar@acme.example

    Next: `agentguard explain REQUEST` for one that stays unknown.
    """
    from agentguard.calls import reconcile as recovery
    from agentguard.export.broker import Broker

    workspace = workspace_of(ctx)
    if request is not None or happened is not None or by is not None:
        if request is None or happened is None or by is None:
            raise typer.BadParameter("name REQUEST, --happened or --did-not, and --by PERSON")
        if bindings is not None:
            raise typer.BadParameter("a person looked: leave out --bindings")
        require_person(workspace, by)
        with ledger_of(workspace) as ledger:
            digest = recovery.settle(ledger, request, happened=happened, by=by)
            call = _call(ledger, digest)
        means = _MEANS[GrantState.EXECUTED if happened else GrantState.FAILED]
        say(f"{short(digest)}  {call}: {means}, as {visible(by)} says")
        return
    bound = bound_in(bindings) if bindings is not None else {}
    # What a probe prints must not get into our output.
    with ledger_of(workspace) as ledger, contextlib.redirect_stdout(sys.stderr):
        found = recovery.reconcile(ledger, Broker(workspace.destinations), bound)
        calls = {one.request: _call(ledger, one.request) for one in found}
        claimed = _claimed(ledger)
    if json_:
        told = [*((one.request, one.sentence) for one in found), *claimed]
        print_json([{"request": name, "found": what} for name, what in told])
        return
    for one in found:
        _tell(one, calls[one.request])
    for what, count in Counter(what for _, what in claimed).items():
        calls_are = "1 call is" if count == 1 else f"{count} calls are"
        say(f"{calls_are} {what}; if its process is dead, run this again then.", "yellow")
    left = sum(one.outcome is GrantState.UNKNOWN for one in found)
    if left:
        say(f"{left} of {len(found)} stay{'s' * (left == 1)} unknown.", "yellow")
    if not found and not claimed:
        say("No call has an unknown outcome.")


def _tell(one: Reconciled, call: str) -> None:
    name = short(one.request)
    if one.outcome is not GrantState.UNKNOWN:
        means = _MEANS.get(one.outcome) if one.outcome is not None else None
        say(f"{name}  {call}: {means or visible(one.sentence)}")
        return
    say(f"{name}  {call} {visible(one.sentence)}")
    if one.needs_person:
        say(f"  if it happened:  agentguard reconcile {name} --happened --by PERSON")
        say(f"  if it did not:   agentguard reconcile {name} --did-not --by PERSON")


def _call(ledger: Ledger, name: str) -> str:
    """What a call does, in two words or four: `publish to team`."""
    from agentguard.ledger.queries.requests import request_by_digest

    known = ledger.first(request_by_digest(name))
    if known is None:
        return "an unrecorded call"
    place = f" to {known.destination}" if known.destination else ""
    return visible(f"{known.tool}{place}", 120)


def _claimed(ledger: Ledger) -> list[tuple[str, str]]:
    """(request digest, who holds it) of each claimed call with an effect outside.

    I8: whether its process is slow or dead can't be told before the lease of its job lapses.
    """
    from agentguard.ledger.queries.grants import claimed_outside

    now = ledger.clock()
    return [
        (
            one.request,
            f"still claimed by {visible(one.job)}, whose lease lapses in"
            f" {max(-(-(one.until - now) // 1000), 0)} s",
        )
        for one in ledger.rows(claimed_outside())
    ]
