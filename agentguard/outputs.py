"""What a tool came back with: outputs taken in, texts cleaned, everything else left behind.

The model gets asset ids and a cleaned text, never a path, a raw artifact or an exception's text.
A missing output is a failure, whatever the text says (DESIGN section 6).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import ToolMessage

from agentguard.assets import Scratch, asset_id
from agentguard.bindings import Binding, Returned
from agentguard.classify import MAX_TEXT, scan
from agentguard.errors import AssetError
from agentguard.formats import Format
from agentguard.ledger import Made
from agentguard.model import UNCLASSIFIED, Provenance, Request, Terms

_MAX_SHOWN = 8_000
_MEDIA_BLOCKS = ("image", "audio", "video", "file", "image_url", "input_audio", "media")


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What was taken in from a tool's result.

    Args:
        text: what the model sees.
        made: the new assets.
        findings: what a review said.
    """

    text: str
    made: tuple[Made, ...]
    findings: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What the outputs of a call inherit from.

    Args:
        terms: of every input asset.
        contributors: of every input, and the owner of the agent.
    """

    terms: tuple[Terms, ...]
    contributors: frozenset[str]


def collect(
    result: Any,
    *,
    binding: Binding,
    request: Request,
    scratch: Scratch,
    outputs: Mapping[str, str],
    sources: Sources,
) -> Collected:
    """Take in the outputs of a tool.

    Args:
        result: what the tool's body returned.
        outputs: output argument → path it was given.

    Raises:
        AssetError: an output is missing, not media, damaged, or not in the scratch folder.
    """
    content, artifact = _split(result, binding)
    returned = binding.returns(result) if binding.returns else _returned(content, artifact)
    taken: list[tuple[str, str, int, Format]] = [
        (argument, *scratch.take(path)) for argument, path in outputs.items()
    ]
    for number, path in enumerate(returned.files):
        taken.append((f"file {number + 1}", *scratch.take(path)))
    for number, data in enumerate(_media(content)):
        taken.append((f"block {number + 1}", *scratch.take_bytes(data)))
    labels = _labels(binding, request, returned)
    made = tuple(
        Made(
            sha256=sha256,
            id=asset_id(sha256),
            media_type=format_.media_type,
            extension=format_.extension,
            size=size,
            width=format_.width,
            height=format_.height,
            labels=labels,
            terms=_terms(sources.terms),
            provenance=Provenance.UNKNOWN,
            parents=tuple(sorted({use.sha256 for use in request.assets})),
            contributors=sources.contributors,
            name=argument,
        )
        for argument, sha256, size, format_ in taken
    )
    shown = {path.rsplit("/", 1)[-1]: asset for path, asset in _shown(outputs, made)}
    text = clean(scratch.conceal(returned.text, lambda name: shown.get(name, "[input]")))
    lines = [text] if text else []
    lines += [f"{asset.name}: {describe(asset)}" for asset in made]
    return Collected(text="\n".join(lines), made=made, findings=returned.findings)


def describe(made: Made) -> str:
    """One line on an asset for a model or a person."""
    dimensions = f" {made.width}x{made.height}" if made.width and made.height else ""
    return (
        f"{made.id} ({made.media_type}{dimensions}, {max(1, made.size // 1024)} kB,"
        f" class {' + '.join(sorted(made.labels))})"
    )


def clean(text: str) -> str:
    """A tool's text as the model may see it: capped, and without secrets (S16)."""
    capped = text[:_MAX_SHOWN].encode("utf-8", "replace").decode("utf-8")
    if not capped:
        return ""
    assert len(capped) <= MAX_TEXT
    scanned = scan(capped)
    return scanned.redacted if scanned.secrets else capped


def _split(result: Any, binding: Binding) -> tuple[Any, Any]:
    if binding.tool.response_format == "content_and_artifact" and isinstance(result, tuple):
        return result[0], result[1] if len(result) > 1 else None
    if isinstance(result, ToolMessage):
        return result.content, result.artifact
    return result, None


def _returned(content: Any, artifact: Any) -> Returned:
    extra = artifact if isinstance(artifact, Mapping) else {}
    files = [file for file in _list(extra.get("files")) if isinstance(file, str)]
    findings = [item for item in _list(extra.get("findings")) if isinstance(item, Mapping)]
    labels = [label for label in _list(extra.get("labels")) if isinstance(label, str)]
    return Returned(
        text=_text(content),
        files=tuple(files),
        findings=tuple(_finding(item) for item in findings),
        labels=frozenset(labels),
    )


def _finding(item: Mapping[str, Any]) -> dict[str, str]:
    severity = str(item.get("severity", "error"))
    return {
        "severity": severity if severity in ("info", "warning", "error") else "error",
        "code": clean(str(item.get("code", "")))[:80],
        "message": clean(str(item.get("message", "")))[:500],
    }


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else ()


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = []
        for block in content:
            if isinstance(block, str):
                parts.append(block)
            elif isinstance(block, Mapping) and block.get("type") == "text":
                parts.append(str(block.get("text", "")))
        return "\n".join(parts)
    if content is None:
        return ""
    try:
        return json.dumps(content, ensure_ascii=False, default=str)
    except (TypeError, ValueError):
        return str(content)


def _media(content: Any) -> Iterable[bytes]:
    for block in content if isinstance(content, list) else ():
        if not isinstance(block, Mapping) or block.get("type") not in _MEDIA_BLOCKS:
            continue
        data = block_data(block)
        if data is None:  # I3: a returned URL is not opened here
            raise AssetError("the tool returned media that is not in the message; bind its output")
        try:
            yield base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise AssetError("the tool returned a media block that is not base64") from None


def block_data(block: Mapping[str, Any]) -> str | None:
    source = block.get("source")
    nested = source if isinstance(source, Mapping) else {}
    image = block.get("image_url")
    url = image.get("url") if isinstance(image, Mapping) else image
    if isinstance(url, str) and url.startswith("data:") and ";base64," in url:
        return url.split(";base64,", 1)[1]
    for candidate in (block.get("base64"), block.get("data"), nested.get("data")):
        if isinstance(candidate, str):
            return candidate
    return None


def _labels(binding: Binding, request: Request, returned: Returned) -> frozenset[str]:
    """I4: the union of all that went in; nothing known is `unclassified`."""
    labels = binding.labels | returned.labels | request.text_labels
    for use in request.assets:
        labels |= use.labels
    return labels or frozenset({UNCLASSIFIED})


def _terms(terms: Sequence[Terms]) -> dict[str, Any]:
    """The strictest of all: an output may be used only where every source may."""
    until = [each.until for each in terms if each.until is not None]
    release = [each.release_at for each in terms if each.release_at is not None]
    channels = [each.channels for each in terms if each.channels is not None]
    merged: dict[str, Any] = {}
    if until:
        merged["until"] = min(until)
    if release:
        merged["release_at"] = max(release)
    if channels:
        merged["channels"] = frozenset.intersection(*channels)
    if not all(each.consent for each in terms):
        merged["consent"] = False
    return merged


def _shown(outputs: Mapping[str, str], made: Sequence[Made]) -> Iterable[tuple[str, str]]:
    by_name = {asset.name: asset.id for asset in made}
    for argument, path in outputs.items():
        yield path, by_name[argument]
