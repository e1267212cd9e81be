"""What a tool's result says of itself: files, labels, findings, URLs and operations; never trusted.

`results.py` takes in what it names, and says what the model may read of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentguard.bindings.compiled_binding import CompiledBinding
from agentguard.bindings.result_paths import MAX_FOUND, OPERATION, Located, located
from agentguard.bindings.returned import path_text, value_at
from agentguard.content.blocks import text_in
from agentguard.content.text.sanitize import clean
from agentguard.content.text.scan import scan
from agentguard.errors import AssetError
from agentguard.model import UNCLASSIFIED, Stage

_MAX_FINDINGS = 100
_LABEL = re.compile(r"[\w.:-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultReport:
    """What a tool's result says, at the places that its declaration names; never trusted.

    Args:
        text: what the model may read.
        files: paths of further outputs, which must lie in the call's scratch folder.
        labels: labels that the outputs get in addition; they only raise.
        findings: what a review found: mappings of `severity`, `code` and `message`.
        urls: where further outputs are to be fetched from.
        operations: ids of the operations that were started.
    """

    text: str
    files: tuple[str, ...] = ()
    labels: frozenset[str] = frozenset()
    findings: tuple[Mapping[str, Any], ...] = ()
    urls: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()


def report_of(content: Any, artifact: Any, binding: CompiledBinding) -> ResultReport:
    """What a result says: an artifact may name files, labels and findings; ids and URLs stand
    where the Binding says.

    Raises:
        AssetError: it names too much, what is no path, or no operation where one was started.
    """
    text = text_in(content)
    named: Mapping[str, Any] = artifact if isinstance(artifact, Mapping) else {}

    def at(*places: Located | None) -> list[str]:
        found = (located(where, content=content, artifact=artifact, text=text)
                 for where in places if where is not None)  # fmt: skip
        return [value for values in found for value in values]

    findings = named.get("findings")
    if binding.findings is not None:
        findings = value_at(binding.findings, content=content, artifact=artifact)
    if findings is None and binding.stage is Stage.REVIEW:  # I11: silence is no clean review
        findings = [{"code": "no-findings", "message": "the review left no findings"}]
    urls = tuple(dict.fromkeys(at(*binding.urls)))
    if len(urls) > MAX_FOUND:
        raise AssetError(f"the tool returned {len(urls)} ids or URLs, at most {MAX_FOUND}")
    return ResultReport(
        text=text,
        files=tuple(map(_path, _list(named.get("files")))),
        labels=frozenset(map(_label, _list(named.get("labels")))),
        findings=_findings(_list(findings)),
        urls=urls,
        operations=_operations(at(binding.starts), binding),
    )


def _operations(ids: Sequence[str], binding: CompiledBinding) -> tuple[str, ...]:
    """The ids of what a call started: words that the model can give back, and nothing else."""
    if binding.starts is not None and not ids:
        raise AssetError("its result names no operation where its Binding says it does")
    for id in ids:
        if OPERATION.fullmatch(id) is None or scan(id).secrets:
            raise AssetError(
                "the id of its operation is no short word, or a URL or secret; let the tool keep"
                " that and return an id"
            )
    return tuple(dict.fromkeys(ids))


def _path(file: Any) -> str:
    path = path_text(file)
    if path is None:
        raise AssetError("the tool returned a file that is no path")
    return path


def _label(said: Any) -> str:
    return said if isinstance(said, str) and _LABEL.fullmatch(said) else UNCLASSIFIED


def _findings(said: Sequence[Any]) -> tuple[Mapping[str, Any], ...]:
    grave = ("error", "warning", "info")
    findings = sorted(map(_finding, said), key=lambda each: grave.index(each["severity"]))
    return tuple(findings[:_MAX_FINDINGS])


def _finding(item: Any) -> dict[str, str]:
    """One finding as people see it; what is none, or of unknown severity, is an error."""
    found = item if isinstance(item, Mapping) else {"message": item}
    severity = found.get("severity")
    return {
        "severity": severity if severity in ("info", "warning") else "error",
        "code": clean(text_in(found.get("code")))[:80],
        "message": clean(text_in(found.get("message")))[:500],
    }


def _list(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    return value if isinstance(value, (list, tuple)) else (value,)
