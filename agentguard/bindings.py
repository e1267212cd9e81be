"""What one plain tool's arguments mean, and the tool as the model sees it.

A Binding declares every argument of a tool by its path (`source`, `clips[].source`) as an asset, a
text, a plain value, an output or a destination. What nobody declared, and what can't be declared
(an open object, a union of shapes), is refused when the tool is bound: an argument that the guard
does not understand is one it can't judge (DESIGN section 1).
"""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import jsonschema
from langchain_core.tools import BaseTool
from langchain_core.tools import tool as make_tool
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import to_jsonable_python

from agentguard.canonical import digest
from agentguard.classify import looks_like_locator
from agentguard.errors import BindingError
from agentguard.model import GENERATED, OutsideEffect, Stage

Form = Literal["path", "bytes", "data-url"]
_FORMS = ("path", "bytes", "data-url")
_MAX_PLAIN = 256


@dataclass(frozen=True, slots=True)
class Arg:
    """Says that an argument, not a constant, names the Destination: `destination=Arg("to")`."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """What a Binding's `returns` function makes of a tool's result.

    Args:
        text: what the model may read.
        files: paths of further outputs, which must lie in the call's scratch folder.
        labels: labels that the outputs get in addition; they only raise.
        findings: what a review found: mappings of `severity` (info, warning, error), `message`.
    """

    text: str
    files: tuple[str, ...] = ()
    labels: frozenset[str] = frozenset()
    findings: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True, init=False)
class Binding:
    """The meaning of one tool's arguments.

    Args:
        tool: a LangChain tool, or a function that becomes one.
        stage: the stage it belongs to; None for a tool without media or effect.
        assets: argument paths that hold media: the model gives asset ids, the tool gets private
            copies as `path` (default), `bytes` or `data-url`: `["source"]`, `{"img": "bytes"}`.
        texts: argument paths of prompts and captions: scanned, labelled, logged redacted.
        plain: argument paths of numbers, booleans, enums and bounded strings.
        outputs: arguments that the guard fills with fresh paths, hidden from the model:
            `["file"]`, or with the file name's suffix, `{"file": ".mp4"}`. Without one it is that
            of the argument's default, else `.mp4` for the render stage and `.png` for others.
        destination: where the call sends its media and texts: a Destination id, or `Arg(path)` of
            the argument that names one. None: nothing leaves the workspace.
        effect: what is known of the outside effect after a crash; needed with a destination that
            is not a vendor.
        reveals: the tool shows or describes its media to the model.
        labels: labels every output gets; generators default to `generated`.
        state: state keys that the tool's `Command` may write, besides `messages`.
        interrupts: the tool may pause itself before it did anything.
        unsafe_routes: let the tool's `Command` route the graph and write any state (I2 is then
            the tool author's to keep).
        returns: makes a `Returned` of the tool's result, where the defaults don't fit.

    Raises:
        BindingError: the declaration contradicts itself.
    """

    tool: BaseTool
    stage: Stage | None
    assets: Mapping[str, Form]
    texts: tuple[str, ...]
    plain: tuple[str, ...]
    outputs: Mapping[str, str]
    destination: str | Arg | None
    effect: OutsideEffect
    reveals: bool
    labels: frozenset[str]
    state: tuple[str, ...]
    interrupts: bool
    unsafe_routes: bool
    returns: Callable[[Any], Returned] | None = field(repr=False)

    def __init__(
        self,
        tool: BaseTool | Callable[..., Any],
        *,
        stage: Stage | str | None,
        assets: Sequence[str] | Mapping[str, Form] = (),
        texts: Sequence[str] = (),
        plain: Sequence[str] = (),
        outputs: Sequence[str] | Mapping[str, str] = (),
        destination: str | Arg | None = None,
        effect: OutsideEffect | str = OutsideEffect.NONE,
        reveals: bool = False,
        labels: Iterable[str] | None = None,
        state: Sequence[str] = (),
        interrupts: bool = False,
        unsafe_routes: bool = False,
        returns: Callable[[Any], Returned] | None = None,
    ) -> None:
        made = tool if isinstance(tool, BaseTool) else make_tool(tool)
        name = made.name
        for argument, value in (("assets", assets), ("texts", texts), ("plain", plain),
                                ("outputs", outputs), ("state", state)):  # fmt: skip
            if isinstance(value, str):
                raise BindingError(
                    f"{name}: {argument}={value!r} is one string; write [{value!r}]"
                )
        forms = dict(assets) if isinstance(assets, Mapping) else dict.fromkeys(assets, "path")
        for path, form in forms.items():
            if form not in _FORMS:
                raise BindingError(f"{name}.{path}: got form {form!r}, expected one of {_FORMS}")
        try:
            known_stage = None if stage is None else Stage(stage)
            known_effect = OutsideEffect(effect)
        except ValueError as error:
            raise BindingError(f"{name}: {error}") from error
        if labels is None:
            labels = {GENERATED} if known_stage is Stage.GENERATE else ()
        if known_stage is None and (forms or outputs or destination or texts):
            raise BindingError(
                f"{name}: stage=None is for tools without media, texts or effect; name its stage"
            )
        if known_stage is Stage.EXPORT and known_effect is OutsideEffect.NONE:
            raise BindingError(
                f"{name}: an export has an effect outside; say effect='idempotent', 'probeable' or"
                " 'opaque', whichever is known after a crash"
            )
        if interrupts and known_effect is not OutsideEffect.NONE:
            raise BindingError(f"{name}: a tool with an outside effect must not pause itself")
        values: dict[str, Any] = {
            "tool": made,
            "stage": known_stage,
            "assets": forms,
            "texts": tuple(texts),
            "plain": tuple(plain),
            "outputs": (
                dict(outputs) if isinstance(outputs, Mapping) else dict.fromkeys(outputs, "")
            ),
            "destination": destination,
            "effect": known_effect,
            "reveals": reveals,
            "labels": frozenset(labels),
            "state": tuple(state),
            "interrupts": interrupts,
            "unsafe_routes": unsafe_routes,
            "returns": returns,
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)

    @property
    def declared(self) -> tuple[str, ...]:
        """Every argument path that this Binding gives a meaning to."""
        to = (self.destination.path,) if isinstance(self.destination, Arg) else ()
        return (*self.assets, *self.texts, *self.plain, *self.outputs, *to)


class Bound:
    """A Binding that was compared with its tool's schema: ready to freeze and fill arguments.

    Args:
        binding: the declaration.

    Raises:
        BindingError: naming the argument that is undeclared, declared twice, unknown or open.
    """

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        self.name = binding.tool.name
        schema = binding.tool.tool_call_schema
        if not isinstance(schema, dict) and not issubclass(schema, BaseModel):
            raise BindingError(f"{self.name}: its schema is pydantic v1; write it for pydantic 2")
        self._json_schema = (
            schema if isinstance(schema, dict) else schema.model_json_schema(by_alias=True)
        )
        leaves = dict(_leaves(self._json_schema, self.name))
        self._require_declared(leaves)
        self._leaves = leaves
        self.injected = _injected(binding.tool, set(self._json_schema.get("properties", {})))
        self.args_schema = self._facing_schema()
        self._model = self._argument_model()
        self.digest = digest(
            "agentguard/binding/v1",
            {
                "tool": self.name,
                "schema": self._json_schema,
                "stage": binding.stage,
                "assets": dict(binding.assets),
                "texts": set(binding.texts),
                "plain": set(binding.plain),
                "outputs": dict(binding.outputs),
                "destination": repr(binding.destination),
                "effect": binding.effect,
                "reveals": binding.reveals,
                "labels": binding.labels,
                "state": set(binding.state),
                "unsafe_routes": binding.unsafe_routes,
            },
        )

    @property
    def args_names(self) -> list[str]:
        """The arguments that the model may give, in the schema's order."""
        hidden = self.binding.outputs
        return [name for name in self._json_schema.get("properties", {}) if name not in hidden]

    def freeze(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """What the tool's schema makes of the model's arguments: JSON, unset ones left out.

        Args:
            raw: arguments as the model wrote them; injected ones are left out by the caller.

        Raises:
            ValueError: off the schema, an extra argument, or a plain value that is a path, URL
                or base64; the message is safe to show to the model.
        """
        unknown = sorted(set(raw) - set(self.args_names))
        if unknown:
            raise ValueError(f"{self.name} has no argument {', '.join(map(repr, unknown))}")
        if self._model is None:
            frozen: dict[str, Any] = _jsonable(dict(raw))
            try:
                jsonschema.validate(frozen, _without(self.args_schema, ()))
            except jsonschema.ValidationError as error:
                raise ValueError(f"{self.name}: {error.json_path}: {error.message[:200]}") from None
        else:
            try:
                parsed = self._model.model_validate(dict(raw))
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                where = ".".join(map(str, first["loc"]))
                raise ValueError(f"{self.name}: {where}: {first['msg']}") from None
            frozen = _jsonable(parsed.model_dump(exclude_unset=True))
        for path in self.binding.plain:
            for value in values_at(frozen, path):
                self._require_plain(path, value)
        return frozen

    def fill(
        self,
        frozen: Mapping[str, Any],
        replace: Callable[[str, Any], Any],
        outputs: Mapping[str, str],
    ) -> dict[str, Any]:
        """The arguments the tool runs with: assets replaced, outputs set.

        Args:
            frozen: as `freeze` returned them.
            replace: given (argument path, asset id), returns what the tool gets.
            outputs: output path → file path in the call's scratch folder.
        """
        filled = copy.deepcopy(dict(frozen))
        for path in self.binding.assets:
            replace_at(filled, path, replace)
        filled.update(outputs)
        return filled

    def suffix(self, output: str) -> str:
        """The file name suffix of an output, e.g. `.png`."""
        known = self.binding.outputs[output]
        default = self._leaves[output].get("default")
        if not known and isinstance(default, str):
            known = os.path.splitext(default)[1]
        return known or (".mp4" if self.binding.stage is Stage.RENDER else ".png")

    def _require_declared(self, leaves: Mapping[str, Mapping[str, Any]]) -> None:
        declared = self.binding.declared
        twice = sorted({path for path in declared if declared.count(path) > 1})
        if twice:
            raise BindingError(f"{self.name}: {', '.join(twice)} is declared twice")
        missing = sorted(set(leaves) - set(declared))
        if missing:
            raise BindingError(
                f"{self.name}: nobody declared {', '.join(missing)}; say in its Binding whether it"
                " is an asset, a text, plain, an output or the destination"
            )
        unknown = sorted(set(declared) - set(leaves))
        if unknown:
            raise BindingError(
                f"{self.name} has no argument {', '.join(unknown)}; it has {', '.join(leaves)}"
            )
        for path in self.binding.outputs:
            if "." in path or "[" in path:
                raise BindingError(f"{self.name}.{path}: an output must be a top-level argument")
        for path in self.binding.plain:
            if leaves[path].get("format") in ("binary", "base64"):
                raise BindingError(f"{self.name}.{path}: bytes are no plain value; bind an asset")

    def _require_plain(self, path: str, value: Any) -> None:
        if not isinstance(value, str):
            return
        leaf = self._leaves[path]
        if "enum" in leaf or "const" in leaf:
            return
        if len(value) > leaf.get("maxLength", _MAX_PLAIN):
            raise ValueError(f"{self.name}.{path}: {len(value)} characters are too long")
        reason = looks_like_locator(value)
        if reason is not None:  # I3: a path, URL or host name the model wrote is never opened
            raise ValueError(f"{self.name}.{path}: {reason}; give an asset id where media belong")

    def _facing_schema(self) -> Any:
        original = self.binding.tool.args_schema
        if isinstance(original, dict):
            shown = _without(original, tuple(self.binding.outputs))
            return {**shown, "additionalProperties": False}
        if not (self.binding.assets or self.binding.outputs):
            return original
        schema = _model_of(self.binding.tool)
        fields: dict[str, Any] = {}
        for name, known in schema.model_fields.items():
            if name in self.binding.outputs:
                continue
            info = copy.copy(known)
            info.metadata = []
            kept: Any = known.annotation
            for item in known.metadata:  # bounds, and the marks of injected arguments
                kept = Annotated[kept, item]
            if name in self.binding.assets or f"{name}[]" in self.binding.assets:
                kept = str if name in self.binding.assets else list[str]
                kept = kept if known.is_required() or known.default is not None else kept | None
                info.annotation = kept
                info.description = f"Asset id. {known.description or ''}".strip()
            fields[name] = (kept, info)
        config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
        made: type[BaseModel] = create_model(schema.__name__, __config__=config, **fields)
        made.__doc__ = schema.__doc__
        return made

    def _argument_model(self) -> type[BaseModel] | None:
        if isinstance(self.args_schema, dict):
            return None
        facing = self.binding.tool.model_copy(update={"args_schema": self.args_schema})
        model = facing.tool_call_schema
        return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def draft(tool: BaseTool) -> str:
    """A Binding for a tool as Python source, guessed from its schema, for a person to correct.

    Args:
        tool: any LangChain tool with a schema.
    """
    schema = tool.tool_call_schema
    if not isinstance(schema, dict) and not issubclass(schema, BaseModel):
        raise BindingError(f"{tool.name}: its schema is pydantic v1; write it for pydantic 2")
    json_schema = schema if isinstance(schema, dict) else schema.model_json_schema()
    groups: dict[str, list[str]] = {"assets": [], "texts": [], "plain": [], "outputs": []}
    destination = ""
    for path, leaf in _leaves(json_schema, tool.name):
        name = path.rsplit(".", 1)[-1].removesuffix("[]").lower()
        if name in ("to", "destination", "channel", "account"):
            destination = f", destination=Arg({path!r})"
        elif name in ("file", "output", "out", "output_path", "output_file", "target"):
            groups["outputs"].append(path)
        elif leaf.get("type") == "string" and any(
            word in name for word in ("prompt", "caption", "text", "title", "message", "alt")
        ):
            groups["texts"].append(path)
        elif leaf.get("type") == "string" and "enum" not in leaf:
            groups["assets"].append(path)
        else:
            groups["plain"].append(path)
    words = f"{tool.name} {tool.description}".lower()
    stage = next(
        (stage for stage, hints in _STAGE_HINTS.items() if any(hint in words for hint in hints)),
        Stage.EDIT,
    )
    lists = "".join(f", {key}={paths!r}" for key, paths in groups.items() if paths)
    effect = ', effect="opaque"' if destination else ""
    return f'Binding({tool.name}, stage="{stage}"{lists}{destination}{effect})'


_STAGE_HINTS: Mapping[Stage, tuple[str, ...]] = {
    Stage.EXPORT: ("publish", "upload", "export", "post ", "share", "send"),
    Stage.QUEUE: ("queue", "schedule"),
    Stage.REVIEW: ("review", "inspect", "moderat", "quality"),
    Stage.GENERATE: ("generate", "create", "paint", "synthes"),
    Stage.RENDER: ("render", "transcode", "encode", "video", "thumbnail"),
}


def values_at(arguments: Mapping[str, Any], path: str) -> Iterator[Any]:
    """Every value an argument path names; none where an optional argument is absent or null."""
    found: list[Any] = [arguments]
    for step in path.split("."):
        name, depth = step.rstrip("[]"), step.count("[]")
        found = [item[name] for item in found if isinstance(item, Mapping) and name in item]
        for _ in range(depth):
            found = [inner for item in found if isinstance(item, list) for inner in item]
    yield from (value for value in found if value is not None)


def replace_at(
    arguments: dict[str, Any], path: str, replace: Callable[[str, Any], Any]
) -> None:
    """Replace, in place, every value an argument path names by `replace(path, value)`."""
    _replace_at(arguments, path.split("."), lambda value: replace(path, value))


def _replace_at(container: Any, steps: list[str], replace: Callable[[Any], Any]) -> None:
    name, depth = steps[0].rstrip("[]"), steps[0].count("[]")
    if not isinstance(container, dict) or container.get(name) is None:
        return
    if depth == 0 and len(steps) == 1:
        container[name] = replace(container[name])
        return
    items = [container[name]] if depth == 0 else container[name]
    for _ in range(depth - 1):
        items = [inner for item in items for inner in item]
    for index, item in enumerate(items):
        if len(steps) == 1:
            items[index] = replace(item)
        else:
            _replace_at(item, steps[1:], replace)


def _leaves(schema: Mapping[str, Any], tool: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    definitions = schema.get("$defs", schema.get("definitions", {}))

    def walk(node: Mapping[str, Any], path: str, depth: int) -> Iterator[tuple[str, Any]]:
        node = _resolve(node, definitions)
        where = f"{tool}.{path}"
        if depth > 8:
            raise BindingError(f"{where}: nested too deeply to be bound; flatten it")
        kinds = [_resolve(n, definitions) for n in node.get("anyOf", node.get("oneOf", ()))]
        kinds = [kind for kind in kinds if kind.get("type") != "null"]
        if len(kinds) == 1:
            yield from walk({**node, "anyOf": (), "oneOf": (), **kinds[0]}, path, depth + 1)
        elif kinds and all(_is_scalar(kind) for kind in kinds):
            yield path, {"type": "string"} if any("string" in str(k) for k in kinds) else node
        elif node.get("type") == "array" and "items" in node:
            yield from walk(node["items"], f"{path}[]", depth + 1)
        elif "properties" in node and not node.get("additionalProperties"):
            for name, child in node["properties"].items():
                yield from walk(child, f"{path}.{name}" if path else name, depth + 1)
        elif _is_scalar(node):
            yield path, node
        elif not path and node.get("type") == "object":
            return
        else:
            raise BindingError(
                f"{where}: an open shape ({node.get('type', 'any')}) can't be bound; give it a"
                " schema with named fields, or split the tool"
            )

    yield from walk(schema, "", 0)


def _resolve(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    for _ in range(8):
        reference = node.get("$ref")
        if reference is None and len(node.get("allOf", ())) == 1:
            node = {**node["allOf"][0], **{k: v for k, v in node.items() if k != "allOf"}}
            continue
        if reference is None:
            return node
        node = definitions.get(str(reference).rsplit("/", 1)[-1], {})
    return {}


def _is_scalar(node: Mapping[str, Any]) -> bool:
    return (
        node.get("type") in ("string", "integer", "number", "boolean")
        or "enum" in node
        or "const" in node
    )


def _without(schema: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    properties = {k: v for k, v in schema.get("properties", {}).items() if k not in names}
    required = [name for name in schema.get("required", ()) if name not in names]
    return {**schema, "properties": properties, "required": required}


def _model_of(tool: BaseTool) -> type[BaseModel]:
    schema = tool.get_input_schema()
    if not issubclass(schema, BaseModel):
        raise BindingError(f"{tool.name}: its schema is pydantic v1; write it for pydantic 2")
    return schema


def _injected(tool: BaseTool, argument_names: set[str]) -> frozenset[str]:
    """Parameters that LangGraph or LangChain fills in, never the model."""
    names: set[str] = set()
    if isinstance(tool.args_schema, type) and issubclass(tool.args_schema, BaseModel):
        names |= set(tool.args_schema.model_fields)
    for function in (getattr(tool, "func", None), getattr(tool, "coroutine", None),
                     tool._run, tool._arun):  # fmt: skip
        if function is not None:
            names |= set(inspect.signature(function).parameters)
    return frozenset(names - argument_names)


def _jsonable(value: Any) -> Any:
    """JSON data in which sets are sorted: pydantic's own dump orders them per process."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((_jsonable(item) for item in value), key=repr)
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, BaseModel):
        return _jsonable(value.model_dump(exclude_unset=True))
    return to_jsonable_python(value)


def same_tool(bound: Bound, tool: BaseTool) -> bool:
    """Whether a tool object is the one that was bound, or a copy with the same code."""
    original = bound.binding.tool
    if tool is original:
        return True
    code = [getattr(tool, "func", None), getattr(tool, "coroutine", None)]
    known = [getattr(original, "func", None), getattr(original, "coroutine", None)]
    return type(tool) is type(original) and any(known) and code == known

