"""A bound tool as policies see it: an action of its stage, with typed arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Any

from agentguard.canonical import canonical
from agentguard.model.vocabulary import Stage

USE = "use"
"""What stands for a stage where a tool has none: a tool without media or effect."""


class ArgumentKind(StrEnum):
    """What an argument is, in the kinds that policies tell apart."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    LIST = "list"
    OBJECT = "object"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentType:
    """The type of one argument, or of a part of one.

    Args:
        optional: it may be absent from a call, because it may be null, or because only the tool
            makes its default.
        choices: the only strings and integers that it can be; None: any.
        item: of a list.
        fields: of an object, by name.
    """

    kind: ArgumentKind
    optional: bool = False
    choices: tuple[str | int, ...] | None = None
    item: ArgumentType | None = None
    fields: Mapping[str, ArgumentType] = field(
        default_factory=lambda: MappingProxyType({}), hash=False
    )

    @property
    def data(self) -> dict[str, Any]:
        """It as JSON data."""
        made: dict[str, Any] = {"kind": self.kind.value}
        if self.optional:
            made["optional"] = True
        if self.choices is not None:
            made["choices"] = list(self.choices)
        if self.item is not None:
            made["item"] = self.item.data
        if self.fields:
            made["fields"] = {name: each.data for name, each in self.fields.items()}
        return made


@dataclass(frozen=True, kw_only=True)
class ToolAction:
    """A tool as an action of policies.

    Args:
        name: of the tool; it is the name of the action, too.
        stage: that it is bound to; None for tools without media or effect.
        arguments: those that a policy can read, by name.
        left_out: paths of those that it can't read, since they have no type there.
    """

    name: str
    stage: Stage | None
    arguments: Mapping[str, ArgumentType] = field(hash=False)
    left_out: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The group of its action: `stage:render`."""
        return group_of(self.stage)

    @cached_property
    def text(self) -> str:
        """Its canonical JSON: equal for equal actions, and for no others."""
        arguments = {name: each.data for name, each in self.arguments.items()}
        body = {"tool": self.name, "stage": self.stage, "arguments": arguments}
        return canonical({**body, "left_out": list(self.left_out)}).decode("utf-8")


def group_of(stage: Stage | None) -> str:
    """The group that the actions of a stage's tools are in."""
    return f"stage:{stage.value if stage is not None else USE}"


def any_tool_of(stage: Stage | None) -> ToolAction:
    """The placeholder of a stage: a tool without arguments that dry runs suppose.

    No tool is called so, for a tool's name has no blanks.
    """
    name = f"the {stage.value if stage is not None else USE} tool"
    return ToolAction(name=name, stage=stage, arguments=MappingProxyType({}))


GROUPS = tuple(group_of(stage) for stage in (*Stage, None))
"""Every group of actions: the stages', and that of tools without one."""
