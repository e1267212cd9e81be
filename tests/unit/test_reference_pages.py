"""The reference pages name every key, command, option, role and public name that there is."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import typer
from pydantic import BaseModel

import agentguard
import agentguard.langgraph
import agentguard.testing
from agentguard import errors
from agentguard.bindings import effects, roles
from agentguard.bindings.declaration import Binding, Declaration, Meaning
from agentguard.bindings.mcp import McpTool
from agentguard.cli.app import app
from agentguard.config import schema
from agentguard.config.environment import SETTINGS
from agentguard.config.workspace import Lifetimes, Limits

PAGES = Path(__file__).resolve().parents[2] / "docs" / "reference"
CONFIGURATION = (PAGES / "configuration.md").read_text("utf-8")
COMMANDS = (PAGES / "command-line.md").read_text("utf-8")
DECLARATIONS = (PAGES / "declarations.md").read_text("utf-8")
API = (PAGES / "python-api.md").read_text("utf-8")


def rows(page: str) -> dict[str, list[str]]:
    """The rows of a page's tables, by what stands in backticks in the first cell."""
    found = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `"):
            found[cells[0]] = cells
    return found


# --- Configuration -----------------------------------------------------------------------------


def keys() -> Iterator[str]:
    for name, field in schema.WorkspaceForm.model_fields.items():
        annotation = field.annotation
        form = get_args(annotation)[1] if get_origin(annotation) is dict else annotation
        if isinstance(form, type) and issubclass(form, BaseModel):
            member = ".ID" if get_origin(annotation) is dict else ""
            yield from (f"{name}{member}.{key}" for key in form.model_fields)
        elif get_origin(annotation) is not dict:
            yield name


def test_every_key_of_the_configuration_has_a_row() -> None:
    rows_of_keys = {name.strip("`") for name in rows(CONFIGURATION)}
    assert set(keys()) - rows_of_keys == set()
    assert {key for key in rows_of_keys if re.fullmatch(r"[\w.]+\.\w+", key)} <= set(keys())
    assert "`[classes]`" in CONFIGURATION
    assert set(schema.WorkspaceForm.model_fields) - {key.split(".")[0] for key in keys()} == {
        "classes"
    }


@pytest.mark.parametrize("key", ["ledger", "store", "log_key", "signers"])
def test_a_default_path_is_the_one_of_the_code(key: str) -> None:
    assert (
        rows(CONFIGURATION)[f"`{key}`"][2] == f"`{schema.WorkspaceForm.model_fields[key].default}`"
    )


def test_default_lifetimes_and_limits_are_those_of_the_code() -> None:
    for field in dataclasses.fields(Lifetimes):
        shown = rows(CONFIGURATION)[f"`lifetimes.{field.name}`"][1].strip("`")
        form = schema.LifetimesForm.model_validate({field.name: shown})
        assert getattr(form, field.name) == field.default
    for field in dataclasses.fields(Limits):
        assert rows(CONFIGURATION)[f"`limits.{field.name}`"][2] == f"`{field.default}`"


def test_every_known_label_stands_beside_its_sensitivity() -> None:
    shown = {
        label: sensitivity.strip("`")
        for sensitivity, cells in rows(CONFIGURATION).items()
        if sensitivity.strip("`") in ("open", "sensitive", "restricted")
        for label in re.findall(r"`([\w-]+)`", cells[1])
    }
    assert shown == {label: one.value for label, one in schema.DEFAULT_CLASSES.items()}


def test_every_variable_of_the_environment_has_a_row() -> None:
    shown = {name for name in rows(CONFIGURATION) if name.startswith("`AGENTGUARD_")}
    assert shown == {f"`AGENTGUARD_{name.upper()}`" for name in (*SETTINGS, "passphrase")}


# --- Command line ------------------------------------------------------------------------------


def all_commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for name, each in command.commands.items():
            yield from all_commands(each, f"{path} {name}")
    else:
        yield path, command


ROOT_COMMAND: Any = typer.main.get_command(app)
SECTIONS = dict(re.findall(r"^## (agentguard [^\n]+)\n(.*?)(?=^## |\Z)", COMMANDS, re.S | re.M))


def test_every_command_has_a_section() -> None:
    assert list(SECTIONS) == [path for path, _ in all_commands(ROOT_COMMAND, "agentguard")]


