"""What a person's no closes besides the call that it answers, and how often people are asked.

A no is about media and a place, not about a caption: whoever changes a blank does not get to ask
again. It holds for the job; a new job may ask again. The words of a refusal: policy/explanation.py.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from agentguard.bindings.argument_schema import values_at
from agentguard.bindings.compiled_binding import CompiledBinding
from agentguard.calls.arguments import ASSET_ID
from agentguard.content.text.normalize import Reading
from agentguard.ledger.ledger import Reads
from agentguard.ledger.queries.approvals import denied_calls
from agentguard.ledger.queries.assets import line_of
from agentguard.model import Request

MOST_QUESTIONS = 50
"""How often people are asked about calls of one job; then calls that need them are refused."""


def is_denied(request: Request, binding: CompiledBinding, reads: Reads) -> bool:
    """Whether a person said no to this in the same job, in whatever words it was asked.

    A no closes each asset of the denied Request and what is made from it, for its destination,
    whichever tool sends it there. A denied call without media is known by its words. Where a call
    names no destination, a no counts for its tool.
    """
    denied = [
        call
        for call in reads.rows(denied_calls(request))
        if request.destination is not None or call.tool == request.tool
    ]
    if not denied:
        return False
    used = {use.sha256 for use in request.assets}
    line = frozenset(reads.rows(line_of(used)) if used else ())
    words = _words_of(request, binding)
    for call in denied:
        media = call.question.media
        if call.content_digest == request.content_digest or media & line:
            return True
        if not media and _is_like(words, set(_words(call.question.args))):
            return True
    return False


def _words_of(request: Request, binding: CompiledBinding) -> set[str]:
    paths = (*binding.texts, *binding.plain)
    return set(_words([value for path in paths for value in values_at(request.args, path)]))


def _is_like(words: set[str], denied: set[str]) -> bool:
    """Whether one call's longest text stands in the other, whatever stands beside it."""
    if not (words and denied):
        return False
    return max(words, key=len) in denied or max(denied, key=len) in words


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if ASSET_ID.fullmatch(value) is None:
            yield _folded(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _words(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _words(item)


def _folded(text: str) -> str:
    """A text without what changes nothing: case, blanks, punctuation, accents, look-alikes."""
    seen = unicodedata.normalize("NFKD", Reading.of(text).folded().text).casefold()
    return "".join(character for character in seen if character.isalnum()) or seen.strip()
