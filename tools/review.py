"""The review stage: what can be measured about a medium before a person looks at it."""

from pathlib import Path
from typing import TypedDict

from langchain_core.tools import tool
from PIL import Image, UnidentifiedImageError

from tools.shared.files import existing
from tools.shared.findings import Finding, summary
from tools.shared.picture_review import picture_findings
from tools.shared.pictures import FORMATS
from tools.shared.video_review import video_findings


class Review(TypedDict):
    """The artifact of a review."""

    findings: list[Finding]


@tool(parse_docstring=True, response_format="content_and_artifact")
def review_media(source: str) -> tuple[str, Review]:
    """Look for technical faults, leaks and weak spots in a picture or video.

    Says "clean" if nothing needs a person: it decodes to the end, is neither blank, black, frozen,
    clipped nor flat, and carries no location, names or hidden text.

    Args:
        source: The picture or video to review.
    """
    path = existing(source)
    findings = picture_findings(path) if _is_picture(path) else video_findings(source)
    return summary(findings), {"findings": findings}


def _is_picture(path: Path) -> bool:
    """Whether the file begins like a still picture; an animated one is judged as a video."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            return int(getattr(picture, "n_frames", 1)) == 1
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return True
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError):
        return False
