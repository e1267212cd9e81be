"""From a declaration to the one form that the guard works with.

Every problem of a tool is found before any is told, and each sentence names the way out. What
nobody placed is refused: an argument that the guard does not understand is one it can't judge.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from langchain_core.tools import BaseTool
from langchain_core.tools import tool as make_tool

from agentguard.bindings.argument_schema import Shape
from agentguard.bindings.bound import Bound
from agentguard.bindings.compiled_binding import Arg, CompiledBinding
from agentguard.bindings.declaration import (
    UNSAID,
    Binding,
    Declaration,
    declaration_of,
    declarations_of,
    name_of,
    write_hints,
)
from agentguard.bindings.effects import KINDS, probe_of
from agentguard.bindings.inference import (
    ArgumentForm,
    argument_form,
    plain_arguments,
    result_form,
)
from agentguard.bindings.mcp import origin
from agentguard.bindings.model_schema import json_schema
from agentguard.bindings.placement import (
    ResultRole,
    argument_roles,
    result_roles,
    unresolved_hints,
    variadic,
)
from agentguard.bindings.problems import Problems
from agentguard.bindings.reach import reach_of, runs_graph
from agentguard.bindings.result_paths import Located, require_located
from agentguard.bindings.returned import ReturnedMedia
from agentguard.bindings.roles import (
    ARGUMENT_FORMS,
    RESULT_FORMS,
    Asset,
    Findings,
    Fixed,
    IdempotencyKey,
    OperationId,
    Output,
    Plain,
    Role,
    Text,
    To,
)
from agentguard.errors import BindingError
from agentguard.model import OutsideEffect, Stage

Tool = Binding | CompiledBinding | BaseTool | Callable[..., Any]
"""What a guard is opened with: a declared function or tool, or a Binding."""

_WHOLE = re.compile(r"\A\s*(\S+)\s*\Z")
_MAKES = (Stage.GENERATE, Stage.EDIT, Stage.RENDER)
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_FINDINGS = "artifact.findings"


def tool_name(tool: Tool) -> str:
    """What a guard calls a tool: the name of its declaration, or else its own."""
    if isinstance(tool, CompiledBinding):
        return name_of(tool.tool)
    if isinstance(tool, Binding):
        return tool.declaration.name or name_of(tool.tool)
    declared = declarations_of(tool)
    return (declared[0].name if declared else None) or name_of(tool)


def compiled(thing: Tool) -> Bound:
    """A declared tool, compared with its schema.

    Raises:
        BindingError: with all that is wrong with its declaration.
    """
    if isinstance(thing, CompiledBinding):  # of the guard's own tools
        return Bound(thing)
    if isinstance(thing, Binding):
        declaration, tool = thing.declaration, thing.tool
    else:
        declaration, tool = declaration_of(thing), thing
    problems = Problems(declaration.name or name_of(tool))
    for sentence in unresolved_hints(tool):
        problems.add(sentence)
    problems.require_none()  # without its hints nothing can be said of its arguments
    made = _tool(tool, declaration, problems)
    fields = _Compilation(made, declaration, problems).fields()
    problems.require_none()
    return Bound(CompiledBinding(made, **fields))


class _Compilation:
    """One declaration, on its way.

    Args:
        tool: the tool object.
        problems: what is wrong, as far as it was looked at.
    """

    def __init__(self, tool: BaseTool, declaration: Declaration, problems: Problems) -> None:
        self.tool = tool
        self.said = declaration
        self.problems = problems
        self.found: dict[str, Any] = {}

    def fields(self) -> dict[str, Any]:
        """The fields of the compiled form, as far as there is no problem."""
        said, problems = self.said, self.problems
        stage = _stage(said.stage, problems)
        shape, unfit = _shape(self.tool, problems)
        roles: dict[str, Role] = {}
        if shape is not None:
            roles = argument_roles(self.tool, shape, unfit, said.args, problems)
            rest = {path: leaf for path, leaf in shape.leaves.items() if path not in roles}
            inferred = plain_arguments(rest, stage, problems)
            order = {path: number for number, path in enumerate(shape.leaves)}
            for path, role in sorted(roles.items(), key=lambda each: order[each[0]]):
                self._argument(path, role, shape)
            self._add("plain", *inferred)
        results = result_roles(self.tool, said.result, problems)
        for where, placed in results.items():
            self._result(where, placed, stage)
        makes = any(isinstance(each.role, (Asset, OperationId)) for each in results.values())
        if stage in _MAKES and not (makes or self.found.get("outputs") or shape is None):
            problems.add(
                f"the {stage} stage makes media, and nothing says where it is: annotate the result,"
                " -> Annotated[str, Asset()], or add an Output() argument"
            )
        local = self._place(stage, roles)
        effect, probe = self._effect(stage, roles)
        return {
            **self.found,
            "stage": stage,
            "effect": effect,
            "probe": probe,
            "labels": said.labels,
            "reveals": said.reveals,
            "reviews": said.reviews,
            "remembers": said.remembers,
            "state": said.state,
            "interrupts": said.interrupts or self._asks_inside(stage),
            "unsafe_routes": said.unsafe_routes,
            "mcp": said.mcp,
            "known": said.known,
            "local": local,
        }

    def _asks_inside(self, stage: Stage | None) -> bool:
        """Whether a tool without stage or place runs an agent, whose questions reach it."""
        if stage is not None or "destination" in self.found or self.said.known is not None:
            return False
        return origin(self.tool) is None and runs_graph(self.tool)

    def _add(self, field: str, *paths: str) -> None:
        self.found[field] = (*self.found.get(field, ()), *paths)

    def _set(self, field: str, path: str, value: Any) -> None:
        self.found[field] = {**self.found.get(field, {}), path: value}

    def _argument(self, path: str, role: Role, shape: Shape) -> None:
        problems = self.problems
        match role:
            case Asset(form=form, folder=folder):
                if str(form) == "folder":
                    problems.add(
                        "a folder names no assets; take list[Picture], and copy them into one", path
                    )
                elif form is not None and form not in ARGUMENT_FORMS:
                    known = ", ".join(map(repr, ARGUMENT_FORMS))
                    problems.add(f"got Asset({form!r}), expected one of {known}", path)
                elif folder is not None:
                    problems.add("Asset(folder=...) is for results", path)
                elif form is None and _is_remote(self.tool):
                    problems.add(
                        'an MCP server gets no files of this machine; say Asset("base64") or'
                        ' Asset("data-url")',
                        path,
                    )
                else:
                    self._set("assets", path, form or argument_form(shape.leaves[path]))
            case Text():
                self._add("texts", path)
            case Plain(pattern=pattern):
                self._add("plain", path)
                if pattern is not None and _is_pattern(pattern, path, problems):
                    self._set("patterns", path, pattern)
            case Output(suffix=suffix):
                self._set("outputs", path, suffix)
            case To(pairs=pairs):
                if isinstance(self.found.get("destination"), Arg):
                    problems.add("one call goes to one place; keep one To()", path)
                self.found["destination"] = Arg(path)
                if pairs:
                    self.found["places"] = dict(pairs)
            case Fixed(value=value):
                self._set("fixed", path, value)
            case OperationId(tools=tools):
                if not tools:
                    problems.add('name the tool that starts it: OperationId("submit")', path)
                self._set("operations", path, tools)
            case IdempotencyKey():
                self._add("keys", path)
            case _:
                problems.add(f"{role} is for results", path)

    def _result(self, where: Located, placed: ResultRole, stage: Stage | None) -> None:
        problems = self.problems
        role, kind, optional = placed
        known = where if isinstance(where, str) else f"/{where.pattern}/"
        if isinstance(where, str) and "[0]" in where:
            problems.add(f"result[{where!r}]: write [] for each item of a list, not [0]")
            return
        if where != "" and where != "[]":
            try:
                require_located(problems.tool, where)
            except BindingError as error:
                problems.add_error(error)
                return
        match role:
            case Asset(form="url"):
                self._add_located("urls", where)
            case Asset(form="blocks"):
                pass  # they are recognised wherever they stand
            case Asset(form=form, folder=folder):
                form = form or result_form(kind)
                if form is None or form not in RESULT_FORMS:
                    expected = ", ".join(map(repr, RESULT_FORMS))
                    got = f"got Asset({form!r}), " if form is not None else ""
                    problems.add(f"{got}say what its result holds: one of {expected}", known)
                elif not isinstance(where, str):
                    problems.add("a pattern finds the ids and URLs in a text only", known)
                elif folder is not None and form != "path":
                    problems.add("Asset(folder=...) is for paths", known)
                else:
                    kept = None if folder is None else str(folder)
                    media = ReturnedMedia(
                        where=where,
                        form=cast(ArgumentForm, form),
                        folder=kept,
                        optional=optional,
                        listed=kind is not None and "[]" in where,
                    )
                    self.found["results"] = (*self.found.get("results", ()), media)
            case OperationId():
                if "starts" in self.found:
                    problems.add("a result names its operation in one place", known)
                self.found["starts"] = _located(where)
            case Findings():
                if stage is not Stage.REVIEW:
                    problems.add("Findings() are what a tool of the review stage returns", known)
                elif not isinstance(where, str) or not where:
                    problems.add(
                        "say where its result holds the findings: {'artifact.findings': Findings()}"
                    )
                elif where != _FINDINGS:
                    self.found["findings"] = where
            case _:
                problems.add(f"{role} is for arguments", known)

    def _add_located(self, field: str, where: Located) -> None:
        self.found[field] = (*self.found.get(field, ()), _located(where))

    def _place(self, stage: Stage | None, roles: Mapping[str, Role]) -> bool:
        """Where the call sends, and whether nothing leaves this machine."""
        said, problems = self.said, self.problems
        named = any(isinstance(role, To) for role in roles.values())
        if said.to is UNSAID:
            if stage is Stage.GENERATE and not named and not said.local:
                problems.add(
                    'say where its words and media go: to="...", a configured vendor, or to=None'
                    " if nothing leaves this machine"
                )
            elif stage is Stage.EXPORT and not named:
                problems.add('say where it sends: to="...", or To() on the argument that names it')
            return said.local
        if said.to is None:
            if named:
                problems.add("to=None says that nothing leaves, and To() where it goes; keep one")
            if stage is Stage.EXPORT:
                problems.add('an export sends something; say where: to="...", or To()')
            came = origin(self.tool)
            unsure = came.remote is None if came is not None else reach_of(self.tool) is not None
            return said.local or (unsure and not named)
        if named:
            problems.add(f"to={said.to!r} names a fixed place, and To() an argument; keep one")
        elif not isinstance(said.to, str) or not said.to:
            problems.add(f"got to={said.to!r}, expected the id of a configured destination")
        else:
            self.found["destination"] = said.to
        return said.local

    def _effect(self, stage: Stage | None, roles: Mapping[str, Role]) -> tuple[OutsideEffect, Any]:
        effect = self.said.effect
        if effect is None:
            if any(isinstance(role, IdempotencyKey) for role in roles.values()):
                return OutsideEffect.IDEMPOTENT, None
            return (OutsideEffect.OPAQUE if stage is Stage.EXPORT else OutsideEffect.NONE), None
        kind = KINDS.get(type(effect))
        if kind is None:
            self.problems.add(
                f"got effect={effect!r:.80}, expected Opaque(), Probeable(probe) or Idempotent()"
            )
            return OutsideEffect.NONE, None
        return kind, probe_of(effect)


def _tool(tool: BaseTool | Callable[..., Any], said: Declaration, problems: Problems) -> BaseTool:
    if not isinstance(tool, BaseTool):
        write_hints(tool)
        try:
            tool = make_tool(tool)
        except Exception as error:  # pydantic and LangChain have many ways to refuse a function
            words = str(error).splitlines()[0] if str(error) else type(error).__name__
            if "docstring" in words:
                words = "write a docstring, which is what the model reads of it"
            problems.add(words)
            problems.require_none()
            raise
    if said.name is None:
        return tool
    if _NAME.fullmatch(said.name) is None:
        problems.add(f"got name={said.name!r:.80}, expected letters, digits, _ and -")
        problems.require_none()
    return tool.model_copy(update={"name": said.name})


def _stage(said: object, problems: Problems) -> Stage | None:
    if said is None:
        return None
    if said in list(Stage):
        return Stage(str(said))
    close = difflib.get_close_matches(str(said), list(Stage), n=1)
    hint = f"; did you mean {str(close[0])!r}?" if close else ""
    problems.add(f"stage={said!r}: expected {', '.join(Stage)} or None{hint}")
    return None


def _shape(tool: BaseTool, problems: Problems) -> tuple[Shape | None, frozenset[str]]:
    """The shape of the arguments that can be declared, and the names of the others."""
    unfit = set(variadic(tool))
    for name in unfit:
        problems.add("**kwargs can't be judged; spell the fields out, or wrap the tool", name)
    try:
        schema = json_schema(tool)
    except BindingError as error:
        problems.add_error(error)
        return None, frozenset(unfit)
    try:
        return Shape(schema, problems.tool), frozenset(unfit)
    except BindingError as error:
        whole = error
    known = schema.get("properties", {})
    for name in [each for each in known if each not in unfit]:
        try:
            Shape({**schema, "properties": {name: known[name]}}, problems.tool)
        except BindingError as error:
            unfit.add(name)
            problems.add_error(error)
    if not unfit:
        problems.add_error(whole)
        return None, frozenset()
    fit = {name: part for name, part in known.items() if name not in unfit}
    return Shape({**schema, "properties": fit}, problems.tool), frozenset(unfit)


def _is_remote(tool: BaseTool) -> bool:
    try:
        came = origin(tool)
    except BindingError:  # told when the tool is compiled
        return False
    return came is not None and came.remote is not False


def _is_pattern(pattern: str, path: str, problems: Problems) -> bool:
    try:
        re.compile(pattern)
    except re.error as error:
        problems.add(f"got Plain({pattern!r:.80}), which is no regular expression: {error}", path)
        return False
    return True


def _located(where: Located) -> Located:
    return _WHOLE if where in ("", "content") else where
