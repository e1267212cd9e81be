"""The page on architecture names every module, and nothing that is not there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "agentguard"
PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text("utf-8")


def modules() -> set[str]:
    found = {file.relative_to(PACKAGE).as_posix() for file in PACKAGE.rglob("*.py")}
    return {name for name in found if not name.endswith("__init__.py")}


def rooms() -> dict[str, str]:
    """The paragraph of each room, by its folder; what stands at the top has none."""
    _, _, text = PAGE.partition("## The rooms")
    text, _, _ = text.partition("## One call")
    parts = re.split(r"\*\*`([\w/.]+)`\*\*", text)
    return {name.rstrip("/"): body for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def named() -> set[str]:
    found = set()
    for room, text in rooms().items():
        if room.endswith(".py"):
            found.add(room)
            continue
        found |= {f"{room}/{name}" for name in re.findall(r"`([\w/]+\.py)`", text)}
    # the bottom of the tree is told with the vocabulary
    return {name.removeprefix("model/") if name not in modules() else name for name in found}


def test_page_names_every_module_once() -> None:
    assert named() == modules()


def test_every_path_in_the_page_is_there() -> None:
    look_ups, _, _ = PAGE.partition("## The rooms")
    paths = set(re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?)`", look_ups)) - {"ledger/"}
    _, _, way = PAGE.partition("## One call")
    paths |= set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", way))
    missing = {path for path in paths if not ((PACKAGE / path).exists() or (ROOT / path).exists())}
    assert len(paths) > 20
    assert missing == set()
