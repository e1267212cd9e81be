"""A first Binding for a tool, guessed from its schema (`agentguard bind`)."""

from __future__ import annotations

import os
from collections.abc import Mapping

from langchain_core.tools import BaseTool

from agentguard._declared import SUFFIX
from agentguard._facing import json_schema
from agentguard._shapes import Shape
from agentguard.model import Stage

_STAGE_HINTS: Mapping[Stage, tuple[str, ...]] = {
    Stage.EXPORT: ("publish", "upload", "export", "post ", "share", "send"),
    Stage.QUEUE: ("queue", "schedule"),
    Stage.REVIEW: ("review", "inspect", "moderat", "quality"),
    Stage.GENERATE: ("generate", "create", "paint", "draw", "make", "synthes"),
    Stage.RENDER: ("render", "transcode", "encode", "video", "thumbnail"),
}


def draft(tool: BaseTool) -> str:
    """A Binding for a tool as Python source, guessed from its schema, for a person to correct.

    Args:
        tool: any LangChain tool with a schema.

    Raises:
        BindingError: the tool can't be bound as it is; the message says why.
    """
    groups: dict[str, list[str]] = {"assets": [], "texts": [], "plain": [], "outputs": []}
    destination = ""
    for path, leaf in Shape(json_schema(tool), tool.name).leaves.items():
        name = path.rsplit(".", 1)[-1].removesuffix("[]").lower()
        if name in ("to", "destination", "channel", "account"):
            destination = f", destination=Arg({path!r})"
        elif _is_output(name, leaf):
            groups["outputs"].append(path)
        elif leaf.get("type") == "string" and any(
            word in name for word in ("prompt", "caption", "text", "title", "message", "alt")
        ):
            groups["texts"].append(path)
        elif leaf.get("type") == "string" and "enum" not in leaf and "const" not in leaf:
            groups["assets"].append(path)
        else:
            groups["plain"].append(path)
    words = f"{tool.name} {tool.description}".lower()
    guesses = [stage for stage, hints in _STAGE_HINTS.items() if any(h in words for h in hints)]
    makes = bool(groups["texts"] and groups["outputs"]) and not groups["assets"]
    stage = guesses[0] if guesses else Stage.GENERATE if makes else Stage.EDIT
    if stage is Stage.EXPORT and not destination:
        destination = ', destination="?"'
    lists = "".join(f", {key}={paths!r}" for key, paths in groups.items() if paths)
    effect = ', effect="opaque"' if destination else ""
    return f'Binding({tool.name}, stage="{stage}"{lists}{destination}{effect})'


def _is_output(name: str, leaf: Mapping[str, object]) -> bool:
    """A file name to write to: by its name, or by a default such as "picture.png"."""
    default = leaf.get("default")
    words = set(name.split("_"))
    return (
        bool(words & {"output", "out", "target", "result", "dest", "saved"})
        or name == "file"
        or (isinstance(default, str) and SUFFIX.fullmatch(os.path.splitext(default)[1]) is not None)
    )
