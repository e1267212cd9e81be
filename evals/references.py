"""What `@asset` and `{...}` in a scenario's arguments stand for."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evals.canaries import fill
from evals.scenario import ScenarioError
from evals.world import World


def resolve(
    value: Any, *, handles: Mapping[str, str], files: Mapping[str, Path], world: World
) -> Any:
    """An argument as the model writes it.

    Args:
        value: `@name` is the guard's own handle of an asset (an id, or a path); `@path:name`,
            `@url:name`, `@data:name`, `@base64:name` name or hold the file itself; other texts
            may hold `{secret:KIND}`, `{split:KIND}` and `{outside}`.
        handles: asset → handle. files: asset → file.

    Raises:
        ScenarioError: no such form.
    """
    if not isinstance(value, str):
        return value
    if not value.startswith("@"):
        return fill(value).replace("{outside}", str(world.outside))
    form, _, name = value[1:].rpartition(":")
    match form:
        case "":
            return handles.get(name, str(files.get(name, name)))
        case "path":
            return str(files[name])
        case "url":
            return f"{world.url}/{name}.png"
        case "data" | "base64":
            data = base64.b64encode(files[name].read_bytes()).decode()
            return f"data:image/png;base64,{data}" if form == "data" else data
        case _:
            raise ScenarioError(f"{value!r}: no form {form!r}")
