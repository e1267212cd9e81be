"""The codec of a recorded call: what is stored stays byte for byte, or old rows can't be read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentguard.canonical import canonical
from agentguard.model import (
    Reason,
    RecordedAsset,
    RecordedCall,
    RecordedFinding,
    SaidNumbers,
    Stage,
)

STORED = Path(__file__).with_name("recorded_call.json").read_text("utf-8").rstrip()
LEAST_STORED = Path(__file__).with_name("recorded_call_least.json").read_text("utf-8").rstrip()
ASSET = "asset-0123456789abcdef0123"
CALL = RecordedCall(
    tool="publish",
    binding="b" * 64,
    stage=Stage.EXPORT,
    agent="publisher",
    args={
        "caption": "call [phone] é",
        "source": ASSET,
        "to": "site",
        "size": 1.5,
        "many": [1, None, True],
    },
    assets=(
        RecordedAsset(
            argument="source",
            asset=ASSET,
            sha256="01" * 32,
            labels=frozenset({"likeness", "brand"}),
        ),
    ),
    text_labels=frozenset({"personal-data", "brand"}),
    destination="site",
    destination_digest="d" * 64,
    tool_labels=frozenset({"brand"}),
    contributors=frozenset({"omar@acme.example", "kim@acme.example"}),
    made_when_run=("when", "seed"),
    numbers=SaidNumbers(bits=12, carry=True),
    findings=(RecordedFinding(asset=ASSET, reviewed="asset-fedcba9876543210fedc", tool="strict"),),
    changed_mind=True,
    reasons=frozenset({Reason("export.sensitive", ASSET, "e" * 64)}),
    reasons_before=frozenset(),
)
LEAST = RecordedCall(
    tool="wait",
    binding="b" * 64,
    stage=None,
    agent="",
    args={},
    assets=(),
    text_labels=frozenset(),
    destination=None,
    destination_digest=None,
)


@pytest.mark.parametrize(("call", "stored"), [(CALL, STORED), (LEAST, LEAST_STORED)])
def test_recorded_call_is_stored_byte_for_byte(call: RecordedCall, stored: str) -> None:
    assert canonical(call.to_json()).decode("utf-8") == stored
    assert RecordedCall.from_json(stored) == call


def test_question_without_reasons_covers_nothing() -> None:
    """I11: an approval of it lifts nothing, so the call is asked about again."""
    assert LEAST.question.reasons == frozenset()
    assert LEAST.question.earlier is None


def test_people_are_not_shown_the_reasons_as_a_part_of_the_call() -> None:
    assert CALL.shown() == {
        name: value
        for name, value in json.loads(STORED).items()
        if name not in ("reasons", "reasons_before")
    }


@pytest.mark.parametrize(
    "name",
    ["tool", "binding", "stage", "agent", "args", "assets", "text_labels", "destination"],
)
def test_recorded_call_without_what_each_has_is_none(name: str) -> None:
    stored = json.loads(STORED)
    del stored[name]
    with pytest.raises(LookupError):
        RecordedCall.from_json(json.dumps(stored))


@pytest.mark.parametrize(
    "edit",
    [
        {"tool": 5},
        {"args": []},
        {"assets": [{}]},
        {"assets": [{"argument": "a", "asset": "b", "sha256": "c", "labels": "d"}]},
        {"text_labels": "ab"},
        {"contributors": {"kim": 1}},
        {"stage": "approve"},
        {"numbers": {"bits": 1, "carry": 1}},
        {"findings": [{"asset": ASSET}]},
        {"changed_mind": 1},
        {"reasons": [["export.sensitive", ASSET]]},
        {"reasons_before": 5},
        {"more": 1},
    ],
)
def test_what_no_version_wrote_is_no_recorded_call(edit: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError, LookupError)):
        RecordedCall.from_json(json.dumps({**json.loads(STORED), **edit}))


def test_media_of_a_recorded_call_are_listed_once() -> None:
    assert replace(CALL, assets=CALL.assets * 2).media == ("01" * 32,)
