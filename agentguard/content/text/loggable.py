"""An exception as a log may hold it: with its traceback, without secrets and personal data."""

from __future__ import annotations

import traceback

from agentguard.content.text.scan import TextTooLong, scan


def loggable(error: Exception) -> Exception:
    """The exception itself, or one of the same name and traceback whose words are redacted.

    Code lines of a traceback hold no values; what an exception and those behind it say may (S7).
    """
    said = "".join(traceback.format_exception(error, limit=0))
    try:
        found = scan(said)
    except TextTooLong:
        redacted = "[too long to be logged]"
    else:
        if not (found.secrets or found.labels):
            return error
        lines = "".join(traceback.format_exception_only(error)).strip()
        redacted = scan(lines).redacted.removeprefix(f"{type(error).__name__}: ")
    standing_in: type[Exception] = type(
        type(error).__name__, (Exception,), {"__module__": "builtins"}
    )
    return standing_in(redacted).with_traceback(error.__traceback__)
