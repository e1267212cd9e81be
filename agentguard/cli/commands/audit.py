"""`audit`: the records, the proof that nobody changed them, and proofs that travel."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentguard.cli.context import ledger_of, require_person, workspace_of
from agentguard.cli.output import (
    Json,
    as_json,
    fields,
    listing,
    picked,
    print_json,
    progress,
    say,
    visible,
    when,
    write_new,
)
from agentguard.errors import AgentGuardError, VerificationFailed

if TYPE_CHECKING:
    from agentguard.ledger.ledger import Ledger

Out = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A new file to write to; else stdout.")
]

_DIGEST = re.compile("[0-9a-f]{64}")
_UNREAD = ("kind", "at", "rows", "shown", "policy_version", "credential", "call", "policies")

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="The records of all that was decided and done.",
)


@app.command("tail")
def tail(
    ctx: typer.Context,
    count: Annotated[int, typer.Option("-n", min=1, metavar="N", help="How many.")] = 20,
    json_: Json = False,
) -> None:
    """Show the last records.

    \b
    Example:
      $ agentguard audit tail -n 5

    Next: `agentguard explain REQUEST` tells the story of one call.
    """
    workspace = workspace_of(ctx)
    with ledger_of(workspace) as ledger:
        first = max(ledger.storage.tree_size() - count, 0)
        found = list(_records(ledger, first))
    listing(
        found,
        {
            "n": lambda one: str(one[0]),
            "when (UTC)": lambda one: when(one[1].get("at")).removesuffix(" UTC"),
            "what": lambda one: visible(one[1].get("kind", "?")),
            "about": lambda one: _about(one[1]),
        },
        json_=json_,
        data=lambda one: {"index": one[0], "record": one[1]},
        empty="Nothing is recorded yet.",
        tight=["n", "when (UTC)", "what"],
    )


@app.command("verify")
def verify(ctx: typer.Context, json_: Json = False) -> None:
    """Prove that nobody changed the records.

    Replays the whole log and compares every row and checkpoint with it. Exits 5 and names the
    first bad record if anything was edited, deleted, reordered or cut off, or an old copy was
    restored. Leases (which process runs a job, until when) have no records, and are not compared.

    \b
    Example:
      $ agentguard audit verify

    Next: keep the verifier key that it prints somewhere else; `check-proof` needs it.
    """
    from agentguard.ledger import verify as audit

    workspace = workspace_of(ctx)
    with ledger_of(workspace) as ledger:
        from agentguard.ledger.open import checkpoints_of

        checkpoints = checkpoints_of(workspace)
        with progress() as tell:
            report = audit.verify(
                ledger.storage,
                checkpoints,
                progress=lambda what, count: tell(f"verifying: {count:,} {what}"),
            )
    if json_:
        print_json(
            {
                **picked(report, "records", "rows", "checkpoints"),
                "root": report.root.hex(),
                "accepted": [asdict(one) for one in report.accepted],
                "verifier_key": checkpoints.verifier_key,
            }
        )
        return
    say(
        f"audit verified: {_counted(report.records, 'record')}, {_counted(report.rows, 'row')},"
        f" {_counted(report.checkpoints, 'checkpoint')}",
        "green",
    )
    for one in report.accepted:
        say(
            f"record {one.index}: {visible(one.person)} went on with a ledger that may lack its end"
            f" ({visible(one.reason)}); how it was opened before: {visible(one.because, 1000)}",
            "yellow",
        )
    say(f"root          {report.root.hex()}")
    say(f"verifier key  {visible(checkpoints.verifier_key)}")


@app.command("accept-unverified")
def accept_unverified(
    ctx: typer.Context,
    by: Annotated[str, typer.Option(metavar="PERSON", help="Who answers for it.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it stays in the log.")],
    json_: Json = False,
) -> None:
    """Go on with a restored ledger.

    After every restore, and where the ledger does not open: its file of checkpoints is lost or
    damaged, or it is an old copy and there is no newer one. Needs the log key. The log says for
    good who went on and why, and `verify` repeats it. Every job ends, with its questions and
    approvals; what was reclassified, held or recalled since the copy was made is lost: do it
    again.

    \b
    Example:
      $ agentguard audit accept-unverified --by PERSON --reason "disk died"

    Next: `agentguard audit verify`; docs/how-to/backup.md says what to look at.
    """
    from agentguard.ledger.open import accept_unverified as accept

    workspace = workspace_of(ctx)
    done = accept(workspace, by=require_person(workspace, by), reason=reason)
    if json_:
        aside = None if done.set_aside is None else str(done.set_aside)
        print_json({"records": done.records, "jobs": done.jobs, "set_aside": aside})
        return
    say(f"accepted {done.records} records without proof; ended {done.jobs} jobs", "yellow")
    if done.set_aside is not None:
        say(f"the old checkpoints are in {visible(done.set_aside)}")


@app.command("prove")
def prove(
    ctx: typer.Context,
    index: Annotated[int, typer.Argument(metavar="N", help="The record's number.")],
    out: Out = None,
) -> None:
    """Write a proof that record N is in the log.

    It is JSON that verifies without the ledger. The record is in it, with texts redacted.

    \b
    Example:
      $ agentguard audit prove 42 --out proof.json

    Next: `agentguard audit check-proof proof.json --key KEY`, on any machine.
    """
    from agentguard.ledger import verify as audit

    workspace = workspace_of(ctx)
    with ledger_of(workspace) as ledger:
        size = ledger.storage.tree_size()
        if not 0 <= index < size:
            raise AgentGuardError(f"there is no record {index}; the log holds {size}, from 0 on")
        from agentguard.ledger.open import checkpoints_of

        proof = audit.prove(ledger.storage, checkpoints_of(workspace), index)
    if out is None:
        print_json(proof)
    else:
        write_new(out, as_json(proof) + "\n")
        say(f"wrote {visible(out)}")


@app.command("check-proof")
def check_proof(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A proof by `audit prove`.")],
    key: Annotated[
        str,
        typer.Option(metavar="VERIFIER_KEY", help="The log's verifier key, not from the proof."),
    ],
    json_: Json = False,
) -> None:
    """Verify a proof offline and show its record.

    Needs neither ledger nor configuration; exits 5 if the proof fails. Take the key from whom you
    trust (`audit verify` prints it): a forged proof brings its own.

    \b
    Example:
      $ agentguard audit check-proof proof.json --key 'agentguard/acme+1b2c...'

    Next: nothing; the record was in the log when its checkpoint was signed.
    """
    from agentguard.ledger.verify import verify_proof

    try:
        proof = json.loads(file.read_bytes())
    except OSError as error:
        raise AgentGuardError(f"{file}: can't be read: {error.strerror}") from error
    except (ValueError, RecursionError):
        raise VerificationFailed(f"{file}: not a proof: it is no JSON") from None
    if not isinstance(proof, dict):
        raise VerificationFailed(f"{file}: not a proof: it is no JSON object")
    record = verify_proof(proof, key)
    if json_:
        print_json({"index": proof["index"], "record": record})
        return
    say(f"proof verified: record {proof['index']}", "green")
    fields(
        [
            ("what", visible(record.get("kind", "?"))),
            ("when", when(record.get("at"))),
            ("about", _about(record, 2000)),
        ]
    )


@app.command("export")
def export(ctx: typer.Context, out: Out = None) -> None:
    """Write every record as JSONL.

    One `{"index": 0, "record": {...}}` a line, texts redacted.

    \b
    Example:
      $ agentguard audit export --out audit.jsonl

    Next: feed it to what keeps your logs; RFC 8785 of a record is the leaf that was hashed.
    """
    workspace = workspace_of(ctx)
    with ledger_of(workspace) as ledger:
        lines = (
            json.dumps({"index": index, "record": record}) + "\n"
            for index, record in _records(ledger, 0)
        )
        if out is None:
            for line in lines:
                sys.stdout.write(line)
        else:
            write_new(out, lines)
            say(f"wrote {visible(out)}")


def _records(ledger: Ledger, first: int) -> Iterator[tuple[int, dict[str, Any]]]:
    from agentguard.ledger.storage.open import tree_size

    with (
        ledger.storage.long_read() as reader,
        contextlib.closing(ledger.storage.records(reader, first)) as found,
    ):
        size = tree_size(reader)  # what others add meanwhile is not waited for
        for index, body in takewhile(lambda one: one[0] < size, found):
            try:
                record = json.loads(body)
            except ValueError:
                record = None
            if not isinstance(record, dict):
                raise VerificationFailed(f"record {index} is not a record")
            yield index, record


def _about(record: dict[str, Any], most: int = 200) -> str:
    """The record's own fields in one line; digests short, what people don't read left out."""
    said = []
    shown = record.get("shown")
    if isinstance(shown, dict):
        place = f" to {shown.get('destination')}" if shown.get("destination") else ""
        said.append(f"{shown.get('agent')} calls {shown.get('tool')}{place}")
    # The job last: of a whole log it says the least.
    for name, value in sorted(record.items(), key=lambda one: one[0] == "job"):
        if name in _UNREAD or value is None or value in ([], {}):
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{n} {k}" for k, n in value.items() if n)
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        said.append(f"{name} {_DIGEST.sub(lambda found: found[0][:16], str(value))}")
    return visible("; ".join(said), most)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