@pytest.mark.parametrize(("path", "command"), [*all_commands(ROOT_COMMAND, "agentguard")], ids=str)
def test_a_section_has_every_option_of_its_command(path: str, command: Any) -> None:
    options = [
        option
        for parameter in command.params
        if parameter.param_type_name == "option"
        for option in (*parameter.opts, *parameter.secondary_opts)
    ]
    shown = re.findall(r"^\| (`-.*?) \|", SECTIONS[path], re.M)
    assert re.findall(r"`(-[\w-]+)", " ".join(shown)) == options
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = parameter.metavar or parameter.name.upper()
            assert f"\n| `{name}` |" in SECTIONS[path]


def test_the_options_before_a_command_stand_at_the_top() -> None:
    for parameter in ROOT_COMMAND.params:
        assert f"| `{parameter.opts[0]}" in COMMANDS.partition("## Exit codes")[0]


# --- Declarations ------------------------------------------------------------------------------


def test_every_role_and_its_parameters_have_a_row() -> None:
    classes = [
        each
        for each in vars(roles).values()
        if isinstance(each, type) and issubclass(each, roles.Role) and each is not roles.Role
    ]
    assert len(classes) == 9
    for each in classes:
        parameters = list(inspect.signature(each).parameters)
        assert f"| `{each.__name__}({', '.join(parameters)})` |" in DECLARATIONS
        for name in parameters:
            assert f"\n| `{name}` of `{each.__name__}` |" in DECLARATIONS


def test_every_word_of_a_declaration_has_a_row() -> None:
    words = {field.name for field in dataclasses.fields(Declaration)}
    assert set(Meaning.__annotations__) < words
    assert {word for word in words if f"\n| `{word}` |" not in DECLARATIONS} == set()
    only_binding = DECLARATIONS.partition("Only a `Binding` takes these")[2]
    for word in words - set(Meaning.__annotations__) - {"stage"}:
        assert word in inspect.signature(Binding.__init__).parameters
        assert f"\n| `{word}` |" in only_binding


def test_every_stage_form_and_effect_is_named() -> None:
    for words in (roles.StageName, roles.Form):
        assert get_origin(words) is Literal
        assert {word for word in get_args(words) if word not in DECLARATIONS} == set()
    assert {kind.__name__ for kind in effects.KINDS} <= set(
        re.findall(r"^\| `(\w+)\(", DECLARATIONS.partition("## Effects")[2], re.M)
    )
    for field in dataclasses.fields(McpTool):
        assert f"\n| `{field.name}` |" in DECLARATIONS.partition("## MCP tools")[2]


# --- Python API --------------------------------------------------------------------------------


def named_in_api() -> set[str]:
    directives = re.findall(r"^::: ([\w.]+)$", API, re.M)
    return {name.rpartition(".")[2] for name in directives} | {
        name.rpartition(".")[2] for name in re.findall(r"`(agentguard[\w.]*)`", API)
    }


@pytest.mark.parametrize("module", [agentguard, agentguard.langgraph, agentguard.testing])
def test_dir_lists_what_is_public(module: Any) -> None:
    assert dir(module) == sorted(module.__all__)
    assert all(hasattr(module, name) for name in dir(module))


def test_every_public_name_has_an_entry() -> None:
    public = {*agentguard.__all__, *agentguard.langgraph.__all__, *agentguard.testing.__all__}
    public |= {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert public - named_in_api() == set()
    assert "::: agentguard.langgraph.known" in API


def test_every_entry_is_there() -> None:
    for path in re.findall(r"^::: ([\w.]+)$", API, re.M):
        module, _, name = path.rpartition(".")
        found = __import__(module, fromlist=[name])
        assert hasattr(found, name), path


@pytest.mark.parametrize("owner", ["guard.Guard", "jobs.job.Job"])
def test_every_listed_method_is_there(owner: str) -> None:
    section = API.partition(f"::: agentguard.{owner}\n")[2].partition("::: ")[0]
    listed = re.search(r"members: \[(.*)\]", section)
    assert listed
    module, _, name = f"agentguard.{owner}".rpartition(".")
    kind = getattr(__import__(module, fromlist=[name]), name)
    assert {method for method in listed[1].split(", ") if not hasattr(kind, method)} == set()
