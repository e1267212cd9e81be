"""The person at the terminal: shows what is asked, reads a verdict, signs it with their own key.

An answer goes through `guard.approvals.answer`, as one from the CLI or the console does: the
ledger holds it, signed, and the guard looks again whether this person may answer at all.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.markup import escape

from agentguard import Guard
from agentguard.errors import ApprovalError
from agentguard.model import Verdict
from agentguard.people.answers import sign_answer
from agentguard.people.approvals import Approval
from graphs.show import Show, link, short

_VIEWERS = {"darwin": ["open"], "win32": ["explorer"]}


class Approver:
    """Answers approval requests for people whose keys are at hand.

    Args:
        guard: whose approval requests.
        show: where to ask.
        key_of: a person's private key, None where it is not at hand.
        ask: read the verdict from the terminal; else answer yes in the person's name, saying so.
        folder: where copies to look at are put.
    """

    def __init__(
        self,
        guard: Guard,
        show: Show,
        *,
        key_of: Callable[[str], Ed25519PrivateKey | None],
        ask: bool,
        folder: Path,
    ) -> None:
        self._guard = guard
        self._show = show
        self._key_of = key_of
        self._ask = ask
        self._folder = folder

    def __call__(self, pending: Sequence[Approval]) -> bool:
        """Answer each approval request; False if one is left open."""
        self._show.rest()
        answered = [self._answer(approval) for approval in pending]
        return all(answered)

    def _answer(self, approval: Approval) -> bool:
        pictures = self._look(approval)
        while approval.state == "pending":
            person = self._person(approval)
            if person is None:
                config = self._guard.workspace.root / "agentguard.toml"
                who = ", ".join(self._guard.approvals.eligible(approval)) or "nobody"
                self._show.line(f"[dim]It waits for[/dim] {who}[dim], who can answer with[/dim]")
                self._show.line(
                    f"agentguard --config {config} approvals approve {approval.request[:16]}"
                    " --as PERSON"
                )
                return False
            group = self._group(approval, person)
            verdict = self._verdict(person, pictures)
            approval = self.sign(approval, person, verdict, group)
            said = "approves" if verdict is Verdict.APPROVE else "says no"
            colour = "green" if verdict is Verdict.APPROVE else "red"
            self._show.line(f"[{colour}]{person} {said}[/{colour}][dim], signed[/dim]", 5)
        return True

    def sign(
        self, approval: Approval, person: str, verdict: Verdict, group: str | None = None
    ) -> Approval:
        """Sign a verdict with the person's own key and put it into the ledger.

        Raises:
            ApprovalError: no key of this person is at hand, or the person may not answer.
        """
        key = self._key_of(person)
        if key is None:
            raise ApprovalError(f"the key of {person} is not at hand")
        answer = sign_answer(
            key,
            request=approval.request,
            verdict=verdict,
            person=person,
            group=group,
            at=self._guard.ledger.clock(),
        )
        return self._guard.approvals.answer(answer)

    def _look(self, approval: Approval) -> list[Path]:
        """Print what, where and why, and copy what is asked about to where it can be seen."""
        shown, show = approval.shown, self._show
        place = self._guard.workspace.destinations.get(shown["destination"] or "")
        pictures = [self._copy(asset) for asset in shown["assets"]]
        who = f"[bold]{shown['agent']:<9}[/bold] {shown['tool']}"
        show.ask(f"{who} [yellow]waits for a person[/yellow]")
        rows = [("what", f"{short(asset['asset'])}, class {' + '.join(sorted(asset['labels']))}")
                for asset in shown["assets"]]  # fmt: skip
        texts = {k: v for k, v in shown["args"].items() if k not in ("asset", "to")}
        rows += [(escape(str(name)), escape(str(text)) or "none") for name, text in texts.items()]
        if place is not None:
            rows.append(("where", f"{place.id}: {place.audience}, {place.environment}"))
        rows.append(("why", escape(short(approval.reason))))
        rows.append(("policy", ", ".join(approval.policies)))
        may = ", ".join(self._guard.approvals.eligible(approval))
        rows.append(("who", f"{approval.needs} of {may}"))
        show.facts(rows)
        for path in pictures:
            show.line("[dim]look at[/dim]", 5)
            show.whole(link(path))
        return pictures

    def _copy(self, asset: Mapping[str, Any]) -> Path:
        """The very bytes that are asked about, hashed while they are copied (I7)."""
        row = self._guard.ledger.one("SELECT * FROM assets WHERE sha256 = ?", asset["sha256"])
        assert row is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{row['id']}{row['extension']}"
        with path.open("wb") as target:
            self._guard.store.fetch(asset["sha256"], target)
        return path

    def _person(self, approval: Approval) -> str | None:
        """Who answers: somebody eligible with a key at hand, of a group that is still missing."""
        able = [p for p in self._guard.approvals.eligible(approval) if self._key_of(p) is not None]
        return max(able, key=lambda p: (self._group(approval, p) is not None, p == able[0]),
                   default=None)  # fmt: skip

    def _group(self, approval: Approval, person: str) -> str | None:
        answered = {answer.group for answer in approval.answers}
        groups = self._guard.workspace.people[person].groups
        return min((approval.needs.groups - answered) & groups, default=None)

    def _verdict(self, person: str, pictures: Sequence[Path]) -> Verdict:
        if not self._ask:
            self._show.line(f"[dim]no terminal: answering as {person}, with their own key[/dim]", 5)
            return Verdict.APPROVE
        self._show.line(f"[bold]You are {person}.[/bold]", 5)
        while True:
            question = "     [bold]a[/bold](pprove), [bold]d[/bold](eny) or [bold]v[/bold](iew)? "
            said = self._show.console.input(question).strip().lower()
            if said in ("a", "approve"):
                return Verdict.APPROVE
            if said in ("d", "deny"):
                return Verdict.DENY
            if said in ("v", "view"):
                for path in pictures:
                    self._view(path)

    def _view(self, path: Path) -> None:
        viewer = _VIEWERS.get(sys.platform, ["xdg-open"])
        try:
            subprocess.Popen(
                [*viewer, str(path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            self._show.line(f"[dim]there is no viewer here; the file is[/dim] {link(path)}", 5)
