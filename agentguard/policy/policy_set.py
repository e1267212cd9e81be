"""Cedar policies: loading, refusing bad ones, asking.

What Cedar sees is built by `cedar_input` from Request and Facts, digests stay out of it, and
`evaluate` puts the question.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from agentguard.canonical import digest
from agentguard.config.workspace import Workspace
from agentguard.errors import PolicyError
from agentguard.model import Facts, Request, Stage, ToolAction, any_tool_of
from agentguard.policy.analysis import Rule, rules_of
from agentguard.policy.cedar_input import FIRST_TIME, LAST_TIME, question
from agentguard.policy.evaluate import Evaluation, ToolPolicies, erred
from agentguard.policy.lint import Known, unknown_names
from agentguard.policy.tool_types import attributes_of

_SHIPPED = "agentguard/policy/default/"


class Policy:
    """A set of policies that passed every test of `load`; it never changes.

    Attributes:
        digest: names the version: all policy text and the default schema. What tools are bound is
            not in it: workers with other tools have the same policy.
        rules: the policies by id.
        groups: the groups that some rule wants an approver to have answered as.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        """Take policies from memory.

        Args:
            texts: Cedar text by the name of its file.

        Raises:
            PolicyError: see `load`.
        """
        self._base = default_schema()
        self.rules: Mapping[str, Rule] = rules_of(texts)
        if not self.rules:
            raise PolicyError(
                f"got no policy in {', '.join(texts) or 'no file'}, expected at least one; "
                "an empty set would only deny"
            )
        self.digest = digest("agentguard/policy/v2", [self._base, *sorted(texts.values())])
        self.groups = frozenset().union(*(rule.groups for rule in self.rules.values()))
        self._of_tools: dict[str, ToolPolicies] = {}
        for stage in (*Stage, None):  # each stage has a tool, so that its policies are validated
            self.of_tool(any_tool_of(stage))

    @classmethod
    def load(cls, extra: Sequence[Path] = (), *, replace: bool = False) -> Policy:
        """The default policy and what the workspace adds to it.

        Args:
            extra: `.cedar` files of the workspace, and folders of them, without subfolders.
            replace: each takes the place of the default file of its name (`export.cedar`);
                otherwise it is added, and a policy id that occurs twice is refused.

        Raises:
            PolicyError: a file can't be read or parsed, or would be passed over in its folder (a
                subfolder, a name such as `a.CEDAR`), a policy breaks the schema, has no `@id`
                or another one's; the message names file, line and reason.
        """
        texts = {_SHIPPED + entry.name: entry.read_text("utf-8") for entry in _defaults()}
        for path in (file for named in extra for file in _files(named)):
            if str(path) in texts:
                raise PolicyError(f"{path}: named twice; name it once")
            if replace and texts.pop(_SHIPPED + path.name, None) is None:
                raise PolicyError(
                    f"{path}: replaces no default file, expected one of "
                    f"{', '.join(entry.name for entry in _defaults())}; or add it instead"
                )
            try:
                texts[str(path)] = path.read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise PolicyError(f"{path}: can't be read ({error}); name a UTF-8 file") from error
        return cls(texts)

    def of_tool(self, action: ToolAction) -> ToolPolicies:
        """The policies that can apply to a tool, made when it is first asked for.

        Raises:
            PolicyError: one of them breaks the schema for this tool.
        """
        found = self._of_tools.get(action.text)
        if found is None:
            found = self._of_tools.setdefault(
                action.text, ToolPolicies(action, self.rules, self._base)
            )
        return found

    def require_fits(self, known: Known) -> None:
        """Compare the policies with what they may name.

        Raises:
            PolicyError: every policy that breaks the schema for a tool, or names an action,
                attribute, argument, choice, agent, destination or group that there is not: one line
                each.
        """
        wrong = []
        for tool in known.tools:
            try:
                self.of_tool(tool)
            except PolicyError as error:
                wrong.append(str(error))
        attributes = attributes_of(self._base)
        for rule in self.rules.values():
            names = known
            if rule.place.startswith(_SHIPPED):  # they are for workspaces without such a group, too
                names = dataclasses.replace(known, groups=rule.groups)
            wrong += [
                f"{rule.place}: policy {rule.id}: {sentence}"
                for sentence in unknown_names(rule, names, attributes)
            ]
        if wrong:
            raise PolicyError("\n".join(wrong))

    def evaluate(
        self, request: Request, facts: Facts, now: int, approvals: int, groups: frozenset[str]
    ) -> Evaluation:
        """Ask Cedar about every asset of the Request.

        Args:
            approvals: distinct eligible people who approved.
            groups: what they answered as.
            facts, now: see `asking`.
        """
        return self.asking(request, facts, now)(approvals, groups)

    def asking(
        self, request: Request, facts: Facts, now: int
    ) -> Callable[[int, frozenset[str]], Evaluation]:
        """One Request as a question to Cedar: its answer if so many approved, as these groups.

        One decision tries several sets of approvals. Each set is asked once, and the answers are
        gone with the function that is returned.

        Args:
            facts: must hold an agent; assets as in the Request.
            now: ms since the Unix epoch, by the ledger's clock.
        """
        if facts.agent is None:
            return lambda approvals, groups: erred("the agent is not configured")
        try:
            policies = self.of_tool(facts.action)
            asked = question(request, facts, facts.agent, now, policies.names)
        except (PolicyError, ValueError) as error:
            why = str(error)
            return lambda approvals, groups: erred(why)
        answers: dict[tuple[int, frozenset[str]], Evaluation] = {}

        def ask(approvals: int, groups: frozenset[str]) -> Evaluation:
            heard = policies.heard(approvals, groups)
            if heard not in answers:
                answers[heard] = policies.evaluate(asked, *heard)
            return answers[heard]

        return ask

    def monotone_violations(self) -> tuple[str, ...]:
        """Which policies might turn a yes into a no when one more person approves.

        Sound but for policies that err, not complete: one that is not named here can't, one that
        is named may only be written in a form that can't be followed. `agentguard doctor` shows
        these sentences.
        """
        return tuple(
            f"{rule.place}: {rule.id} may refuse when one more person approves; compare approvals "
            f"and approverGroups only as `context.approvals >= N` and `.contains`, in `when` of a "
            f"permit or `unless` of a forbid"
            for rule in self.rules.values()
            if not rule.monotone
        )


