"""Telling whoever watches a run how far a long tool has come."""

import logging

from langchain_core.callbacks import dispatch_custom_event

_log = logging.getLogger(__name__)


def report(name: str, done: int, total: int) -> None:
    """Log that `done` of `total` frames are ready, and tell the callbacks of the run, if any."""
    _log.info("%s: frame %d of %d", name, done, total)
    try:
        dispatch_custom_event(name, {"done": done, "total": total})
    except RuntimeError:
        # Raised for lack of a parent run: the tool was called as a plain function.
        _log.debug("%s: no run to report progress to", name)
