"""The declaration of what one plain tool's arguments mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from langchain_core.tools import BaseTool
from langchain_core.tools import tool as make_tool

from agentguard.bindings.known_tool import KnownTool
from agentguard.bindings.mcp import McpTool, origin, require_place
from agentguard.bindings.probe import Probe, require_probe
from agentguard.bindings.reach import reach_of
from agentguard.bindings.result_paths import Located, require_located
from agentguard.bindings.returned import ReturnedMedia
from agentguard.bindings.tool_class import require_upstream_class
from agentguard.errors import BindingError
from agentguard.model import GENERATED, OutsideEffect, Stage

Form = Literal["path", "bytes", "data-url", "base64"]
SUFFIX = re.compile(r"(?:\.[A-Za-z0-9]{1,10})?")

_FORMS = ("path", "bytes", "data-url", "base64")
_OUTWARD = (Stage.QUEUE, Stage.EXPORT)
SPLIT = (
    "A tool that converts and publishes at once sends out what nobody reviewed or approved: split"
    " it into one that renders to a file, and let export_asset (`guard.export_tool()`) send that"
)


@dataclass(frozen=True, slots=True)
class Arg:
    """In a CompiledBinding: an argument, not a constant, names the Destination."""

    path: str


@dataclass(frozen=True, kw_only=True, init=False)
class CompiledBinding:
    """What a declaration compiles to: the meaning of one tool's arguments, by lists of paths.

    Internal: developers write `media_tool` and `Binding` (declaration.py), and compilation.py makes
    one of these of each. Only the guard's own tools are written in this form.

    Args:
        tool: a LangChain tool, or a function that becomes one.
        stage: the stage it belongs to; None for a tool without media or effect, such as notes,
            plans and a deep agent's own files and sub-agents.
        assets: argument paths that hold media: the model gives asset ids, the tool gets private
            copies as `path` (default), `bytes`, `data-url` or `base64`: `["source"]`,
            `{"img": "bytes"}`.
        texts: argument paths of prompts and captions: scanned, labelled, logged redacted.
        plain: argument paths of numbers, booleans, enums and bounded strings.
        outputs: arguments that the guard fills with fresh paths, hidden from the model:
            `["file"]`, or with the file name's suffix, `{"file": ".mp4"}`. Without one it is that
            of the argument's default, else `.mp4` for the render stage and `.png` for others.
        destination: where the call sends its media and texts: a Destination id, or `Arg(path)` of
            the argument that names one. None: nothing leaves the workspace.
        effect: what is known of the outside effect after a crash; needed with a destination that
            is not a vendor.
        probe: asks, after a crash, whether what a call began is there; with `idempotent` and
            `probeable`. A function that takes an `Attempt`: True: it is there; False: it is not,
            and can't come any more; None or an error: can't tell. Give it a timeout. Only
            `reconcile` runs it.
        reveals: the tool shows or describes its media to the model.
        reviews: the asset argument that a review tool's findings are about; needed where it takes
            several.
        labels: labels every output gets; generators default to `generated`.
        state: state keys that the tool's `Command` may write, besides `messages`.
        interrupts: the tool may pause itself before it did anything; not with a destination.
        unsafe_routes: let the tool's `Command` route the graph and write any state (I2 is then
            the tool author's to keep).
        starts: where the result of a tool that starts long work holds the operation's id: a path
            in its data (`request_id`, `data.id`), or a pattern with one group over its text.
        operations: arguments that take such an id → the tool, or tools, that started it:
            `{"request_id": "submit_video"}`. An output may then be missing: it is not there yet.
        urls: where the result holds URLs of media, as in `starts`. Each is fetched once, from the
            hosts that the Destination lists; the model does not see it.
        remembers: the server behind the tool keeps what it was sent, so each output gets the class
            of everything this job sent to its Destination and by this tool. Names of other tools
            that share its memory: `["open_canvas"]`.
        mcp: for a tool of an MCP server, and required there: which tool this is. Any object that
            langchain-mcp-adapters or langchain.mcp makes of that tool is then taken, and no other.
        known: for a library's tool that is made anew for each agent; `agentguard.langgraph.known`
            has Bindings that say it.
        local: says that nothing the tool is given leaves this machine, where the guard can't tell.
            A tool is known to be local if its class, its code and all objects that it holds
            (closures, attributes, the globals that its code names) are yours, the standard
            library's or of a package that sends nothing. Any other, a tool of an adapter library
            or one that holds a client, a session or a socket, needs a `destination`, or this. What
            a body imports and calls by name, such as `requests.post`, can't be seen.
        fixed: arguments that always have the developer's value.
        places: Destination id → what the argument that names the destination takes for it.
        keys: arguments that take the idempotency key of the call.
        patterns: plain arguments → the regular expression that a string must match.
        results: where the result holds media.
        findings: where the result of a review holds its findings, if not at `artifact.findings`.

    Raises:
        BindingError: the declaration contradicts itself, the tool's class overrides what LangChain
            runs before `_run`, or it may reach out and the declaration does not say where to.
    """

    tool: BaseTool
    stage: Stage | None
    assets: Mapping[str, Form]
    texts: tuple[str, ...]
    plain: tuple[str, ...]
    outputs: Mapping[str, str]
    destination: str | Arg | None
    effect: OutsideEffect
    probe: Probe | None = field(repr=False)
    reveals: bool
    reviews: str | None
    labels: frozenset[str]
    state: tuple[str, ...]
    interrupts: bool
    unsafe_routes: bool
    starts: Located | None
    operations: Mapping[str, tuple[str, ...]]
    urls: tuple[Located, ...]
    remembers: tuple[str, ...]
    mcp: McpTool | None
    known: KnownTool | None = field(repr=False)
    local: bool
    fixed: Mapping[str, Any]
    places: Mapping[str, str]
    keys: tuple[str, ...]
    patterns: Mapping[str, str]
    results: tuple[ReturnedMedia, ...]
    findings: str | None

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
        probe: Probe | None = None,
        reveals: bool = False,
        reviews: str | None = None,
        labels: Iterable[str] | None = None,
        state: Sequence[str] = (),
        interrupts: bool = False,
        unsafe_routes: bool = False,
        starts: Located | None = None,
        operations: Mapping[str, str | Sequence[str]] | None = None,
        urls: Sequence[Located] = (),
        remembers: bool | Sequence[str] = False,
        mcp: McpTool | None = None,
        known: KnownTool | None = None,
        local: bool = False,
        fixed: Mapping[str, Any] | None = None,
        places: Mapping[str, str] | None = None,
        keys: Sequence[str] = (),
        patterns: Mapping[str, str] | None = None,
        results: Sequence[ReturnedMedia] = (),
        findings: str | None = None,
    ) -> None:
        made = _tool_of(tool)
        name = made.name
        for argument, value in (("assets", assets), ("texts", texts), ("plain", plain),
                                ("outputs", outputs), ("state", state), ("urls", urls),
                                ("remembers", remembers)):  # fmt: skip
            if isinstance(value, str):
                raise BindingError(f"{name}: {argument}={value!r} is one string; write [{value!r}]")
        for given, kind in ((stage, Stage), (effect, OutsideEffect)):
            if given is not None and given not in list(kind):
                raise BindingError(f"{name}: got {given!r}, expected one of {', '.join(kind)}")
        known_stage = None if stage is None else Stage(stage)
        if labels is None:
            labels = {GENERATED} if known_stage is Stage.GENERATE else ()
        forms = dict(assets) if isinstance(assets, Mapping) else dict.fromkeys(assets, "path")
        if known_stage is Stage.REVIEW and reviews is None and len(forms) == 1:
            (reviews,) = forms
        paths = dict(outputs) if isinstance(outputs, Mapping) else dict.fromkeys(outputs, "")
        started_by = {path: (tools,) if isinstance(tools, str) else tuple(tools)
                      for path, tools in (operations or {}).items()}  # fmt: skip
        others = () if isinstance(remembers, bool) else tuple(remembers)
        values: dict[str, Any] = {
            "tool": made,
            "stage": known_stage,
            "assets": MappingProxyType(forms),
            "texts": tuple(texts),
            "plain": tuple(plain),
            "outputs": MappingProxyType(paths),
            "destination": destination,
            "effect": OutsideEffect(effect),
            "probe": probe,
            "reveals": reveals,
            "reviews": reviews,
            "labels": frozenset(labels),
            "state": tuple(state),
            "interrupts": interrupts,
            "unsafe_routes": unsafe_routes,
            "starts": starts,
            "operations": MappingProxyType(started_by),
            "urls": tuple(urls),
            "remembers": tuple(dict.fromkeys((name, *others))) if remembers else (),
            "mcp": mcp,
            "known": known,
            "local": local,
            "fixed": MappingProxyType(dict(fixed or {})),
            "places": MappingProxyType(dict(places or {})),
            "keys": tuple(keys),
            "patterns": MappingProxyType(dict(patterns or {})),
            "results": tuple(results),
            "findings": findings,
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)
        self._require_forms()
        self._require_stage()
        self._require_no_release()
        self._require_located()
        require_upstream_class(made)
        _require_place(made, mcp, sends=bool(forms or texts), destination=destination, local=local)
        _require_once(made, interrupts)
        self._require_effect()

    def _require_forms(self) -> None:
        """Media goes in and out in a form that there is."""
        name = self.tool.name
        for path, form in self.assets.items():
            if form not in _FORMS:
                raise BindingError(f"{name}.{path}: got form {form!r}, expected one of {_FORMS}")
        for path, suffix in self.outputs.items():
            if SUFFIX.fullmatch(suffix) is None:
                raise BindingError(f"{name}.{path}: got suffix {suffix!r}, expected one like .png")

    def _require_stage(self) -> None:
        """The stage allows what the tool does, and needs."""
        name = self.tool.name
        if self.stage is None and (
            self.assets or self.outputs or self.results or isinstance(self.destination, Arg)
            or self.effect is not OutsideEffect.NONE
        ):  # fmt: skip
            raise BindingError(
                f"{name}: stage=None is for tools without media or effect; name its stage"
            )
        if self.stage is Stage.EXPORT and self.effect is OutsideEffect.NONE:
            raise BindingError(
                f"{name}: an export has an effect outside; say effect=Opaque(), Probeable(probe) or"
                " Idempotent(), whichever is known after a crash"
            )
        reviewed = self.stage is Stage.REVIEW and bool(self.assets)
        if (reviewed and self.reviews is None) or (
            self.reviews is not None and not (reviewed and self.reviews in self.assets)
        ):
            raise BindingError(
                f"{name}: say reviews=, the one asset argument its findings are about: one of"
                f" {', '.join(self.assets) or 'none, for it takes no asset'}"
            )

    def _require_no_release(self) -> None:
        """A tool that sends out makes nothing: what left would not be what was approved (I7)."""
        name = self.tool.name
        claims = (("OperationId()", self.starts is not None or self.operations),
                  ('Asset("url")', self.urls), ("remembers=", self.remembers))  # fmt: skip
        long = [word for word, said in claims if said]
        if long and (self.stage is None or self.stage in _OUTWARD):
            raise BindingError(
                f"{name}: {', '.join(long)} is for tools that make or review media; the"
                f" {self.stage or 'None'} stage has none."
                f" {SPLIT if self.outputs or self.urls else ''}"
            )
        if self.stage in _OUTWARD and self.outputs:
            raise BindingError(
                f"{name}: the {self.stage} stage makes no media, and {', '.join(self.outputs)} is"
                f" an output. {SPLIT}"
            )

    def _require_located(self) -> None:
        """What stands in a result can be found there, and fetched from somewhere."""
        name = self.tool.name
        for located in (*self.urls, *((self.starts,) if self.starts is not None else ())):
            require_located(name, located)
        if self.urls and not isinstance(self.destination, str):
            raise BindingError(
                f'{name}: Asset("url") needs a fixed place, to="...", whose hosts= in the'
                " configuration say where media may be fetched from"
            )
        for path, tools in self.operations.items():
            if not tools:
                raise BindingError(f"{name}.{path}: name the tool that starts the operation")

    def _require_effect(self) -> None:
        """What is known after a crash fits the effect, and a tool with one does not pause (I8)."""
        name = self.tool.name
        if self.probe is not None:
            require_probe(name, self.probe, self.effect)
        sent = self.destination is not None and self.stage is not Stage.QUEUE
        if self.interrupts and (sent or self.effect is not OutsideEffect.NONE):
            raise BindingError(  # it would be called again with the answer
                f"{name}: a tool that sends something, or has an outside effect, must not pause"
                " itself; ask before the call, or answer an MCP server's questions with an"
                " elicitation handler of its client"
            )

    @property
    def declared(self) -> tuple[str, ...]:
        """Every argument path that this Binding gives a meaning to."""
        to = (self.destination.path,) if isinstance(self.destination, Arg) else ()
        shown = (*self.assets, *self.texts, *self.plain, *self.operations, *to)
        return (*shown, *self.hidden)

    @property
    def hidden(self) -> tuple[str, ...]:
        """Top-level arguments that the guard fills in, and the model does not see."""
        return (*self.outputs, *self.fixed, *self.keys)

    @property
    def is_harmless(self) -> bool:
        """Whether it handles no media and sends nothing."""
        return self.stage is None and self.destination is None

    @property
    def is_long(self) -> bool:
        """Whether it starts, or asks for, work that goes on at a vendor after the call."""
        return self.starts is not None or bool(self.operations)


def _tool_of(tool: BaseTool | Callable[..., Any]) -> BaseTool:
    if isinstance(tool, BaseTool):
        return tool
    try:
        return make_tool(tool)
    except (TypeError, ValueError) as error:  # pydantic's errors among them
        raise BindingError(f"{getattr(tool, '__name__', tool)}: no tool: {error}") from error


def _require_place(
    tool: BaseTool,
    mcp: McpTool | None,
    *,
    sends: bool,
    destination: str | Arg | None,
    local: bool,
) -> None:
    """A tool that may reach out says where to; one of an MCP server says what it is pinned to."""
    if not isinstance(local, bool):
        raise BindingError(
            f"{tool.name}: got local={local!r}, expected True, if nothing that it is given leaves"
            ' this machine; else leave it out, and say to="..."'
        )
    if local and destination is not None:
        raise BindingError(
            f"{tool.name}: local=True says that nothing leaves this machine, and to= or To() where"
            " it goes; keep the one that is true"
        )
    if mcp is not None:
        mcp.require(tool)
    came = origin(tool)
    if came is None:
        reached = None if local or destination is not None else reach_of(tool)
        if reached is not None:
            raise BindingError(
                f"{tool.name}: it has {reached}, so what it is given may leave this machine; say"
                ' where to, to="...", a configured vendor, or to=None if nothing leaves'
            )
        return
    if mcp is None:
        raise BindingError(
            f"{tool.name} is {came.name!r} of the MCP server {came.server!r}, which may change it"
            " at any time; pin what you read: mcp=McpTool(server=..., name=..., schema=...)"
            " (`agentguard bind MODULE:TOOLS` drafts it)"
        )
    require_place(tool, sends=sends, placed=destination is not None, local=local)


def _require_once(tool: BaseTool, interrupts: bool) -> None:
    """I8: a server's question must not send the call to it again."""
    came = origin(tool) if interrupts else None
    if came is not None and came.remote:
        raise BindingError(
            f"{tool.name}: interrupts=True would send the call to the MCP server {came.server!r}"
            " again with each answer; answer its questions with an elicitation handler of the"
            " client"
        )
