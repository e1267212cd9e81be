"""A call as the ledger keeps it: what people and auditors read of a Request."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentguard.canonical import plain
from agentguard.model.decision import AskedQuestion, Reason
from agentguard.model.request import Request
from agentguard.model.vocabulary import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedAsset:
    """One asset of a recorded call: which argument held it, and its labels as judged."""

    argument: str
    asset: str
    sha256: str
    labels: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedFinding:
    """A review that found something wrong with an asset of a recorded call, or with a source.

    Args:
        asset: id of the call's asset.
        reviewed: id of the asset that the review was about.
        tool: the review tool.
    """

    asset: str
    reviewed: str
    tool: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SaidNumbers:
    """What a call without words said in its numbers after something was revealed (I4).

    Args:
        carry: they were more than a few bits, so that the call carries the labels of it.
    """

    bits: int
    carry: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCall:
    """A call as the ledger keeps it: texts redacted, no secrets.

    Args:
        binding, stage, agent, text_labels, destination, destination_digest: see `Request`.
        args: its arguments, with texts redacted.
        tool_labels: of its Binding; a server that remembers keeps their class (I4).
        contributors: who can't answer, besides the contributors of its assets (I1).
        made_when_run: arguments that the tool makes by itself.
        numbers: None where it says nothing that would count.
        findings: the reviews that counted when it was decided on.
        changed_mind: its node had done something before that it did not do again.
        reasons: why people were asked; None where nobody was.
        reasons_before: of the question about the same call that this one replaced.
    """

    tool: str
    binding: str
    stage: Stage | None
    agent: str
    args: Mapping[str, Any]
    assets: tuple[RecordedAsset, ...]
    text_labels: frozenset[str]
    destination: str | None
    destination_digest: str | None
    tool_labels: frozenset[str] = frozenset()
    contributors: frozenset[str] = frozenset()
    made_when_run: tuple[str, ...] = ()
    numbers: SaidNumbers | None = None
    findings: tuple[RecordedFinding, ...] = ()
    changed_mind: bool = False
    reasons: frozenset[Reason] | None = None
    reasons_before: frozenset[Reason] | None = None

    @classmethod
    def of(cls, request: Request, *, args: Mapping[str, Any], **more: Any) -> RecordedCall:
        """The recorded call of a Request.

        Args:
            args: its arguments, with texts redacted.
            more: what the Request does not say; see the class.
        """
        return cls(
            tool=request.tool,
            binding=request.binding,
            stage=request.stage,
            agent=request.agent,
            args=args,
            assets=tuple(
                RecordedAsset(
                    argument=use.argument, asset=use.asset, sha256=use.sha256, labels=use.labels
                )
                for use in request.assets
            ),
            text_labels=request.text_labels,
            destination=request.destination,
            destination_digest=request.destination_digest,
            **more,
        )

    @property
    def media(self) -> tuple[str, ...]:
        """SHA-256 of each asset, once, in their order."""
        return tuple(dict.fromkeys(asset.sha256 for asset in self.assets))

    @property
    def question(self) -> AskedQuestion:
        """Why people were asked; without reasons, an approval lifts nothing (I7)."""
        return AskedQuestion(reasons=self.reasons or frozenset(), earlier=self.reasons_before)

    def to_json(self) -> dict[str, Any]:
        """What is stored, in canonical form; what says nothing is left out."""
        stored: dict[str, Any] = {
            "tool": self.tool,
            "binding": self.binding,
            "stage": self.stage,
            "agent": self.agent,
            "args": self.args,
            "assets": [
                {"argument": one.argument, "asset": one.asset, "sha256": one.sha256,
                 "labels": one.labels}
                for one in self.assets
            ],
            "text_labels": self.text_labels,
            "destination": self.destination,
            "destination_digest": self.destination_digest,
        }  # fmt: skip
        if self.tool_labels:
            stored["tool_labels"] = self.tool_labels
        if self.contributors:
            stored["contributors"] = self.contributors
        if self.made_when_run:
            stored["made_when_run"] = self.made_when_run
        if self.numbers is not None:
            stored["numbers"] = {"bits": self.numbers.bits, "carry": self.numbers.carry}
        if self.findings:
            stored["findings"] = [
                {"asset": one.asset, "reviewed": one.reviewed, "tool": one.tool}
                for one in self.findings
            ]
        if self.changed_mind:
            stored["changed_mind"] = True
        for name in ("reasons", "reasons_before"):
            reasons = getattr(self, name)
            if reasons is not None:
                stored[name] = [list(reason) for reason in sorted(reasons)]
        return stored

    def shown(self) -> dict[str, Any]:
        """The same as people read it: without the reasons, which are of the question."""
        shown: dict[str, Any] = plain(self.to_json())
        for name in ("reasons", "reasons_before"):
            shown.pop(name, None)
        return shown

    @classmethod
    def from_json(cls, stored: str) -> RecordedCall:
        """The call that `to_json` wrote.

        Raises:
            TypeError, ValueError, LookupError: it is none.
        """
        call = _of(dict, json.loads(stored))
        known = cls.__dataclass_fields__.keys()
        if unknown := sorted(call.keys() - known):
            raise ValueError(f"a recorded call has no {', '.join(unknown)}")
        numbers = call.get("numbers")
        stage = call["stage"]
        destination, configured = call["destination"], call["destination_digest"]
        return cls(
            tool=_of(str, call["tool"]),
            binding=_of(str, call["binding"]),
            stage=None if stage is None else Stage(stage),
            agent=_of(str, call["agent"]),
            args=_of(dict, call["args"]),
            assets=tuple(_asset(one) for one in _of(list, call["assets"])),
            text_labels=frozenset(_texts(call["text_labels"])),
            destination=None if destination is None else _of(str, destination),
            destination_digest=None if configured is None else _of(str, configured),
            tool_labels=frozenset(_texts(call.get("tool_labels", []))),
            contributors=frozenset(_texts(call.get("contributors", []))),
            made_when_run=tuple(_texts(call.get("made_when_run", []))),
            numbers=None
            if numbers is None
            else SaidNumbers(bits=_of(int, numbers["bits"]), carry=_of(bool, numbers["carry"])),
            findings=tuple(
                RecordedFinding(
                    asset=_of(str, one["asset"]),
                    reviewed=_of(str, one["reviewed"]),
                    tool=_of(str, one["tool"]),
                )
                for one in _of(list, call.get("findings", []))
            ),
            changed_mind=_of(bool, call.get("changed_mind", False)),
            reasons=_reasons(call.get("reasons")),
            reasons_before=_reasons(call.get("reasons_before")),
        )


def _asset(stored: Mapping[str, Any]) -> RecordedAsset:
    return RecordedAsset(
        argument=_of(str, stored["argument"]),
        asset=_of(str, stored["asset"]),
        sha256=_of(str, stored["sha256"]),
        labels=frozenset(_texts(stored["labels"])),
    )


def _reasons(stored: Sequence[Any] | None) -> frozenset[Reason] | None:
    if stored is None:
        return None
    if any(len(_texts(one)) != 3 for one in _of(list, stored)):
        raise ValueError("a reason is a policy, an asset and its grounds")
    return frozenset(Reason(*one) for one in stored)


def _texts(value: Any) -> list[str]:
    if type(value) is not list or not all(type(one) is str for one in value):
        raise TypeError("its JSON is no list of texts")
    return value


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"its JSON holds a {type(value).__name__} in place of a {kind.__name__}")
    return value
