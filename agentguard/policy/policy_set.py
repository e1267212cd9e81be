"""Cedar policies: loading, refusing bad ones, asking.

What Cedar sees is built by `cedar_input` from Request and Facts, digests stay out of it, and
`evaluate` puts the question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import cedarpy

from agentguard.canonical import digest
from agentguard.errors import PolicyError
from agentguard.model import Facts, Request
from agentguard.policy.analysis import ACTIONS, Rule, rules_of
from agentguard.policy.cedar_input import FIRST_TIME, LAST_TIME, question
from agentguard.policy.evaluate import ActionPolicies, Evaluation, erred

_SHIPPED = "agentguard/policy/default/"


class Policy:
    """A set of policies that passed every test of `load`; immutable.

    Attributes:
        digest: names the version: schema and all policy text.
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
        schema_text = _default("schema.cedarschema")
        self._schema = cedarpy.Schema.from_str(schema_text)
        self.rules: Mapping[str, Rule] = rules_of(texts)
        if not self.rules:
            raise PolicyError(
                f"got no policy in {', '.join(texts) or 'no file'}, expected at least one; "
                "an empty set would only deny"
            )
        self._check("\n".join(texts.values()))
        self.digest = digest("agentguard/policy/v1", [schema_text, *sorted(texts.values())])
        self.groups = frozenset().union(*(rule.groups for rule in self.rules.values()))
        self._actions = {name: ActionPolicies(name, self.rules, self._schema) for name in ACTIONS}

    @classmethod
    def load(cls, extra: Sequence[Path] = (), *, replace: bool = False) -> Policy:
        """The default policy and what the workspace adds to it.

        Args:
            extra: `.cedar` files of the workspace, and folders of them.
            replace: each takes the place of the default file of its name (`export.cedar`);
                otherwise it is added, and a policy id that occurs twice is refused.

        Raises:
            PolicyError: a file can't be read or parsed, a policy breaks the schema, has no `@id`
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
        action = self._actions[request.stage.value if request.stage is not None else "use"]
        asked = question(request, facts, facts.agent, now, action.names)
        answers: dict[tuple[int, frozenset[str]], Evaluation] = {}

        def ask(approvals: int, groups: frozenset[str]) -> Evaluation:
            heard = action.heard(approvals, groups)
            if heard not in answers:
                answers[heard] = action.evaluate(asked, *heard)
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

    def _check(self, text: str) -> None:
        result = cedarpy.validate_policies(text, self._schema)
        for error in result.errors:
            rule = self.rules.get(result.id_annotations_by_policy_id.get(error.policy_id, ""))
            place = f"{rule.place}: policy {rule.id}" if rule else "policies"
            raise PolicyError(f"{place} breaks the schema: {error.error}")
        if not result.validation_passed:
            raise PolicyError("policies break the schema; Cedar does not say where")


def time_is_sayable(now: int) -> bool:
    """Whether Cedar has a word for this time (ms since the Unix epoch): the years 1 to 9999."""
    return FIRST_TIME <= now <= LAST_TIME


def _files(named: Path) -> list[Path]:
    return sorted(named.glob("*.cedar")) if named.is_dir() else [named]


def _defaults() -> list[Any]:
    found = [e for e in files("agentguard.policy.default").iterdir() if e.name.endswith(".cedar")]
    return sorted(found, key=lambda entry: entry.name)


def _default(name: str) -> str:
    return files("agentguard.policy.default").joinpath(name).read_text("utf-8")
