"""What a tool came back with: outputs taken in, texts cleaned, everything else left behind.

The model gets asset ids and a cleaned text, never a path, a raw artifact or an exception's text.
A missing output is a failure, whatever the text says.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import ToolMessage

from agentguard.bindings.compiled_binding import CompiledBinding
from agentguard.bindings.returned import named_media
from agentguard.calls.result_report import ResultReport, report_of
from agentguard.content.blocks import media_in, without_media
from agentguard.content.download import TOTAL_S, fetch
from agentguard.content.scratch import Scratch
from agentguard.content.text.sanitize import clean, private_left_out, without_urls
from agentguard.content.undeclared import require_declared
from agentguard.errors import AssetError
from agentguard.ledger.ledger import Made, Started
from agentguard.model import UNCLASSIFIED, Provenance, Request, Terms, asset_id

_MAX_ERROR = 500
_UNKNOWN = frozenset({UNCLASSIFIED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What was taken in from a tool's result.

    Args:
        text: what the model sees.
        made: the new assets.
        findings: what a review said.
        started: operations that go on at a vendor.
        revealed: labels of what the text tells the chat model of media.
        raised: labels that the result raised.
    """

    text: str
    made: tuple[Made, ...]
    findings: tuple[Mapping[str, Any], ...]
    started: tuple[Started, ...] = ()
    revealed: frozenset[str] = frozenset()
    raised: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What the outputs of a call inherit from.

    Args:
        terms: of every input asset.
        contributors: of every input, and the owner of the agent.
        classes: the configured labels; a tool that names another says `unclassified`.
        hosts: where a returned URL may be fetched from.
        shown: labels that the chat model may see, open ones included.
    """

    terms: tuple[Terms, ...]
    contributors: frozenset[str]
    classes: frozenset[str]
    shown: frozenset[str]
    hosts: frozenset[str] = frozenset()


def collect(
    result: Any,
    *,
    binding: CompiledBinding,
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
        AssetError: an output is missing, not media, damaged, or not in the scratch folder; a URL
            can't be fetched; or an operation was to be started and the result names none.
    """
    content, artifact = _split(result, binding)
    named = named_media(
        binding.results,
        content=content,
        artifact=artifact,
        max_bytes=scratch.limits.max_bytes,
        optional=bool(binding.operations),
    )
    content, artifact = named.content, named.artifact  # without its media
    report = report_of(content, artifact, binding)
    judged = binding.labels.union(request.text_labels, labels_of_media(request))
    raised = _raised(report, sources.classes)
    labels = judged | raised  # I4: the union of all that went in
    withheld = _withheld(binding, labels - judged - sources.shown)
    if withheld:  # before anything repeats the text; the tool's effect is done
        report = replace(report, text="")
    media = [*named.data, *media_in(content, max_bytes=scratch.limits.max_bytes)]
    if media and binding.stage is None:
        raise AssetError("a tool bound without a stage returned media; give it a stage")
    pending = [argument for argument, path in outputs.items()
               if binding.operations and not os.path.lexists(path)]  # fmt: skip
    if binding.urls and not (binding.operations or report.urls):
        raise AssetError(_failed("its result holds no URL of media", report, scratch))
    written = {argument: path for argument, path in outputs.items() if argument not in pending}
    if not all(map(os.path.lexists, written.values())):
        raise AssetError(_failed("the tool wrote no output file", report, scratch))
    fetched = _fetched(report.urls, scratch, sources.hosts)  # all, before anything is stored
    taken = [(argument, *scratch.take(path)) for argument, path in written.items()]
    known = set(outputs.values())
    further = [path for path in dict.fromkeys(report.files) if path not in known]
    for number, path in enumerate(further):
        taken.append((f"file {number + 1}", *scratch.take(path)))
    for number, (path, folder) in enumerate(named.files, len(further)):
        if path not in known:
            taken.append((f"file {number + 1}", *scratch.take_new(path, folder)))
    for number, data in enumerate(media):
        taken.append((f"block {number + 1}", *scratch.take_bytes(data)))
    for number, path in enumerate(fetched):
        taken.append((f"url {number + 1}", *scratch.take(path)))
    if binding.stage is not None:
        left = [without_media(content), artifact]
        _require_taken(left, {sha256 for _, sha256, _, _ in taken}, scratch)
    parents = tuple(sorted({use.sha256 for use in request.assets}))
    terms = Terms().strictest(*sources.terms)  # an output may be used only where every source may
    made = tuple(
        Made(
            sha256=sha256,
            id=asset_id(sha256),
            media_type=format_.media_type,
            extension=format_.extension,
            size=size,
            width=format_.width,
            height=format_.height,
            labels=(labels or _UNKNOWN) | format_.labels,
            terms=terms,
            provenance=Provenance.UNKNOWN,
            parents=parents,
            contributors=sources.contributors,
            name=argument,
        )
        for argument, sha256, size, format_ in taken
    )
    started = tuple(
        Started(
            id=id,
            labels=labels or _UNKNOWN,
            terms=terms,
            contributors=sources.contributors,
            assets=parents,
        )
        for id in report.operations
    )
    ids = {asset.name: asset.id for asset in made}
    shown = {os.path.basename(path): ids[name] for name, path in outputs.items() if name in ids}
    said = scratch.conceal(report.text, lambda name: shown.get(name, "[file]"))
    text = withheld or clean(_unlinked(said, binding))
    lines = [text] if text else []
    lines += [f"{asset.name}: {describe(asset)}" for asset in made]
    lines += [f"{argument}: not there yet" for argument in pending]
    lines += [f"operation: {id}" for id in report.operations]
    return Collected(
        text="\n".join(lines),
        made=made,
        findings=report.findings,
        started=started,
        revealed=labels if binding.reveals and not withheld else frozenset(),
        raised=raised,
    )


