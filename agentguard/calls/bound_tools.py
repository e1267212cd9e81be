"""The tools that a workspace knows: each with its Binding, checked against the configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

from langchain_core.tools import BaseTool

from agentguard.bindings.bound import Bound
from agentguard.bindings.compilation import Tool, compiled, tool_name
from agentguard.bindings.compiled_binding import Arg, CompiledBinding
from agentguard.bindings.declaration import declarations_of
from agentguard.bindings.problems import require_no_errors
from agentguard.bindings.same_tool import same_tool
from agentguard.calls.arguments import secret_in
from agentguard.calls.builtin_tools import OWN_NAMES, own_actions
from agentguard.config.workspace import Workspace
from agentguard.errors import BindingError
from agentguard.model import Audience, OutsideEffect, Stage, ToolAction
from agentguard.policy.policy_set import Policy, known_names

UNIQUE = "tool names are unique: give one of them another, Binding(..., name=...)"


class BoundTools:
    """The bound tools of a workspace.

    Args:
        workspace: names the destinations and classes that Bindings may name.
        policy: what has to fit every tool.

    Attributes:
        by_name: tool name → its Binding.
        sealed: a job was opened: each job of a guard has the same tools.
    """

    def __init__(self, workspace: Workspace, policy: Policy) -> None:
        self._workspace = workspace
        self._policy = policy
        self.by_name: dict[str, Bound] = {}
        self.sealed = False

    def bind(self, *tools: Tool) -> None:
        """Add tools.

        Raises:
            BindingError: a job was opened; all that is wrong with their declarations; a second tool
                of one name, a name of the guard's own tools, or an unknown destination or label.
            PolicyError: the policies do not fit the tools: one breaks the schema for a tool, or
                names what there is not. None of the tools is bound then.
        """
        if self.sealed and tools:
            names = ", ".join(map(tool_name, tools))
            raise BindingError(
                f"{names}: guard.bind() came after a job was opened, and each job of a guard has"
                " the same tools; bind before the first open_job() or rejoin_job(), where an MCP"
                " session or an agent as a tool can exist already"
            )
        errors: list[BindingError] = []
        added: dict[str, Bound] = {}
        for tool in tools:
            try:
                bound = self._checked(tool)
                if bound.name in OWN_NAMES:
                    raise BindingError(
                        f"{bound.name} is a tool of the guard itself; give yours another name"
                    )
                if bound.name in self.by_name or added.setdefault(bound.name, bound) is not bound:
                    raise BindingError(f"{bound.name} is bound twice; {UNIQUE}")
            except BindingError as error:
                errors.append(error)
        require_no_errors(errors)
        self._require_policy_fits(added.values())
        for name, bound in added.items():
            if self.by_name.setdefault(name, bound) is not bound:  # another thread came first
                raise BindingError(f"{name} is bound twice; {UNIQUE}")

    @cached_property
    def _own_actions(self) -> dict[str, ToolAction]:
        """The guard's own tools as policies see them: making them takes some milliseconds."""
        return {action.name: action for action in own_actions(self._workspace)}

    def _require_policy_fits(self, added: Iterable[Bound]) -> None:
        actions = dict(self._own_actions)
        actions |= {bound.name: bound.action for bound in (*list(self.by_name.values()), *added)}
        self._policy.require_fits(known_names(self._workspace, actions.values()))

    def bind_own(self, name: str, make: Callable[[], CompiledBinding]) -> Bound:
        """One of the guard's own tools, made and bound at its first use."""
        bound = self.by_name.get(name)
        if bound is None:  # whichever thread comes first binds it for all
            bound = self.by_name.setdefault(name, self._checked(make()))
        return bound

    def declared_as(self, declared: object) -> list[Bound]:
        """The tools whose functions bear this declaration; one function may be several tools."""
        return [
            bound
            for bound in list(self.by_name.values())  # other threads bind tools
            if any(each is declared for each in declarations_of(bound.binding.tool))
        ]

    def bound_for(self, tool: BaseTool) -> Bound:
        """The Binding of a tool object.

        Raises:
            BindingError: the tool is not bound, or another tool is bound under its name.
        """
        self.require_bound(tool)
        bound = self.by_name[tool.name]
        if not same_tool(bound.binding, tool):
            raise BindingError(
                f"another tool than this one is bound under the name {tool.name}: its class,"
                " function or state differs; give the graph or agent guard.tools(), or give this"
                " tool a name and a declaration of its own"
            )
        self._require_started(bound)
        return bound

    def require_bound(self, *tools: BaseTool) -> None:
        """Refuse tools that this guard does not know.

        Raises:
            BindingError: naming those that were declared and not handed over, or else those that
                nobody declared.
        """
        unknown = [tool for tool in tools if tool.name not in self.by_name]
        declared = sorted(tool.name for tool in unknown if declarations_of(tool))
        if declared:
            raise BindingError(
                f"{_are(declared)} declared, and this guard was opened without"
                f" {'it' if len(declared) == 1 else 'them'}: add to its tools,"
                f" Guard.from_config(..., tools=[..., {', '.join(declared)}])"
            )
        names = sorted(tool.name for tool in unknown)
        if names:
            raise BindingError(
                f"{_are(names)} not bound; declare a function with @media_tool, or add a Binding"
                " for a library's tool (`agentguard bind MODULE:TOOLS` drafts one; stage=None is"
                " for tools without media or effect), or take it out of this agent"
            )

    def _checked(self, tool: Tool) -> Bound:
        bound = compiled(tool)
        binding = bound.binding
        named = binding.destination
        places = [named] if isinstance(named, str) else [*binding.places]
        for place in places:
            if place not in self._workspace.destinations:
                raise BindingError(
                    f"{bound.name} goes to {place!r}, which is not configured; there are"
                    f" {', '.join(sorted(self._workspace.destinations)) or 'none'}"
                )
        _require_no_secret(bound)
        self._require_no_way_out(bound)
        self._require_hosts(bound)
        unknown = sorted(binding.labels - set(self._workspace.classes))
        if unknown:
            raise BindingError(f"{bound.name}: no class {', '.join(unknown)} is configured")
        return bound

    def _require_no_way_out(self, bound: Bound) -> None:
        """S28: only the export stage has an effect at a destination that is no vendor."""
        binding = bound.binding
        named = binding.destination
        known = self._workspace.destinations.get(named) if isinstance(named, str) else None
        vendor = known is not None and known.audience is Audience.VENDOR
        if binding.stage is Stage.EXPORT:
            if named is None:
                raise BindingError(
                    f"{bound.name} is bound to the export stage and names no destination; where"
                    ' does it send? Say to="...", or To() on an argument'
                )
        elif binding.stage is Stage.QUEUE:
            if binding.effect is not OutsideEffect.NONE:
                raise BindingError(
                    f"{bound.name}: a queue tool only marks what may be released; one that sends"
                    " belongs to the export stage"
                )
        elif named is not None and not vendor:
            raise BindingError(
                f"{bound.name} sends to {named} from the {binding.stage} stage; only the export"
                " stage may. If it converts and publishes at once, split it into two tools"
            )

    def _require_hosts(self, bound: Bound) -> None:
        """I3: a returned URL is fetched only from hosts that somebody configured."""
        named = self._workspace.destinations.get(str(bound.binding.destination))
        if bound.binding.urls and (named is None or not named.hosts):
            raise BindingError(
                f"{bound.name} returns URLs of media from {_place(bound)}, which"
                " lists no hosts; add the vendor's download hosts, such as"
                " hosts = ['cdn.vendor.example'], to that destination"
            )

    def _require_started(self, bound: Bound) -> None:
        """An operation's id comes from a tool that says where its result holds one."""
        for path, tools in bound.binding.operations.items():
            for name in tools:
                known = self.by_name.get(name)
                if known is None or known.binding.starts is None:
                    state = (
                        "is not bound" if known is None else "names no OperationId() in its result"
                    )
                    raise BindingError(
                        f"{bound.name}.{path} takes an operation of {name}, which {state}"
                    )


def _are(names: Sequence[str]) -> str:
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"


def _require_no_secret(bound: Bound) -> None:
    """S7: what a developer fixed, or gave as a default, is recorded and shown with each call."""
    for path, value in bound.constants():
        try:
            found = secret_in(value)
        except ValueError as error:
            raise BindingError(f"{bound.name}.{path}: {error}") from error
        if found is not None:
            raise BindingError(
                f"{bound.name}.{path}: its fixed value or default holds a secret ({found}), which"
                " each call would repeat in its record; read it from the environment in the tool"
            )


def _place(bound: Bound) -> str:
    """Where a tool sends, as a sentence names it."""
    named = bound.binding.destination
    return f"what its argument {named.path} names" if isinstance(named, Arg) else repr(named)
