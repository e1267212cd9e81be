"""All that is wrong with declarations, told at once."""

from __future__ import annotations

from collections.abc import Iterable

from agentguard.errors import BindingError


class Problems:
    """What is wrong with one tool's declaration, as sentences that name the way out.

    Args:
        tool: its name.
    """

    def __init__(self, tool: str) -> None:
        self.tool = tool
        self._found: dict[tuple[str, str], None] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, sentence: str, *paths: str) -> None:
        """Note a problem, of arguments or of the tool as such; the same one counts once."""
        self._found.setdefault((", ".join(paths), sentence))

    def add_error(self, error: BindingError) -> None:
        """Note what another part of this package refused."""
        if error.tool != self.tool:
            self.add(str(error))
        elif error.path is None:
            self.add(error.sentence)
        else:
            self.add(error.sentence, error.path)

    def require_none(self) -> None:
        """Raise what was found.

        Raises:
            BindingError: with every problem.
        """
        if not self._found:
            return
        if len(self._found) == 1:
            ((paths, sentence),) = self._found
            one = "" if not paths else f": {paths}" if "," in paths else f".{paths}"
            raise BindingError(f"{self.tool}{one}: {sentence}")
        lines = [f"  {paths}: {sentence}" if paths else f"  {sentence}"
                 for paths, sentence in self._found]  # fmt: skip
        raise BindingError("\n".join((f"{self.tool}: {len(lines)} things to declare", *lines)))


def require_no_errors(errors: Iterable[BindingError]) -> None:
    """Raise the errors of several tools as one.

    Raises:
        BindingError: there are any.
    """
    found = list(errors)
    if len(found) == 1:
        raise found[0]
    if found:
        raise BindingError("\n".join(map(str, found)))
