"""A call of one tool that nobody made, filled in as the guard does it before it decides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import typer

from agentguard.bindings.argument_schema import has_value
from agentguard.bindings.bound import Bound
from agentguard.bindings.compiled_binding import Arg
from agentguard.calls.arguments import CallArguments
from agentguard.calls.refused import Refused
from agentguard.calls.request import destination_of
from agentguard.config.workspace import Workspace
from agentguard.errors import ConfigError

ASSET = "this asset"
"""What stands for the id of an asset that is only supposed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupposedCall:
    """A call as its Request would hold it.

    Args:
        args: with the tool's defaults and the values that its Binding fixes.
        origins: what nobody gave: argument → `supposed` for an asset, `filled in` for the rest.
        destination: the id of where the call sends its media and texts; None: nowhere.
        text_labels: that its texts raise.
        has_assets, has_texts: whether it carries any.
    """

    bound: Bound
    args: Mapping[str, Any]
    origins: Mapping[str, str]
    destination: str | None
    text_labels: frozenset[str]
    has_assets: bool
    has_texts: bool


def suppose(bound: Bound, given: str | None, to: str | None, workspace: Workspace) -> SupposedCall:
    """Fill in a call of a tool.

    Args:
        given: its arguments, as a JSON object; required assets may be missing.
        to: id of the destination, where the person said it apart from the arguments.

    Raises:
        BadParameter: the guard would refuse these arguments, or the call does not go there.
        ConfigError: the guard would refuse the place that it goes to.
    """
    binding = bound.binding
    written = _object(given)
    args = dict(written)
    if to is not None and isinstance(binding.destination, Arg):
        args.setdefault(binding.destination.path, to)
    said = set(args)
    for name, value in _assets(bound).items():
        args.setdefault(name, value)
    arguments = CallArguments(bound, args)
    try:
        frozen, labels = arguments.frozen, arguments.labels
    except (Refused, ValueError) as error:
        raise typer.BadParameter(f"--args: {error}") from None
    try:
        place = destination_of(bound, frozen, workspace)
    except Refused as error:
        raise ConfigError(str(error)) from None
    destination = place.id if place is not None else None
    if to is not None and to != destination:
        goes = f"sends it to {destination:.80}" if destination else "sends nothing anywhere"
        raise typer.BadParameter(f"--to {to:.80}: this call of {bound.name} {goes}")
    if binding.reveals:  # as in a Request: what the tool adds is shown to the chat model, too
        labels |= binding.labels - workspace.open_labels
    origins = {name: "supposed" for name in args if name not in said}
    origins |= {
        name: "filled in"
        for name, value in frozen.items()
        if name not in args or value != args[name]
    }
    return SupposedCall(
        bound=bound,
        args=frozen,
        origins=origins,
        destination=destination,
        text_labels=labels,
        has_assets=has_value(frozen, binding.assets),
        has_texts=has_value(frozen, binding.texts),
    )


def _object(given: str | None) -> dict[str, Any]:
    try:
        args = json.loads(given or "{}")
    except ValueError as error:
        raise typer.BadParameter(f"--args: got no JSON ({error}), expected an object") from None
    if not isinstance(args, dict):
        raise typer.BadParameter(f"--args: got {given!r:.80}, expected an object such as '{{}}'")
    return args


def _assets(bound: Bound) -> dict[str, Any]:
    """Assets that a call must name, as arguments or lists; what is deeper must be given."""
    found: dict[str, Any] = {}
    for path in bound.binding.assets:
        name = path.removesuffix("[]")
        known = bound.action.arguments.get(name)
        if known is not None and not known.optional:
            found[name] = [ASSET] if path.endswith("[]") else ASSET
    return found
