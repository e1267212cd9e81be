"""Cedar policies that are parsed once in a process, as they are the same for every workspace."""

from __future__ import annotations

import functools

from agentguard import _rules


def parse_rules_once() -> None:
    """From now on the same text at the same place is parsed once.

    What a Rule is follows from these two alone, and nothing changes it. A text that is refused is
    parsed anew each time. It is a third of what opening a Guard costs, and tests open thousands.
    """
    if not hasattr(_rules._rule, "cache_info"):
        _rules._rule = functools.cache(_rules._rule)
