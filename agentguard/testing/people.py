"""The people of a test, who answer with keys of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agentguard.errors import ApprovalError
from agentguard.guard import Guard
from agentguard.model import Verdict
from agentguard.people.answers import sign_answer
from agentguard.people.approvals import Approval
from agentguard.testing.outcomes import CallResult


class People:
    """Answers for configured people.

    Args:
        guard: whose questions they answer.
        keys: the private key of each person.
        clock: the time (ms).
    """

    def __init__(
        self, guard: Guard, keys: Mapping[str, Ed25519PrivateKey], clock: Callable[[], int]
    ) -> None:
        self._guard = guard
        self._keys = keys
        self._clock = clock

    def answer(
        self,
        question: CallResult | Approval | None,
        *,
        by: str,
        verdict: Verdict,
        group: str | None,
    ) -> Approval:
        """Sign an answer and hand it in; see `TestWorkspace.approve`.

        Raises:
            ApprovalError: the person may not, or there is no such question.
        """
        person = self._guard.workspace.people.get(by)
        if person is None:
            raise ApprovalError(f"{by:.80} is no configured person")
        asked = self._asked(question)
        if group is None:
            wanted = self._guard.approvals.missing(asked).groups & person.groups
            group = min(wanted, default=None)
        answer = sign_answer(
            self._keys[by],
            request=asked.request,
            verdict=verdict,
            person=by,
            group=group,
            at=self._clock(),
        )
        return self._guard.approvals.answer(answer)

    def _asked(self, question: CallResult | Approval | None) -> Approval:
        approvals = self._guard.approvals
        if question is None:
            waiting = approvals.waiting()
            if len(waiting) != 1:
                raise ApprovalError(f"{len(waiting)} questions are open, expected one; say which")
            return waiting[0]
        if isinstance(question, CallResult) and question.effect != "ask":
            raise ApprovalError(f"nobody was asked about {question.tool}: {question.sentence}")
        asked = approvals.show(question.request or "")
        return asked if asked.replaced_by is None else approvals.show(asked.replaced_by)