def labels_of_media(request: Request) -> frozenset[str]:
    """The labels of all assets that go into a call: what comes out has them, too (I4)."""
    return frozenset[str]().union(*(use.labels for use in request.assets))


def require_taken(value: Any, made: Sequence[Made], scratch: Scratch) -> None:
    """Refuse what a tool leaves beside its content if it holds media that was not taken in.

    Raises:
        AssetError: naming the field of the Binding that is missing.
    """
    _require_taken(value, {each.sha256 for each in made}, scratch)


def _require_taken(value: Any, hashes: set[str], scratch: Scratch) -> None:
    require_declared(
        value,
        is_taken=lambda data: hashlib.sha256(data).hexdigest() in hashes,
        is_inside=scratch.holds,
    )


def describe(made: Made) -> str:
    """One line on an asset for a model or a person."""
    dimensions = f" {made.width}x{made.height}" if made.width and made.height else ""
    return (
        f"{made.id} ({made.media_type}{dimensions}, {max(1, made.size // 1024)} kB,"
        f" class {' + '.join(sorted(made.labels))})"
    )


def _split(result: Any, binding: CompiledBinding) -> tuple[Any, Any]:
    if binding.tool.response_format == "content_and_artifact" and isinstance(result, tuple):
        content, artifact, *_ = *result, None, None
        return content, artifact
    if isinstance(result, ToolMessage):
        return result.content, result.artifact
    return result, None


def _failed(why: str, report: ResultReport, scratch: Scratch) -> str:
    """Why an output is missing: the tool's own text often says it, as an answer like any other."""
    said = scratch.conceal(report.text, lambda name: "[file]")
    text = clean(private_left_out(said))[:_MAX_ERROR]
    return f"{why}; it said: {text}" if text else why


def _fetched(urls: Sequence[str], scratch: Scratch, hosts: frozenset[str]) -> list[str]:
    """The files of what a call left at URLs: one time and one size for all, each looked into."""
    paths: list[str] = []
    end, room = time.monotonic() + TOTAL_S, scratch.limits.max_bytes
    for url in urls:
        paths.append(scratch.output("url", ""))
        left = end - time.monotonic()
        if left <= 0:
            raise AssetError(f"what the tool returned took longer to fetch than {TOTAL_S:.0f} s")
        try:
            with open(paths[-1], "xb") as file:
                fetch(url, hosts=hosts, target=file, max_bytes=room, total_s=left)
                room -= file.tell()
        except OSError as error:  # the disk is full, or the tool took its folder away
            raise AssetError(f"what it returned can't be kept: {type(error).__name__}") from None
        scratch.inspect(paths[-1])
    return paths


def _raised(report: ResultReport, classes: frozenset[str]) -> frozenset[str]:
    """The labels that the result itself names; one that is not configured is `unclassified`."""
    return frozenset(one if one in classes else UNCLASSIFIED for one in report.labels)


def _withheld(binding: CompiledBinding, above: frozenset[str]) -> str:
    """What the model reads in place of a text that says too much of media; empty for any other.

    Args:
        above: labels over the chat model's ceiling that the result itself raised, so that they
            could not be judged before the call.
    """
    if not binding.reveals or not above:
        return ""
    return (
        f"withheld: what it returned is labelled {', '.join(sorted(above))}, which the chat model"
        " may not see; work with its ids"
    )


def _unlinked(text: str, binding: CompiledBinding) -> str:
    """A text of a tool that deals in URLs without any: who holds one needs no other key."""
    return without_urls(text) if binding.is_long or binding.urls else text
