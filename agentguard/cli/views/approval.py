"""An approval request as a person must see it before they sign (I7)."""

from __future__ import annotations

import hashlib
import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentguard.cli.context import places_of
from agentguard.cli.output import (
    STATE_STYLES,
    Line,
    fields,
    picked,
    short,
    span,
    visible,
    when,
)
from agentguard.cli.views.asset import finding_text, kind_of, origin_text
from agentguard.cli.views.call import (
    answer_rows,
    answers_data,
    call_rows,
    media_row,
    policy_rows,
    who,
)
from agentguard.errors import AssetError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentguard.config.workspace import Workspace
    from agentguard.ledger.ledger import Ledger
    from agentguard.model import Needs
    from agentguard.people.approvals import Approval, Approvals


_MOST_WORDS = 4_000
"""Characters of what is written in a file that are shown; `--save` gives all of it."""
_MOST_ORIGINS = 3
_MOST_REVIEWS = 8


def state_of(approval: Approval, now: int) -> str:
    """Its state, `expired` also before anybody swept."""
    late = approval.state == "pending" and approval.expires_at <= now
    return "expired" if late else visible(approval.state)


def takes_more(approval: Approval, left: Needs, now: int) -> bool:
    """Whether people can still complete it; `left`: what is missing of what was asked for."""
    if approval.expires_at <= now:
        return False
    return approval.state == "pending" or (approval.state == "approved" and left.approvals > 0)


def summary(
    workspace: Workspace,
    ledger: Ledger,
    service: Approvals,
    approval: Approval,
    *,
    err: bool = False,
) -> None:
    """Print all that a person signs: what, where to, of which class, why, and who may answer.

    Args:
        err: print to stderr, where stdout is for JSON.
    """
    shown = approval.shown
    now = ledger.clock()
    state = state_of(approval, now)
    rows: list[Line] = [
        ("request", visible(approval.request)),
        ("state", (state, STATE_STYLES.get(state, "red"))),
        ("what", visible(f"{shown['agent']} wants to call {shown['tool']} ({shown['stage']})")),
    ]
    if shown["destination"]:
        place = workspace.destinations.get(shown["destination"])
        about = f"{place.audience} audience, {place.environment}" if place else "not configured now"
        rows.append(("where to", f"{visible(shown['destination'])}: {about}"))
    rows += call_rows({**shown, "args": approval.arguments}, whole=True)
    for use in shown["assets"]:
        rows.append(media_row(use))
        rows += _media_rows(ledger, approval.job, use)
        rows += _word_rows(workspace, use["sha256"])
    rows += [
        ("why", visible(approval.reason, 2000)),
        *policy_rows("asked by", approval.policies, places_of(workspace)),
        *_reason_rows(approval),
        ("job", f"{visible(approval.job)}: {visible(approval.purpose)}"),
        ("", f"asked for by {visible(approval.requested_by)}"),
    ]
    rows += answer_rows(workspace, approval.answers)
    if approval.closed is not None:
        rows.append(("closed", visible(approval.closed)))
    left = service.missing(approval)
    if takes_more(approval, left, now):
        rows += [
            ("needs", f"{left}, to approve"),
            ("who may", who(workspace, set(service.eligible(approval)))),
            ("time left", f"{span(approval.expires_at - now)}, until {when(approval.expires_at)}"),
        ]
    fields(rows, err=err)


def _reason_rows(approval: Approval) -> list[Line]:
    """What an approval covers, and the question to look at instead if this one was replaced."""
    pairs = sorted({(reason.policy, reason.asset) for reason in approval.reasons})
    rows: list[Line] = [
        ("covers" if index == 0 else "", visible(f"{policy}{f' for {asset}' if asset else ''}"))
        for index, (policy, asset) in enumerate(pairs)
    ]
    if approval.replaced_by is not None:
        new = short(approval.replaced_by)
        rows.append(("asked anew", (f"agentguard approvals show {new}", "yellow")))
    return rows


