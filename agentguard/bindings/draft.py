"""A first Binding for a tool, guessed from its schema (`agentguard bind`)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from langchain_core.tools import BaseTool

from agentguard.bindings.argument_paths import Shape, is_encoded
from agentguard.bindings.binding import SPLIT, SUFFIX
from agentguard.bindings.mcp import origin
from agentguard.bindings.model_schema import json_schema
from agentguard.bindings.reach import reach_of
from agentguard.bindings.tool_class import require_upstream_class
from agentguard.errors import BindingError
from agentguard.model import Stage

_STAGE_HINTS: Mapping[Stage, tuple[str, ...]] = {
    Stage.EXPORT: ("publish", "upload", "export", "post ", "share", "send"),
    Stage.QUEUE: ("queue", "schedule"),
    Stage.REVIEW: ("review", "inspect", "moderat", "quality"),
    Stage.GENERATE: ("generate", "create", "paint", "draw", "make", "synthes"),
    Stage.RENDER: ("render", "transcode", "encode", "video", "thumbnail", "assemble", "concat"),
}
_OPERATION = re.compile(
    r"(?:request|job|task|operation|prediction|generation|run|ticket)_?(?:id|name)?|operation"
)
_STARTS = re.compile(
    r"\b(?:request|job|task|operation|prediction|generation)[ _]id\b|\bpoll\b", re.IGNORECASE
)
_URL_OUT = re.compile(r"\burls?\b|\blink\b", re.IGNORECASE)
_PUBLISHES = re.compile(r"publish|upload|export", re.IGNORECASE)
_CONVERTS = re.compile(
    r"convert|transcod|encod|resiz|crop|compress|render|trim|watermark|scale", re.IGNORECASE
)
_SETTINGS = frozenset(
    {"width", "height", "fps", "codec", "bitrate", "crf", "resolution", "scale", "quality"}
)
_OUTPUT_WORDS = frozenset(
    {"output", "out", "target", "result", "dest", "saved", "save", "outfile", "filename"}
)


def draft(tool: BaseTool, called: str = "") -> str:
    """A Binding for a tool as Python source, guessed from its schema, for a person to correct.

    `"?"` stands for what only a person can decide.

    Args:
        tool: any LangChain tool with a schema.
        called: the Python expression that names it; its own name without one.

    Raises:
        BindingError: the tool can't be bound as it is; the message says why.
    """
    require_upstream_class(tool)
    if not called:  # an MCP server chose the name: it must not become code
        called = tool.name if tool.name.isidentifier() else "tool"
    forms: dict[str, str] = {}
    groups: dict[str, list[str]] = {"assets": [], "texts": [], "plain": [], "outputs": []}
    operations: dict[str, str] = {}
    destination = ""
    names: set[str] = set()
    shape = Shape(json_schema(tool), tool.name)
    for path, leaf in shape.leaves.items():
        name = path.rsplit(".", 1)[-1].removesuffix("[]").lower()
        names.add(name)
        if name in ("to", "destination", "channel", "account"):
            destination = f", destination=Arg({path!r})"
        elif _OPERATION.fullmatch(name) and leaf.get("type") in ("string", "integer"):
            operations[path] = "?"
        elif _is_output(name, leaf):
            groups["outputs"].append(path)
        elif leaf.get("type") == "string" and any(
            word in name for word in ("prompt", "caption", "text", "title", "message", "alt")
        ):
            groups["texts"].append(path)
        elif (
            leaf.get("type") == "string"
            and not {"enum", "const"} & set(leaf)
            and path not in shape.defaults  # media have none
        ):
            groups["assets"].append(path)
            forms[path] = _form(name, leaf)
        else:
            groups["plain"].append(path)
    words = f"{tool.name} {tool.description}".lower()
    starts = bool(_STARTS.search(words)) and not operations
    _require_one_thing(tool, words, names, bool(groups["outputs"]))
    guesses = [stage for stage, hints in _STAGE_HINTS.items() if any(h in words for h in hints)]
    makes = bool(groups["texts"] and groups["outputs"]) and not groups["assets"]
    stage = guesses[0] if guesses else Stage.GENERATE if makes else Stage.EDIT
    long = ""
    if starts or operations:  # long work is a vendor's, whatever its words sound like
        stage = Stage.GENERATE
        destination = ', destination="?"'
        long = ', starts="?"' if starts else f", operations={operations!r}"
        if operations and _URL_OUT.search(words):
            long += ', urls=["?"]'
    elif stage is Stage.EXPORT and not destination:
        destination = ', destination="?"'
    media = forms if set(forms.values()) - {"path"} else groups["assets"]
    lists = "".join(
        f", {key}={media if key == 'assets' else paths!r}" for key, paths in groups.items() if paths
    )
    effect = ', effect="opaque"' if destination and not long else ""
    came = origin(tool)
    if came is not None and came.remote and (groups["assets"] or groups["texts"]):
        destination = destination or ', destination="?"'
    pin = "" if came is None else (
        f", mcp=McpTool(server={came.server!r}, name={came.name!r}, schema={came.schema!r})"
    )  # fmt: skip
    unsure = came.remote is None if came is not None else reach_of(tool) is not None
    local = ', local="?"' if unsure and not destination else ""
    return f'Binding({called}, stage="{stage}"{lists}{destination}{long}{effect}{pin}{local})'


def _require_one_thing(tool: BaseTool, words: str, names: set[str], writes: bool) -> None:
    converts = writes or bool(names & _SETTINGS) or _CONVERTS.search(tool.name) is not None
    if (
        converts
        and _PUBLISHES.search(words)
        and names & {"to", "destination", "channel", "account"}
    ):
        raise BindingError(f"{tool.name} seems to convert and to publish. {SPLIT}")


def told(tool: BaseTool) -> list[str]:
    """What an MCP server's tool tells the chat model, line by line; empty for any other tool."""
    came = origin(tool)
    if came is None:
        return []
    lines = [f"{came.name} of the MCP server {came.server} says:", *tool.description.splitlines()]
    for path, leaf in Shape(json_schema(tool), tool.name).leaves.items():
        if "description" in leaf:
            lines.append(f"{path}: {leaf['description']}")
    return lines


def _form(name: str, leaf: Mapping[str, object]) -> str:
    words = set(name.split("_"))
    if is_encoded(leaf) or words & {"base64", "b64"}:
        return "base64"
    named = words & {"url", "urls", "uri", "dataurl"} or leaf.get("format") == "uri"
    return "data-url" if named else "path"


def _is_output(name: str, leaf: Mapping[str, object]) -> bool:
    """A file name to write to: by its name, or by a default such as "picture.png"."""
    default = leaf.get("default")
    suffix = os.path.splitext(default)[1] if isinstance(default, str) else ""
    named = bool(set(name.split("_")) & _OUTPUT_WORDS) or name == "file"
    return named or (suffix != "" and SUFFIX.fullmatch(suffix) is not None)
