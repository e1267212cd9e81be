"""Tools of a library that makes them anew for each agent, recognised by their code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool

from agentguard.bindings.tool_class import is_same_schema
from agentguard.errors import BindingError


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTool:
    """What a ready-made Binding takes for its tool: any object that runs the same library code.

    Args:
        sample: a tool object of the library, made with what is harmless.
        require: refuses an object by what it holds, such as the disk that its files lie on; raises
            BindingError. None: the code says it all.
    """

    sample: StructuredTool
    require: Callable[[BaseTool], None] | None = None

    def accept(self, tool: BaseTool) -> None:
        """Refuse an object that is not the library's own tool.

        Raises:
            BindingError: its class, code or schema is another, or it holds what is not harmless.
        """
        ours = (type(tool) is type(self.sample), _code(tool), is_same_schema(self.sample, tool))
        if ours != (True, _code(self.sample), True):
            raise BindingError(
                f"{tool.name} is not the tool that its ready-made Binding is for (its class, code"
                " or arguments differ); bind it yourself"
            )
        if self.require is not None:
            self.require(tool)


def _code(tool: BaseTool) -> tuple[Any, ...]:
    functions = (getattr(tool, "func", None), getattr(tool, "coroutine", None))
    return tuple(getattr(each, "__code__", None) for each in functions)
