"""A finding of a review, and how findings read."""

from typing import Literal, TypeAlias, TypedDict

Severity: TypeAlias = Literal["info", "warning", "error"]


class Finding(TypedDict):
    """One observation about a medium; "info" describes, "warning" and "error" ask for a person.

    Messages hold measurements and fixed words only, never text found inside the medium: whoever
    reads them may be a model, and the medium may be hostile.
    """

    severity: Severity
    code: str
    message: str


def info(code: str, message: str) -> Finding:
    """An observation that needs nobody."""
    return {"severity": "info", "code": code, "message": message}


def warning(code: str, message: str) -> Finding:
    """An observation that a person should look at."""
    return {"severity": "warning", "code": code, "message": message}


def error(code: str, message: str) -> Finding:
    """An observation that makes the medium unusable as it is."""
    return {"severity": "error", "code": code, "message": message}


def summary(findings: list[Finding]) -> str:
    """The findings as text: the verdict, then one line each, the gravest first."""
    order = {"error": 0, "warning": 1, "info": 2}
    grave = sum(each["severity"] != "info" for each in findings)
    verdict = "clean" if not grave else f"{grave} finding{'s' if grave > 1 else ''} to look at"
    lines = sorted(findings, key=lambda each: order[each["severity"]])
    return "\n".join(
        [
            f"Review: {verdict}.",
            *(f"- {e['severity']}: {e['message']} [{e['code']}]" for e in lines),
        ]
    )
