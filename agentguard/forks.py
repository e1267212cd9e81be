"""What a forked child must not take over: locks that threads hold which it does not have."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable


def call_in_children(reset: Callable[[], None]) -> None:
    """Call a method in every child that this process forks from now on.

    Args:
        reset: a bound method; its object is not kept alive by this.
    """
    if not hasattr(os, "register_at_fork"):  # Windows does not fork
        return
    method = weakref.WeakMethod(reset)  # hooks stay for good

    def in_child() -> None:
        found = method()
        if found is not None:
            found()

    os.register_at_fork(after_in_child=in_child)