def known_names(workspace: Workspace, tools: Iterable[ToolAction]) -> Known:
    """What the policies of a workspace may name.

    Args:
        tools: that are bound.
    """
    bound = tuple(tools)
    return Known(
        tools=bound,
        other_tools=workspace.other_tools - {tool.name for tool in bound},
        agents=workspace.agents,
        destinations=workspace.destinations,
        groups=frozenset().union(*(person.groups for person in workspace.people.values())),
        labels=workspace.classes,
    )


def time_is_sayable(now: int) -> bool:
    """Whether Cedar has a word for this time (ms since the Unix epoch): the years 1 to 9999."""
    return FIRST_TIME <= now <= LAST_TIME


def _files(named: Path) -> list[Path]:
    if not named.is_dir():
        return [named]
    try:
        entries = sorted(named.iterdir())
    except OSError as error:
        raise PolicyError(f"{named}: can't be read ({error})") from error
    files = [entry for entry in entries if entry.name.endswith(".cedar")]
    others = [entry for entry in entries if entry not in files]
    below = [file for entry in others if entry.is_dir() for file in sorted(entry.rglob("*"))]
    missed = [str(file.relative_to(named)) for file in (*others, *below) if _is_meant(file)]
    if missed:
        raise PolicyError(
            f"{named}: got {', '.join(map(repr, missed))}, expected each policy file in the folder"
            " itself, with a name that ends in .cedar; move or rename it"
        )
    return files


def _is_meant(file: Path) -> bool:
    """Whether somebody would take a file for one of policies."""
    return file.name.strip().casefold().endswith(".cedar")


def _defaults() -> list[Any]:
    found = [e for e in files("agentguard.policy.default").iterdir() if e.name.endswith(".cedar")]
    return sorted(found, key=lambda entry: entry.name)


def default_schema() -> str:
    """The schema that every tool's begins with: types, what each call has, and the stages."""
    return files("agentguard.policy.default").joinpath("schema.cedarschema").read_text("utf-8")
