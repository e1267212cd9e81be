"""How a command gets at the workspace, its ledger, and what a person named on the command line."""

from __future__ import annotations

import contextlib
import importlib
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from agentguard.errors import (
    AgentGuardError,
    AssetError,
    BindingError,
    ConfigError,
    JobError,
    PolicyError,
)

if TYPE_CHECKING:
    from agentguard.bindings.bound import Bound
    from agentguard.config.workspace import Workspace
    from agentguard.ledger.ledger import Ledger
    from agentguard.ledger.rows.assets import AssetRow
    from agentguard.ledger.rows.jobs import JobRow
    from agentguard.ledger.rows.requests import RequestRow
    from agentguard.model import ToolAction
    from agentguard.policy.policy_set import Policy


_FEWEST = 12
"""Characters that name an asset, job or request; its whole name is longer."""


def workspace_of(ctx: typer.Context) -> Workspace:
    """The workspace of `--config`, or the nearest one."""
    from agentguard.config import workspace as config

    return config.load(ctx.obj)


@contextlib.contextmanager
def ledger_of(workspace: Workspace) -> Iterator[Ledger]:
    """The workspace's ledger, closed again on the way out."""
    from agentguard.ledger.open import open_ledger

    ledger = open_ledger(workspace)
    try:
        yield ledger
    finally:
        ledger.storage.close()


def policy_of(workspace: Workspace) -> Policy:
    """The policy as `Guard.from_config` loads it."""
    from agentguard.policy.policy_set import Policy

    return Policy.load(workspace.policies, replace=workspace.replace_default_policy)


def places_of(workspace: Workspace) -> Mapping[str, str]:
    """File and line of each policy; none while the policies can't be loaded."""
    try:
        rules = policy_of(workspace).rules
    except PolicyError:
        return {}
    return {name: rule.place for name, rule in rules.items()}


def place_of(places: Mapping[str, str], policy: str) -> str:
    """Where a policy id stands, for people."""
    built_in = "built into agentguard" if policy.startswith("agentguard.") else "no longer there"
    return places.get(policy, built_in)


def require_person(workspace: Workspace, name: str) -> str:
    """A configured person's id.

    Raises:
        ConfigError: there is no such person.
    """
    if name not in workspace.people:
        known = ", ".join(sorted(workspace.people))
        raise ConfigError(f"{name:.80} is no person of [people]; there are {known}")
    return name


def find_asset(ledger: Ledger, name: str) -> AssetRow:
    """An asset by its id, its SHA-256, or the first 12 or more characters of one.

    Raises:
        AssetError: none or several are called so.
    """
    from agentguard.ledger.queries.assets import assets_called

    rows = ledger.rows(assets_called(name))
    if len(name) < _FEWEST or len(rows) != 1:
        raise AssetError(f"{_not_one(name, rows)}; `agentguard assets list` shows them")
    return rows[0]


def find_job(ledger: Ledger, name: str) -> JobRow:
    """A job by its id, or the first 12 or more characters of it.

    Raises:
        JobError: none or several are called so.
    """
    from agentguard.ledger.queries.jobs import jobs_called

    rows = ledger.rows(jobs_called(name))
    if len(name) < _FEWEST or len(rows) != 1:
        raise JobError(f"{_not_one(name, rows)}; `agentguard jobs list` shows them")
    return rows[0]


def find_request(ledger: Ledger, name: str) -> RequestRow:
    """A recorded request by the first 12 or more digits of its digest.

    Raises:
        AgentGuardError: none or several begin so.
    """
    from agentguard.ledger.queries.requests import requests_called

    rows = ledger.rows(requests_called(name))
    if len(name) < _FEWEST or len(rows) != 1:
        raise AgentGuardError(
            f"{_not_one(name, rows)}; `agentguard jobs show JOB` lists the requests of a job"
        )
    return rows[0]


def _not_one(name: str, rows: Sequence[object]) -> str:
    if len(name) < _FEWEST:
        return f"{name!r} is too short: give {_FEWEST} or more characters"
    return f"{'nothing is' if not rows else 'several are'} called {name:.64}"


def import_object(named: str) -> tuple[Any, Any]:
    """What `MODULE:NAME` means in the working directory: (the module, the object).

    Raises:
        BindingError: it can't be imported, or has no such name.
    """
    module_name, _, path = named.partition(":")
    if not module_name or not path:
        raise BindingError(f"got {named!r}, expected MODULE:NAME such as tools.edit:TOOLS")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        # What the developer's module prints must not get into our output.
        with contextlib.redirect_stdout(sys.stderr):
            module = importlib.import_module(module_name)
            found: Any = module
            for part in path.split("."):
                found = getattr(found, part)
    except AttributeError as error:
        raise BindingError(f"{named}: {error}{_where(error)}") from error
    except AgentGuardError:
        raise
    except Exception as error:  # the developer's code may raise anything
        said = f"{type(error).__name__}: {error}"
        raise BindingError(f"{module_name} can't be imported: {said}{_where(error)}") from error
    return module, found


def bound_in(named: str) -> dict[str, Bound]:
    """The list of declared tools that `MODULE:NAME` means, by tool name.

    Raises:
        BindingError: it can't be imported, holds something else, or binds one name twice.
    """
    from agentguard.bindings.compilation import compiled
    from agentguard.bindings.problems import require_no_errors
    from agentguard.calls.bound_tools import UNIQUE

    _, found = import_object(named)
    known: dict[str, Bound] = {}
    errors: list[BindingError] = []
    for item in found if isinstance(found, (list, tuple)) else [found]:
        try:
            bound = compiled(item)
        except BindingError as error:
            errors.append(error)
            continue
        if bound.name in known:
            raise BindingError(f"{named}: {bound.name} is bound twice; {UNIQUE}")
        known[bound.name] = bound
    require_no_errors(errors)
    return known


def bound_of(workspace: Workspace, bindings: str | None) -> dict[str, Bound]:
    """The tools that policies can be about, by name: the guard's own, and those that are named.

    Args:
        bindings: `MODULE:NAME` of a list of declared tools.

    Raises:
        BindingError: see `bound_in`.
    """
    from agentguard.calls.builtin_tools import own_tools

    tools = {bound.name: bound for bound in own_tools(workspace)}
    return tools | (bound_in(bindings) if bindings is not None else {})


def tools_of(workspace: Workspace, bindings: str | None) -> dict[str, ToolAction]:
    """The tools of `bound_of` as policies see them."""
    return {name: bound.action for name, bound in bound_of(workspace, bindings).items()}


def _where(error: BaseException) -> str:
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and frame.filename != __file__
    ]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
