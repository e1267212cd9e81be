"""What is known of a tool's outside effect after a crash, as types that carry their probe (I8)."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentguard.bindings.probe import Probe
from agentguard.model import OutsideEffect


@dataclass(frozen=True, slots=True)
class Opaque:
    """Nothing can be known: it is never repeated, a person looks. The export stage's default."""


@dataclass(frozen=True, slots=True)
class Probeable:
    """Whether it is there can be asked.

    Args:
        probe: takes an `Attempt`. True: it is there. False: it is not, and can't come any more.
            None or an error: can't tell. Give it a timeout. Only `reconcile` runs it.
    """

    probe: Probe = field(repr=False)


@dataclass(frozen=True, slots=True)
class Idempotent:
    """Sending again under the same idempotency key changes nothing.

    Args:
        probe: as in `Probeable`.
    """

    probe: Probe | None = field(default=None, repr=False)


Effect = Opaque | Probeable | Idempotent

KINDS = {
    Opaque: OutsideEffect.OPAQUE,
    Probeable: OutsideEffect.PROBEABLE,
    Idempotent: OutsideEffect.IDEMPOTENT,
}


def probe_of(effect: Effect) -> Probe | None:
    """The probe that an effect carries."""
    return None if isinstance(effect, Opaque) else effect.probe
