"""`doctor`: what of a workspace is sound, what is missing, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentguard.cli.context import import_object, ledger_of, policy_of, workspace_of
from agentguard.cli.output import ERROR, Json, Line, fields, print_json, say, some, visible, when
from agentguard.cli.views.report import Finding, destinations, look, ok, writable
from agentguard.errors import AgentGuardError, BindingError, ConfigError, PolicyError
from agentguard.model import OutsideEffect, ToolAction

if TYPE_CHECKING:
    from agentguard.bindings.bound import Bound
    from agentguard.bindings.compiled_binding import CompiledBinding
    from agentguard.config.workspace import Workspace
    from agentguard.guard import Guard
    from agentguard.policy.policy_set import Policy

_STYLES = {"ok": "green", "look": "yellow", "bad": "red"}
_LABEL = 18
_PROBED = (OutsideEffect.IDEMPOTENT, OutsideEffect.PROBEABLE)


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(
    ctx: typer.Context,
    bindings: Annotated[
        str | None,
        typer.Option(metavar="MODULE:NAME", help="Your declared tools and Bindings, a list."),
    ] = None,
    json_: Json = False,
) -> None:
    """Look at the whole workspace and say what to mend.

    Configuration, policies, keys, people, ledger, store, destinations and, if named, Bindings.
    Green is fine, yellow deserves a look, red is wrong (most of it keeps a guard from opening):
    exit code 1.

    \b
    Example:
      $ agentguard doctor --bindings bindings:bindings

    Next: when nothing is red, `agentguard matrix` shows what your policy says.
    """
    try:
        workspace = workspace_of(ctx)
    except ConfigError as error:
        found = [
            Finding(state="bad", what="config", text=line, todo="")
            for line in str(error).splitlines()
        ]
    else:
        found = list(_findings(workspace, bindings))
    bad = sum(1 for one in found if one.state == "bad")
    read = sum(1 for one in found if one.state == "look")
    if json_:
        print_json({"ok": not bad, "findings": [asdict(one) for one in found]})
    else:
        for one in found:
            rows: list[Line] = [
                (
                    f"{one.state:<4} {visible(one.what, 12)}",
                    (visible(one.text, 1000), _STYLES[one.state]),
                )
            ]
            if one.todo:
                rows.append(("", f"→ {visible(one.todo, 1000)}"))
            fields(rows, label_width=_LABEL)
        say()
        say(f"{len(found) - read - bad} ok, {read} to look at, {bad} bad")
    if bad:
        raise typer.Exit(ERROR)


def _findings(workspace: Workspace, bindings: str | None) -> Iterator[Finding]:
    counts = ", ".join(
        f"{len(many)} {name}"
        for name, many in (
            ("people", workspace.people),
            ("agents", workspace.agents),
            ("destinations", workspace.destinations),
        )
    )
    yield ok("config", f"{workspace.id} in {workspace.root}: {counts}")
    examples = [name for name in workspace.people if name.endswith("@example.com")]
    if examples:
        yield look(
            "config",
            f"{', '.join(examples)} are examples, not people",
            "put real people into [people] and [agents] of agentguard.toml",
        )
    for agent in workspace.agents.values():
        if agent.combined:
            yield look(
                "agents",
                f"{agent.id} combines {', '.join(agent.combined)} (unsafe_combined_stages): whoever"
                " hijacks its model reaches them all",
                "give each of these stages an agent and a loop of its own where you can",
            )
    policy: Policy | None = None
    try:
        policy = policy_of(workspace)
    except ConfigError as error:
        yield Finding(state="bad", what="policy", text=str(error))
    if policy is not None:
        yield from _policy(workspace, policy)
    sound_key = True
    for finding in _keys(workspace):
        sound_key = sound_key and finding.state != "bad"
        yield finding
    yield from _people(workspace)
    if policy is not None:
        yield from _unanswerable(workspace, policy)
    if sound_key:
        yield _ledger(workspace)
        yield from _alarms(workspace)
    yield writable("store", workspace.store)
    yield from destinations(workspace)
    if bindings is not None:
        yield from _bindings(workspace, policy, bindings, sound_key)
    else:
        yield look(
            "bindings",
            "not looked at",
            "agentguard doctor --bindings MODULE:NAME names your list of Bindings",
        )


def _policy(workspace: Workspace, policy: Policy) -> Iterator[Finding]:
    from agentguard.policy.simulate import fallen_releases

    extra = f", {len(workspace.policies)} of your own files" if workspace.policies else ""
    yield ok("policy", f"{len(policy.rules)} policies{extra}, version {policy.digest[:16]}")
    violations = policy.monotone_violations()
    if not violations:
        return  # it is proven for every call
    fallen = fallen_releases(workspace, policy)
    if fallen:
        yield Finding(
            state="bad",
            what="policy",
            text=f"more approvals turn a yes into a no: {some(fallen)}",
            todo="; ".join(violations),
        )
        return
    for sentence in violations:
        yield look("policy", sentence, "write it in that form, so that it can be proven")


def _keys(workspace: Workspace) -> Iterator[Finding]:
    from agentguard.transparency.log_key import load_log_key

    try:
        load_log_key(workspace.log_key)
        yield ok("log key", f"{workspace.log_key}, readable by you only")
    except ConfigError as error:
        yield Finding(state="bad", what="log key", text=str(error))


def _people(workspace: Workspace) -> Iterator[Finding]:
    from agentguard.people.signers import Signers

    try:
        signers = Signers.load(workspace.signers)
    except ConfigError as error:
        yield Finding(state="bad", what="signers", text=str(error))
        return
    keyed = [name for name in workspace.people if signers.keys.get(name)]
    missing = [name for name in workspace.people if name not in keyed]
    if not keyed:
        yield look(
            "signers",
            "nobody has a key, so nothing that needs a person can be approved",
            f"each person: agentguard people add {missing[0]}",
        )
    elif missing:
        yield look(
            "signers",
            f"{', '.join(missing)} can't approve: no key in {workspace.signers}",
            f"agentguard people add {missing[0]}",
        )
    else:
        yield ok("signers", f"everybody has a key in {workspace.signers}")
    for name, held in signers.keys.items():
        if len(held) > 1:
            yield look(
                "signers",
                f"{name} has {len(held)} keys ({', '.join(held)}): whoever holds one of them"
                f" answers as {name}",
                f"if not all of them are {name}'s, remove their lines from {workspace.signers}",
            )
    strangers = sorted(set(signers.keys) - set(workspace.people))
    if strangers:
        yield look(
            "signers",
            f"{', '.join(strangers)} have keys, but are not in [people]",
            f"remove their lines from {workspace.signers}, or add them to [people]",
        )
    owners = {agent.owner for agent in workspace.agents.values()}
    # I1: neither the requester nor an owner of an agent in the asset's lineage approves.
    alone = [name for name in workspace.people if not set(workspace.people) - owners - {name}]
    if alone:
        every = "whoever asks for the job" if len(alone) == len(workspace.people) else (
            f"when {' or '.join(alone)} asks for the job"
        )  # fmt: skip
        yield look(
            "approvers",
            f"nobody is left to approve media that all agents worked on, {every}: requesters and"
            " owners of agents don't count",
            "add a person to [people] who owns no agent",
        )


def _unanswerable(workspace: Workspace, policy: Policy) -> Iterator[Finding]:
    """Releases that people could lift, but not these people."""
    from agentguard.cli.commands.matrix import releases_of
    from agentguard.model import Provenance

    stuck = [
        f"{one['class']} to {one['destination']} ({one['word']})"
        for one in releases_of(workspace, policy, Provenance.UNKNOWN)
        if one["nobody"]
    ]
    if stuck:
        yield look(
            "approvers",
            f"your people can't approve {some(stuck)}",
            "add people or groups to [people]; until then such exports are denied",
        )


def _ledger(workspace: Workspace) -> Finding:
    try:
        with ledger_of(workspace) as ledger:
            return ok("ledger", f"{ledger.storage.name}, {ledger.storage.tree_size()} records")
    except AgentGuardError as error:
        return Finding(state="bad", what="ledger", text=str(error))


def _alarms(workspace: Workspace) -> Iterator[Finding]:
    """Tamper alarms that some process raised; one that refuses calls says so nowhere else."""
    from agentguard.ledger.open import alarms_of, checkpoints_of

    kept = alarms_of(checkpoints_of(workspace))
    alarms = kept.read()
    if alarms:
        last = alarms[-1]
        yield Finding(
            state="bad",
            what="alarms",
            text=f"{len(alarms)} tamper alarm{'s' * (len(alarms) > 1)}, the last one"
            f" {when(last.at)} in process {last.process}: {last.what}",
            todo="run `agentguard audit verify`; when you know why, restart that process, which"
            f" refuses calls until then, and remove {kept.path}",
        )


def _bindings(
    workspace: Workspace, policy: Policy | None, named: str, sound_key: bool
) -> Iterator[Finding]:
    from agentguard.bindings.reach import reach_of

    try:
        _, found = import_object(named)
    except BindingError as error:
        yield Finding(state="bad", what="bindings", text=str(error))
        return
    if policy is None or not sound_key:
        yield look("bindings", "not looked at", "mend what is bad above first")
        return
    items = list(found) if isinstance(found, (list, tuple)) else [found]
    stages = set()
    try:
        with ledger_of(workspace) as ledger:
            guard = _guard(workspace, ledger)
            tried = [_bound(guard, item) for item in items]
            for item, bound in zip(items, tried, strict=True):
                try:
                    if isinstance(bound, BindingError):
                        raise bound
                    guard.bound_for(bound.binding.tool)  # what they say of each other holds, too
                except BindingError as error:
                    yield Finding(state="bad", what="bindings", text=str(error))
                    continue
                stages.add(bound.binding.stage)
                yield ok("bindings", f"{bound.name}: {_meaning(item, bound.binding)}")
                reached = reach_of(bound.binding.tool) if bound.binding.local else None
                if reached is not None:
                    yield look(
                        "bindings",
                        f"{bound.name} says that nothing leaves this machine, and has {reached}",
                        'if what it is given leaves this machine, say to="..." instead',
                    )
                if bound.releases and bound.injected:
                    yield look(
                        "bindings",
                        f"{bound.name} is handed {', '.join(sorted(bound.injected))} by the graph,"
                        " which nobody decides on and no question shows",
                        "give it what an export depends on as arguments",
                    )
                if bound.binding.effect in _PROBED and bound.binding.probe is None:
                    yield look(
                        "bindings",
                        f"{bound.name} is {bound.binding.effect} and has no probe, so after a"
                        " crash a person must look whether it was done",
                        "give its effect a probe, which `agentguard reconcile` then asks",
                    )
    except AgentGuardError:
        return  # the ledger's own line says why
    actions = [bound.action for bound in tried if not isinstance(bound, BindingError)]
    yield from _policy_of_tools(workspace, policy, actions)
    taken = {stage for agent in workspace.agents.values() for stage in agent.stages}
    for stage in sorted(one for one in stages - taken if one is not None):
        yield look(
            "bindings",
            f"no agent takes the {stage} stage, so its tools are always refused",
            "add an agent with that stage to [agents]",
        )


def _policy_of_tools(
    workspace: Workspace, policy: Policy, actions: list[ToolAction]
) -> Iterator[Finding]:
    from agentguard.calls.builtin_tools import own_actions
    from agentguard.policy.policy_set import known_names

    try:
        policy.require_fits(known_names(workspace, [*own_actions(workspace), *actions]))
    except PolicyError as error:
        for line in str(error).splitlines():
            yield Finding(state="bad", what="policy", text=line)
    else:
        yield ok("policy", f"fits {len(actions)} tools, their arguments and what is configured")


def _meaning(item: Any, binding: CompiledBinding) -> str:
    """A tool's stage, the role of each argument, and where its calls send."""
    from agentguard.bindings.compiled_binding import Arg, CompiledBinding
    from agentguard.bindings.declaration import UNSAID, Binding, declaration_of

    to = binding.destination.path if isinstance(binding.destination, Arg) else None
    roles = {
        "Asset": binding.assets, "Text": binding.texts, "Plain": binding.plain,
        "Output": binding.outputs, "To": () if to is None else (to,), "Fixed": binding.fixed,
        "OperationId": binding.operations, "IdempotencyKey": binding.keys,
    }  # fmt: skip
    words = [f"{role} {', '.join(paths)}" for role, paths in roles.items() if paths]
    if isinstance(binding.destination, str):
        words.append(f"sends to {binding.destination}")
    elif to is None:
        said: object = UNSAID
        if not isinstance(item, CompiledBinding):
            said = (item.declaration if isinstance(item, Binding) else declaration_of(item)).to
        unsaid = "to= is not said, which means that " if said is UNSAID else ""
        words.append(f"{unsaid}nothing leaves this machine")
    return "; ".join((f"{binding.stage or 'no'} stage", *words))


def _bound(guard: Guard, item: Any) -> Bound | BindingError:
    known = set(guard.bound)
    try:
        guard.bind(item)
        (name,) = set(guard.bound) - known
        return guard.bound[name]
    except BindingError as error:
        return error


def _guard(workspace: Workspace, ledger: Any) -> Guard:
    """A guard that binds tools one by one; the workspace's policies are compared with all."""
    from agentguard.content.store import Store
    from agentguard.export.broker import Broker
    from agentguard.guard import Guard
    from agentguard.policy.policy_set import Policy

    return Guard(
        workspace=workspace,
        policy=Policy.load(),
        tools=(),
        ledger=ledger,
        store=Store(workspace.store),
        broker=Broker(workspace.destinations),
    )
