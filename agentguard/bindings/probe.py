"""How a developer's tool is asked, after a crash, whether what a call began is there (I8).

The developer says so in the declaration (`effect=Probeable(probe)`). A probe is code of the
developer, like the tool: it is run by `reconcile` alone, and what it raises or returns besides True
and False ends nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_core.tools import BaseTool

from agentguard.errors import BindingError
from agentguard.model import OutsideEffect


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A call that was begun, and whose outcome nobody recorded: what a probe looks for.

    Args:
        idempotency_key: what `idempotency_key()` gave the tool in this call. Look for this, and
            for nothing else: a model chose the arguments, and another call may have the same ones.
        tool: the tool's name.
        destination: id of the Destination it sent to, None where its Binding names none.
        arguments: as the log holds them: media are asset ids, personal data in texts is redacted.
        assets: SHA-256 of its media.
        claimed_at: when it began, in ms since the Unix epoch by the ledger's clock.
    """

    idempotency_key: str
    tool: str
    destination: str | None
    arguments: Mapping[str, Any] = field(repr=False)
    assets: tuple[str, ...]
    claimed_at: int


Probe = Callable[[Attempt], bool | None]
"""True: it is there. False: it is not, and can't come any more. None, or an error: can't tell."""

_PROBED = (OutsideEffect.IDEMPOTENT, OutsideEffect.PROBEABLE)


def require_probe(name: str, probe: object, effect: OutsideEffect) -> None:
    """Raise BindingError unless a probe can say what became of this tool's effect."""
    if effect not in _PROBED:
        why = (
            "an Opaque() effect is one that nobody can ask about"
            if effect is OutsideEffect.OPAQUE
            else "it has no effect= that could be unknown after a crash"
        )
        raise BindingError(
            f"{name}: a probe tells whether an effect is there, and {why}; say"
            " effect=Probeable(probe), or Idempotent(probe) if sending again under the same key"
            " changes nothing"
        )
    if isinstance(probe, BaseTool):  # what a model can call is no source of what happened (I3)
        raise BindingError(
            f"{name}: its probe is a tool, which a model could call; give a function"
        )
    called = getattr(probe, "__call__", None)  # noqa: B004  an object's may be asynchronous
    if not callable(probe) or any(map(inspect.iscoroutinefunction, (probe, called))):
        raise BindingError(
            f"{name}: got the probe {probe!r:.80}, expected a plain function that takes an"
            " Attempt and returns True, False or None"
        )
    try:
        inspect.signature(probe).bind(object())
    except TypeError as error:  # else it is found out after the crash that it was written for
        raise BindingError(f"{name}: its probe takes one argument, an Attempt: {error}") from error
    except ValueError:
        pass  # a function of C says nothing of its arguments


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """What a probe says of an effect.

    Args:
        found: it took place, or did not; None: it can't tell.
        why: why it can't, in a few words.
    """

    found: bool | None
    why: str = ""


def ask(probe: Probe, attempt: Attempt) -> ProbeAnswer:
    """Ask a probe. Nothing that it raised or returned is repeated: it may hold a secret."""
    try:
        answer: object = probe(attempt)
    except Exception as error:  # noqa: BLE001 - I11: the developer's code may raise anything
        return ProbeAnswer(None, f"its probe failed ({type(error).__name__:.80})")
    if answer is True or answer is False:
        return ProbeAnswer(answer)
    if answer is None:
        return ProbeAnswer(None, "its probe can't tell")
    if inspect.iscoroutine(answer):
        answer.close()
    # A word such as "no" is truthy: only the two values themselves end an `unknown`.
    got = type(answer).__name__
    return ProbeAnswer(None, f"its probe returned {got:.80}, expected True, False or None")
