"""`approvals`: what waits for a person, and the person's signed answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentguard.cli.commands.people import KeyFolder
from agentguard.cli.context import ledger_of, require_person, workspace_of
from agentguard.cli.output import (
    ERROR,
    PENDING,
    STATE_STYLES,
    Json,
    Say,
    listing,
    passphrase,
    print_json,
    say,
    short,
    span,
    visible,
)
from agentguard.cli.views.approval import (
    asked_data,
    save_media,
    state_of,
    summary,
    takes_more,
    words_of,
)
from agentguard.cli.views.call import answer_rows, who
from agentguard.errors import ApprovalError

if TYPE_CHECKING:
    from agentguard.config.workspace import Workspace
    from agentguard.ledger.ledger import Ledger
    from agentguard.model import Needs, Verdict
    from agentguard.people.approvals import Approval, Approvals

Request = Annotated[
    str, typer.Argument(metavar="ID", help="12 or more digits of it, as `list` shows them.")
]
As = Annotated[str, typer.Option("--as", metavar="PERSON", help="Who you are, in [people].")]
Group = Annotated[
    str | None,
    typer.Option(metavar="GROUP", help="What you answer as; else the group it needs you in."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Don't ask whether you are sure.")]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="What waits for a person: look at it, then sign a yes or a no.",
)


@app.command("list")
def list_approvals(
    ctx: typer.Context,
    all_: Annotated[bool, typer.Option("--all", help="Also what was answered or is over.")] = False,
    count: Annotated[int, typer.Option("-n", min=1, metavar="N", help="How many at most.")] = 200,
    json_: Json = False,
) -> None:
    """List the calls that wait for a person, newest first.

    \b
    Example:
      $ agentguard approvals list

    Next: `agentguard approvals show ID --save FOLDER` to look at one.
    """
    workspace = workspace_of(ctx)
    with ledger_of(workspace) as ledger:
        service = _service(workspace, ledger)
        now = ledger.clock()
        found = (
            service.list(state=None, limit=count + 1) if all_ else service.waiting(limit=count + 1)
        )
        left, may = service.missing_of(found), service.eligible_for(found)

        def wanted(one: Approval, value: str) -> str:
            return value if takes_more(one, left[one.request], now) else "-"

        state = {"state": lambda one: _style(one, now)} if all_ else {}
        shown = listing(
            found,
            {
                "id": lambda one: short(one.request),
                **state,
                "call": lambda one: visible(_call(one), 80),
                "class": lambda one: visible(_class(one), 80),
                "needs": lambda one: wanted(one, str(left[one.request])),
                "time left": lambda one: wanted(one, span(one.expires_at - now)),
            },
            json_=json_,
            data=lambda one: asked_data(
                workspace, service, one, now, may[one.request], left[one.request]
            ),
            empty="Nobody was ever asked." if all_ else "Nothing waits for a person.",
            tight=["id"],
            newest=count,
        )
    if not (shown and found):
        return
    for one in found[:count]:
        # Of the answers, only what a person must not overlook; `show` has them all.
        for _, text in answer_rows(workspace, one.answers):
            if not isinstance(text, str):
                say(f"{short(one.request)}: {text[0]}", text[1])
    say("Next: agentguard approvals show ID --save FOLDER")


@app.command("show")
def show(
    ctx: typer.Context,
    request: Request,
    save: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write copies of the media there, to look at."),
    ] = None,
    json_: Json = False,
) -> None:
    """Show one call that waits, and its media.

    What is asked, where to, why, of which class, and who may answer. Captions and prompts are
    shown word for word, with personal data in them, since that is what you sign. They are text of
    unknown origin: what can't be seen in them is written out, like \\u202e. With --save the media
    itself is copied out of the store, so that you can look at it; delete the copies afterwards.

    \b
    Example:
      $ agentguard approvals show 3f9a1c0be2d47705 --save /tmp/look

    Next: `agentguard approvals approve ID --as YOU`, or `deny`.
    """
    workspace = workspace_of(ctx)
    with ledger_of(workspace) as ledger:
        service = _service(workspace, ledger)
        approval = service.show(request)
        saved = save_media(workspace, ledger, approval, save) if save is not None else []
        now = ledger.clock()
        if json_:
            data = asked_data(workspace, service, approval, now)
            words = {}
            for use in approval.shown["assets"]:
                text, more = words_of(workspace, use["sha256"])
                words[use["asset"]] = {"text": text, "cut": bool(more)}
            print_json({**data, "also_in_files": words, "saved": [str(path) for path in saved]})
            return
        summary(workspace, ledger, service, approval)
    for path in saved:
        say(f"saved {visible(path)}")
    if save is None and approval.shown["assets"]:
        say(f"To look: agentguard approvals show {short(approval.request)} --save FOLDER")
    if state_of(approval, now) == "pending":
        say(f"Then:    agentguard approvals approve {short(approval.request)} --as PERSON")


@app.command("approve")
def approve(
    ctx: typer.Context,
    request: Request,
    as_: As,
    group: Group = None,
    yes: Yes = False,
    key_folder: KeyFolder = None,
    json_: Json = False,
) -> None:
    """Sign a yes to exactly this call, with your own key.

    Look first: `agentguard approvals show ID --save FOLDER`. You are shown what you sign and
    asked once more; then your passphrase is asked for (or taken from AGENTGUARD_PASSPHRASE).
    Exits 0 if that was enough, 4 if more people must approve.

    \b
    Example:
      $ agentguard approvals approve 3f9a1c0be2d47705 --as omar@acme.example

    Next: whoever runs the job wakes it: graph.invoke(None, job.config(thread_id=...)); once it is
    left, within `with guard.rejoin_job(...) as job:`.
    """
    from agentguard.model import Verdict

    _answer(ctx, request, as_, group, Verdict.APPROVE, yes, key_folder, json_)


@app.command("deny")
def deny(
    ctx: typer.Context,
    request: Request,
    as_: As,
    group: Group = None,
    yes: Yes = False,
    key_folder: KeyFolder = None,
    json_: Json = False,
) -> None:
    """Sign a no to this call, with your own key. One no is enough.

    \b
    Example:
      $ agentguard approvals deny 3f9a1c0be2d47705 --as omar@acme.example

    Next: the agent is told when the job goes on; the same call is refused in this job.
    """
    from agentguard.model import Verdict

    _answer(ctx, request, as_, group, Verdict.DENY, yes, key_folder, json_)


def _answer(
    ctx: typer.Context,
    request: str,
    person: str,
    group: str | None,
    verdict: Verdict,
    yes: bool,
    key_folder: Path | None,
    json_: bool,
) -> None:
    from agentguard.people import keys
    from agentguard.people.answers import sign_answer

    workspace = workspace_of(ctx)
    require_person(workspace, person)
    with ledger_of(workspace) as ledger:
        service = _service(workspace, ledger)
        approval = service.show(request)
        _require_answerable(workspace, service, approval, person, ledger.clock())
        left = service.missing(approval)
        as_group = _group(workspace, left, person, group, verdict, ask=not yes)
        summary(workspace, ledger, service, approval, err=json_)
        said = f"as {person}" + (f" for {as_group}" if as_group else "")
        say(f"You {verdict} this {visible(said)}.", "bold", err=json_)
        if not yes and not _confirmed():
            say("Nothing was signed.", err=True)
            raise typer.Exit(ERROR)
        path = keys.person_key_path(key_folder or keys.key_folder(), person)
        if not path.exists():
            raise ApprovalError(f"{path}: not found; `agentguard people add {person}` makes a key")
        key = keys.load_person_key(path, passphrase())
        answer = sign_answer(
            key,
            request=approval.request,
            verdict=verdict,
            person=person,
            group=as_group,
            at=ledger.clock(),
        )
        approval = service.answer(answer)
        now = ledger.clock()
        left = service.missing(approval)
        if json_:
            print_json(asked_data(workspace, service, approval, now))
    more = takes_more(approval, left, now)
    if not json_:
        said = f"recorded; {left} must still approve" if more else f"recorded: {approval.state}"
        say(said, STATE_STYLES.get(approval.state, "red"))
        if approval.state == "approved" and not more:
            say(f"Next: whoever runs {visible(approval.job)} wakes it, where it is open:")
            say("  graph.invoke(None, job.config(thread_id=...))")
            say(f'  once it was left: within `with guard.rejoin_job("{visible(approval.job)}",'
                " by=...) as job:`")  # fmt: skip
        elif more:
            say(f"Next: somebody else: agentguard approvals approve {approval.request} --as PERSON")
        elif verdict == "deny":
            say("Next: nothing; the agent is told when the job goes on, and may not ask this again")
    if more:
        raise typer.Exit(PENDING)


def _require_answerable(
    workspace: Workspace, service: Approvals, approval: Approval, person: str, now: int
) -> None:
    """Says what `Approvals.answer` would refuse before a passphrase is asked for."""
    state = state_of(approval, now)
    if state == "expired" or not service.takes_answers(approval):
        why = f" ({approval.closed})" if approval.closed else ""
        raise ApprovalError(f"this approval request is {state}{why}; there is nothing to answer")
    why_barred = service.barred(approval, person)
    if why_barred is not None:
        from agentguard.policy import explanation

        who_can = who(workspace, set(service.eligible(approval)))
        raise ApprovalError(explanation.barred(person, why_barred, who_can))


def _group(
    workspace: Workspace,
    missing: Needs,
    person: str,
    group: str | None,
    verdict: Verdict,
    *,
    ask: bool,
) -> str | None:
    from agentguard.policy import approvers

    held = workspace.people[person].groups
    if group is not None and group not in held:
        known = ", ".join(sorted(held)) or "no group"
        raise ApprovalError(f"{person} is not in {group:.80}, but in {known}")
    # A person counts in one group. If only one that is missing fits, it is meant; it is shown.
    fitting = approvers.fitting(missing, workspace.people[person])
    if group is not None or not fitting:
        return group
    if len(fitting) == 1:
        return fitting[0]
    if verdict == "deny":
        return None  # one no is enough, whatever group it is of
    which = f"{person} can answer as {' or '.join(fitting)}, and counts in one of them"
    if not ask:
        raise ApprovalError(f"{which}; name it with --group")
    say(f"{visible(which)}.", err=True)
    try:
        chosen = str(typer.prompt("For which group?", err=True)).strip()
    except typer.Abort:
        raise ApprovalError(f"{which}; with no terminal, name it with --group") from None
    if chosen not in fitting:
        raise ApprovalError(f"{chosen:.80} is none of {', '.join(fitting)}; nothing was signed")
    return chosen


def _style(approval: Approval, now: int) -> Say:
    state = state_of(approval, now)
    return state, STATE_STYLES.get(state, "red")


def _call(approval: Approval) -> str:
    place = approval.shown["destination"]
    return f"{approval.shown['tool']}{f' to {place}' if place else ''}"


def _class(approval: Approval) -> str:
    labels = {label for use in approval.shown["assets"] for label in use["labels"]}
    return " + ".join(sorted(labels.union(approval.shown.get("text_labels", ()))))


def _service(workspace: Workspace, ledger: Ledger) -> Approvals:
    from agentguard.people.approvals import Approvals

    return Approvals(workspace=workspace, ledger=ledger)


def _confirmed() -> bool:
    try:
        return typer.confirm("Sign it?", err=True)
    except typer.Abort:  # the end of the input, or Ctrl-C
        raise ApprovalError("nobody answered `Sign it?`; with no terminal, add --yes") from None