def _media_rows(ledger: Ledger, job: str, use: Mapping[str, Any]) -> list[Line]:
    """What helps a person who has not opened the file: its kind, its makers, its reviews."""
    from agentguard.ledger.queries.assets import (
        asset_by_sha256,
        findings_of,
        origins_of,
        reviews_in_job,
        words_of,
    )
    from agentguard.model import asset_id

    sha256 = use["sha256"]
    rows: list[Line] = []
    asset = ledger.first(asset_by_sha256(sha256))
    if asset is None:
        return [("", ("its bytes are not in this ledger", "red"))]
    rows.append(("", f"{kind_of(asset)}, provenance {visible(asset.provenance)}"))
    for origin in ledger.rows(origins_of(sha256, _MOST_ORIGINS)):
        rows.append(("", f"from {origin_text(origin)}"))
    for marked, said in ((asset.held, "under legal hold"), (asset.recalled, "recalled")):
        if marked:
            rows.append(("", (said, "red")))
    reviews = ledger.rows(reviews_in_job(sha256, job, _MOST_REVIEWS))
    if not reviews:
        rows.append(("", ("not reviewed in this job", "yellow")))
    for review in reviews:
        rows.append(("", "clean review" if review.clean else ("review with findings", "yellow")))
        rows += [("", finding_text(one)) for one in review.findings]
    findings, _ = findings_of(ledger, {sha256}, job=job)
    shown = {review.grant_id for review in reviews}
    for finding in sorted(findings.get(sha256, ()), key=lambda each: (each.tool, each.grant)):
        if finding.reviewed == sha256 and finding.grant in shown:
            continue
        about = (
            "it, in another job"
            if finding.reviewed == sha256
            else (f"{asset_id(finding.reviewed)}, which it was made from")
        )
        rows.append(("", (visible(f"{finding.tool} found something wrong with {about}"), "yellow")))
        rows += [("", finding_text(each)) for each in words_of(ledger, finding)]
    return rows


def _word_rows(workspace: Workspace, sha256: str) -> list[Line]:
    """What is written in a file, word for word; a bar stands before each line of it."""
    try:
        shown, more = words_of(workspace, sha256)
    except AssetError as error:
        return [("", (visible(error), "red"))]
    if not shown:
        return []
    rows: list[Line] = [("", "also in this file:")]
    for line in shown.split("\n"):
        rows += [("", f"| {part}") for part in textwrap.wrap(visible(line, _MOST_WORDS), 60)]
    if more:
        rows.append(("", (f"{more} of it; look at the file itself (--save FOLDER)", "yellow")))
    return rows


def words_of(workspace: Workspace, sha256: str) -> tuple[str, str]:
    """What is written in an asset, as far as it is shown, and what is said of the rest.

    Raises:
        AssetError: its bytes are gone or were changed.
    """
    from agentguard.content.store import Store
    from agentguard.content.text.scan import without_data

    found = Store(workspace.store).words(sha256)
    text = without_data(found.text)
    left = len(text) - _MOST_WORDS
    at_least = "" if found.whole else "at least "
    more = f"{at_least}{max(left, 0)} more characters" if left > 0 or not found.whole else ""
    return text[:_MOST_WORDS], more


def asked_data(
    workspace: Workspace,
    service: Approvals,
    approval: Approval,
    now: int,
    who_may: Sequence[str] | None = None,
    left: Needs | None = None,
) -> dict[str, Any]:
    """An approval request as JSON data.

    Args:
        who_may, left: who may answer, and what is missing, if that is known already.
    """
    left = service.missing(approval) if left is None else left
    return {
        **picked(
            approval,
            *("request", "closed", "job", "purpose", "requested_by", "reason", "policies"),
            *("asked_at", "expires_at"),
            asked_anew="replaced_by",
        ),
        "state": state_of(approval, now),
        "call": {**approval.shown, "args": approval.arguments},
        "covers": [reason._asdict() for reason in sorted(approval.reasons)],
        "who_may": list(service.eligible(approval) if who_may is None else who_may),
        "asked": picked(approval.needs, "approvals", "groups"),
        "missing": picked(left, "approvals", "groups"),
        "answers": answers_data(workspace, approval.answers),
    }


def save_media(
    workspace: Workspace, ledger: Ledger, approval: Approval, folder: Path
) -> list[Path]:
    """Private copies of the media, hashed on the way (I12); a file is never overwritten.

    Raises:
        AssetError: the bytes are gone or were changed, or a copy can't be written.
    """
    from agentguard.content.store import Store
    from agentguard.ledger.queries.assets import asset_by_sha256
    from agentguard.model import asset_id

    store = Store(workspace.store)
    saved = []
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for sha256 in dict.fromkeys(use["sha256"] for use in approval.shown["assets"]):
            asset = ledger.first(asset_by_sha256(sha256))
            suffix = asset.extension if asset is not None else ""
            suffix = suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else ""
            path = folder / f"{asset_id(sha256)}{suffix}"
            saved.append(path)
            if path.is_file() and _sha256(path) == sha256:
                continue  # saved before
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as target:
                    store.fetch(sha256, target)
            except BaseException:
                path.unlink()  # not what was decided on
                raise
    except FileExistsError:
        raise AssetError(f"{saved[-1]}: exists and is another file; name an empty folder") from None
    except OSError as error:
        raise AssetError(f"{folder}: can't be written: {error.strerror}") from error
    return saved


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
