"""What an interrupt says: one payload that every stock client can show.

It carries the keys of LangChain's batched `HITLRequest` and of the per-call `tool_approval`, and
both `args` and `arguments`, so that agent-chat-ui, Agent Inbox and type adapters read it. The
interrupt only notifies: an answer counts when the ledger holds it, signed (DESIGN section 4).
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from agentguard.calls.questions import PendingQuestion
from agentguard.content.store import Store
from agentguard.content.text.sanitize import clean
from agentguard.content.text.scan import without_data
from agentguard.errors import AssetError
from agentguard.model import RecordedCall

_MOST_WORDS = 1_000

DECISIONS = ("approve", "reject")


def approval_payload(
    questions: Sequence[PendingQuestion], *, note: str | None, store: Store
) -> dict[str, Any]:
    """The value of the one `interrupt()` for the calls of a message that wait for people.

    With several, `action_requests`, `review_configs` and `agentguard.questions` list each. What
    describes one call only (`name`, `args`, `action_request`, ...) is the first one's.

    Args:
        questions: one at least.
        note: why it asks again, after a resume that brought no approval.
        store: where the assets are; the words in them are shown, too.
    """
    described = [_payload(question, note if len(questions) == 1 else None, store)
                 for question in questions]  # fmt: skip
    if len(described) == 1:
        return described[0]
    texts = [f"{number}. {one['description']}" for number, one in enumerate(described, 1)]
    heading = f"{len(described)} calls wait; each is answered by itself."
    return {
        **described[0],
        "description": "\n\n".join([heading, *texts, *([note] if note else [])]),
        "action_requests": [one["action_requests"][0] for one in described],
        "review_configs": [one["review_configs"][0] for one in described],
        "agentguard": {
            "questions": [
                {"tool_call_id": one["tool_call_id"], "name": one["name"], **one["agentguard"]}
                for one in described
            ]
        },
    }


def _payload(question: PendingQuestion, note: str | None, store: Store) -> dict[str, Any]:
    call = question.recorded
    arguments = dict(question.arguments)
    description = _description(question, question.note or note, store)
    action = {"name": call.tool, "args": arguments, "arguments": arguments,
              "description": description}  # fmt: skip
    needs = question.decision.needs
    return {
        "type": "tool_approval",
        "tool_call_id": question.call_id,
        "name": call.tool,
        "args": arguments,
        "description": description,
        "action_requests": [action],
        "review_configs": [{"action_name": call.tool, "allowed_decisions": list(DECISIONS)}],
        "action_request": {"action": call.tool, "args": arguments},
        "config": {"allow_accept": True, "allow_ignore": False, "allow_respond": False,
                   "allow_edit": False},
        "agentguard": {
            "request": question.request,
            "destination": call.destination,
            "assets": [asset.asset for asset in call.assets],
            "reason": question.decision.reason,
            "policies": list(question.decision.policies),
            "approvals_needed": needs.approvals if needs else 0,
            "groups_needed": sorted(needs.groups) if needs else [],
            "expires_at": question.expires_at,
            "answer_with": f"agentguard approvals show {question.request[:16]}",
        },
    }  # fmt: skip


def _description(question: PendingQuestion, note: str | None, store: Store) -> str:
    call = question.recorded
    where = f" to {call.destination}" if call.destination else ""
    assets = ", ".join(asset.asset for asset in call.assets) or "a text"
    labels = sorted({label for asset in call.assets for label in asset.labels})
    lines = [f"{call.agent} wants to {call.tool} {assets}{where}."]
    if labels:
        lines.append(f"Class: {' + '.join(labels)}.")
    if call.text_labels:
        lines.append(f"Class of its text: {' + '.join(sorted(call.text_labels))}.")
    lines += _words(call, store)
    lines.append(f"Asked because: {question.decision.reason}")
    lines += [
        f"Finding: {one.tool} found something wrong with {one.reviewed}"
        + (f", which {one.asset} was made from." if one.reviewed != one.asset else ".")
        for one in call.findings
    ]
    if call.made_when_run:
        lines.append(f"Made when it runs, by the tool: {', '.join(call.made_when_run)}.")
    if question.decision.needs is not None:
        lines.append(f"Missing: {question.decision.needs}.")
        lines.append(f"Look, then answer: agentguard approvals show {question.request[:16]}")
    if note:
        lines.append(note)
    return "\n".join(lines)


def _words(call: RecordedCall, store: Store) -> list[str]:
    """What is written in each file, cut.

    Some clients render HTML and Markdown of a description: no mark in it stays one.
    """
    lines = []
    for sha256, asset in {one.sha256: one.asset for one in call.assets}.items():
        try:
            text = without_data(store.words(sha256).text)
        except AssetError as error:
            text = str(error)
        kept = clean(text[: 4 * _MOST_WORDS])[:_MOST_WORDS]
        cut = f" (and {len(text) - _MOST_WORDS} more characters)" if text[_MOST_WORDS:] else ""
        if kept:
            line = html.escape(" / ".join(kept.split("\n")))
            lines.append(
                f"Also in {asset}: {line.replace('[', '&#91;').replace('`', '&#96;')}{cut}"
            )
    return lines
