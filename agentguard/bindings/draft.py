"""A first Binding for a tool, guessed from its schema (`agentguard bind`)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import get_args, get_origin

from langchain_core.tools import BaseTool

from agentguard.bindings.argument_schema import Shape, is_binary, is_encoded
from agentguard.bindings.compiled_binding import SPLIT, SUFFIX
from agentguard.bindings.declaration import bodies_of, hints_of
from agentguard.bindings.inference import argument_form, is_plain, result_form
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
_LINE = 88
_OUTPUT_WORDS = frozenset(
    {"output", "out", "target", "result", "dest", "saved", "save", "outfile", "filename"}
)


def draft(tool: BaseTool, called: str = "") -> str:
    """A Binding for a tool as Python source, guessed from its schema, for a person to correct.

    `"?"` stands for what only a person can decide. What the type says already is left out.

    Args:
        tool: any LangChain tool with a schema.
        called: the Python expression that names it; its own name without one.

    Raises:
        BindingError: the tool can't be bound as it is; the message says why.
    """
    require_upstream_class(tool)
    if not called:  # an MCP server chose the name: it must not become code
        called = tool.name if tool.name.isidentifier() else "tool"
    came = origin(tool)
    remote = came is not None and came.remote is not False
    shape = Shape(json_schema(tool), tool.name)
    roles = {path: _role(path, leaf, shape, remote=remote) for path, leaf in shape.leaves.items()}
    takes = {role.partition("(")[0] for role in roles.values()}
    names = {path.rsplit(".", 1)[-1].removesuffix("[]").lower() for path in roles}
    words = f"{tool.name} {tool.description}".lower()
    polls = "OperationId" in takes
    starts = bool(_STARTS.search(words)) and not polls
    _require_one_thing(tool, words, names, "Output" in takes)
    stage = _stage(words, takes)
    if starts or polls:  # long work is a vendor's, whatever its words sound like
        stage = Stage.GENERATE
    if stage in (Stage.QUEUE, Stage.EXPORT):  # a choice may pick the place there
        choices = (path for path, leaf in shape.leaves.items() if _is_choice(leaf))
        roles |= {path: "Plain()" for path in choices if not roles[path]}
    unsure = came.remote is None if came is not None else reach_of(tool) is not None
    sends = bool(came is not None and came.remote and {"Asset", "Text"} & takes)
    placed = "To" in takes
    parts = [called, f'stage="{stage}"']
    if not placed and (unsure or sends or stage in (Stage.GENERATE, Stage.EXPORT)):
        parts.append('to="?"')
    said = {path: role for path, role in roles.items() if role}
    if said:
        parts.append(f"args={{{', '.join(f'{path!r}: {role}' for path, role in said.items())}}}")
    if starts:
        parts.append('result={"?": OperationId()}')
    elif polls:
        parts.append(
            'result={"?": Asset("url")}' if _URL_OUT.search(words) else 'result=Asset("?")'
        )
    elif stage in (Stage.GENERATE, Stage.EDIT, Stage.RENDER) and "Output" not in takes:
        parts.append(f"result={_result(tool, is_mcp=came is not None)}")
    if stage is Stage.EXPORT:
        parts.append("effect=Opaque()")
    if came is not None:
        parts.append(f"mcp=McpTool({came.server!r}, {came.name!r}, {came.schema!r})")
    line = f"Binding({', '.join(parts)})"
    if len(line) <= _LINE:
        return line
    return "\n".join(("Binding(", *(f"    {part}," for part in parts), ")"))


def _role(path: str, leaf: Mapping[str, object], shape: Shape, *, remote: bool) -> str:
    """The role of an argument as source; empty where its type says that it is plain."""
    name = path.rsplit(".", 1)[-1].removesuffix("[]").lower()
    if name in ("to", "destination", "channel", "account"):
        return "To()"
    if _OPERATION.fullmatch(name) and leaf.get("type") in ("string", "integer"):
        return 'OperationId("?")'
    if _is_output(name, leaf):
        return "Output()"
    if is_plain(leaf):
        return ""
    if any(word in name for word in ("prompt", "caption", "text", "title", "message", "alt")):
        return "Text()"
    if path in shape.defaults:  # media have none
        return "Plain()"
    form = _form(name, leaf)
    if form == "path" and remote and not is_binary(leaf):
        form = "base64"  # a server gets no file of this machine
    return "Asset()" if form == argument_form(leaf) or form == "path" else f'Asset("{form}")'


def _stage(words: str, takes: set[str]) -> Stage:
    guesses = [stage for stage, hints in _STAGE_HINTS.items() if any(h in words for h in hints)]
    makes = {"Text", "Output"} <= takes and "Asset" not in takes
    return guesses[0] if guesses else Stage.GENERATE if makes else Stage.EDIT


def _result(tool: BaseTool, *, is_mcp: bool) -> str:
    """What a tool returns, as a role: blocks are what MCP servers and lists of objects hold."""
    if is_mcp:
        return 'Asset("blocks")'
    for body in bodies_of(tool):
        try:
            hint = hints_of(body).get("return")
        except NameError:
            continue
        if get_origin(hint) is list and get_origin(get_args(hint)[0]) is dict:
            return 'Asset("blocks")'
        if result_form(hint) == "bytes":
            return "Asset()"
    return 'Asset("?")'


def _is_choice(leaf: Mapping[str, object]) -> bool:
    return "enum" in leaf or "const" in leaf


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
