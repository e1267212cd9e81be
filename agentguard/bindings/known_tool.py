"""Tools of a library that makes them anew for each agent, recognised by their code."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool
from pydantic import BaseModel

from agentguard.errors import BindingError

_LANGCHAIN = "langchain_core.utils.pydantic"


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
        ours = (type(tool) is type(self.sample), _code(tool), _is_same_schema(self.sample, tool))
        if ours != (True, _code(self.sample), True):
            raise BindingError(
                f"{tool.name} is not the tool that its ready-made Binding is for (its class, code"
                " or arguments differ); bind it yourself"
            )
        if self.require is not None:
            self.require(tool)


def _is_same_schema(sample: BaseTool, tool: BaseTool) -> bool:
    """Whether two tools take the same arguments, where each of them may have a class of its own."""
    known, given = sample.args_schema, tool.args_schema
    if given is known or not (_is_plain(known) and _is_plain(given)):
        return given is known
    return bool(known.model_json_schema() == given.model_json_schema())  # type: ignore[union-attr]


def _is_plain(schema: object) -> bool:
    """Whether LangChain made a class of a signature; one that somebody wrote may validate more."""
    if not (isinstance(schema, type) and schema.__bases__ == (BaseModel,)):
        return False
    decorators = getattr(schema, "__pydantic_decorators__", None)
    own = any(inspect.isfunction(value) for value in vars(schema).values())
    if schema.__module__ != _LANGCHAIN or own or decorators is None:
        return False
    return not any(getattr(decorators, field.name) for field in dataclasses.fields(decorators))


def _code(tool: BaseTool) -> tuple[Any, ...]:
    functions = (getattr(tool, "func", None), getattr(tool, "coroutine", None))
    return tuple(getattr(each, "__code__", None) for each in functions)
