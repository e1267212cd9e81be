"""What `agentguard.toml` may say: first the shape, then what it means.

Messages repeat names, never URLs or other values
that may hold a secret (S16).
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated
from urllib.parse import unquote

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from agentguard.config.file import ConfigFile, Problem, near, show
from agentguard.config.ledger_url import LedgerUrl
from agentguard.model import (
    GENERATED,
    SEPARATED_STAGES,
    UNCLASSIFIED,
    Audience,
    Environment,
    Sensitivity,
    Stage,
)

DEFAULT_CLASSES: Mapping[str, Sensitivity] = MappingProxyType(
    {GENERATED: Sensitivity.OPEN}
    | dict.fromkeys(("brand", "licensed", "personal-data"), Sensitivity.SENSITIVE)
    | dict.fromkeys(
        ("customer-data", "likeness", "regulated", "embargoed", "payment-card", UNCLASSIFIED),
        Sensitivity.RESTRICTED,
    )
)
MAX_RIGHT = 5 * 60_000
"""Longest life (ms) of a credential or a grant; a longer one is a static right (S14, S24)."""

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LOCAL = ("file", "local")
_AZURE = ("abfs", "abfss", "adl", "az", "wasb", "wasbs")  # container@account
_OWN_PORT = ":(21|22|80|443)$"  # of ftp, sftp, http and https, where it is not said
_DOTS = 'holds "." or ".." as a part, which services read in their own ways; write it out'
_SCHEME = re.compile("([a-z][a-z0-9+.-]*):(.*)")
_USERINFO = re.compile("[:/][^:@]*:[^@]*@|//[A-Za-z0-9_-]{20,}@")  # user:password@, long-token@
_SECRET_NAME = re.compile(
    "token|secret|passw|pwd|signature|credential|auth|apikey|accesskey|(^|[-_.])(key|sig|sas)"
)
_SECRET_VALUE = re.compile("(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9+/_=.-]{32,}")


def milliseconds(value: object) -> int:
    """The length of a duration such as `"30s"`, `"5m"` or `"24h"`, in ms.

    Raises:
        ValueError: it is none, or longer than 365 days.
    """
    found = re.fullmatch("([0-9]{1,9})(ms|s|m|h|d)", value) if isinstance(value, str) else None
    length = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < length <= 365 * _UNITS["d"]:
        expected = 'a duration with its unit, up to 365 days, such as "30s", "5m" or "24h"'
        raise _refusal("duration", value, expected)
    return length


def _name(value: str) -> str:
    # ASCII only: a Cyrillic o would make two people of one, who then approve for each other.
    if not value or len(value) > 200 or not value.isprintable() or " " in value:
        raise _refusal("name", value, "1 to 200 visible characters without spaces")
    if not value.isascii():
        raise _refusal("name", value, "ASCII letters only: others look alike; spell it with them")
    return value


def _line(value: str) -> str:
    if not value or not value.isprintable():
        raise PydanticCustomError("line", "expected one line of visible text, not empty")
    return value


def _refusal(kind: str, value: object, expected: str) -> PydanticCustomError:
    words = {"got": _got(value), "expected": expected}
    return PydanticCustomError(kind, "got {got}, expected {expected}", words)


def _got(value: object) -> str:
    # Not repr of anything: an integer of 5000 digits has none.
    return repr(value[:40]) if isinstance(value, str) else f"a {type(value).__name__}"


Id = Annotated[str, AfterValidator(_name)]
_Text = Annotated[str, AfterValidator(_line)]
_Duration = Annotated[int, BeforeValidator(milliseconds)]
_Size = Annotated[int, Field(gt=0, le=2**53 - 1)]
_Host = Annotated[
    str, Field(pattern="^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?$", max_length=259)
]
_WORD = Field(strict=False)  # TOML has no enums; the word itself must match exactly


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PersonForm(_Form):
    groups: list[Id] = []


class AgentForm(_Form):
    owner: Id
    stages: list[Annotated[Stage, _WORD]] = Field(min_length=1)
    unsafe_combined_stages: bool = False


class DestinationForm(_Form):
    url: _Text | None = None
    audience: Annotated[Audience, _WORD]
    environment: Annotated[Environment, _WORD]
    ceiling: list[Id] = []
    hosts: list[_Host] = []


class LifetimesForm(_Form):
    credential: _Duration | None = None
    grant: _Duration | None = None
    review: _Duration | None = None
    lease: _Duration | None = None


class LimitsForm(_Form):
    max_bytes: _Size | None = None
    max_pixels: _Size | None = None


class WorkspaceForm(_Form):
    workspace: Id
    ledger: _Text = "sqlite:.agentguard/ledger.db"
    store: _Text = ".agentguard/assets"
    log_key: _Text = ".agentguard/log.key"
    signers: _Text = "agentguard.signers"
    policies: list[_Text] | None = None
    other_tools: list[_Text] = []
    unsafe_replace_default_policy: bool = False
    chat_model: Id | None = None
    services: list[Id] = []
    people: dict[Id, PersonForm] = {}
    agents: dict[Id, AgentForm] = {}
    destinations: dict[Id, DestinationForm] = {}
    classes: dict[Id, Annotated[Sensitivity, _WORD]] = {}
    lifetimes: LifetimesForm = LifetimesForm()
    limits: LimitsForm = LimitsForm()


_SECTIONS: dict[str | int, type[_Form]] = {
    "people": PersonForm,
    "agents": AgentForm,
    "destinations": DestinationForm,
    "lifetimes": LifetimesForm,
    "limits": LimitsForm,
}


def form_of(
    source: ConfigFile, settings: Mapping[str, str] = MappingProxyType({})
) -> WorkspaceForm:
    """The table in its shape, every rule of this module kept.

    Args:
        settings: values of the environment that stand for those of the table, by the same names.

    Raises:
        ConfigError: lists every problem found, with its line.
    """
    try:
        form = WorkspaceForm.model_validate(source.table)
    except ValidationError as error:
        # Unknown keys first: a misspelt key is also a missing one.
        found = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        raise source.error(map(_misshapen, found)) from None
    if problems := list(_problems(form, source.file.parent, settings)):
        raise source.error(problems)
    return form


def _misshapen(error: ErrorDetails) -> Problem:
    where = tuple(part for part in error["loc"] if part != "[key]")
    name, got = show(where), error["input"]
    match error["type"]:
        case "extra_forbidden":
            key = str(where[-1])
            known = (_SECTIONS[where[0]] if len(where) > 1 else WorkspaceForm).model_fields
            hint = near(key, known)
            if len(where) > 1 and key in WorkspaceForm.model_fields:
                hint = "; it belongs above the first [table]"
            return where, f"unknown key {name}{hint}"
        case "missing" if where[0] == "agents" and where[-1] == "owner":
            return where, f"{name} is missing: every agent answers to a person in [people]"
        case "missing":
            return where, f"{name} is missing"
        case "enum" if "stages" in where and got == "approve":
            return where, f'{name}: no agent may hold "approve"; only people approve'
        case "enum":
            expected = str(error["ctx"]["expected"])
            hint = near(got, re.findall("'([a-z]+)'", expected)) if isinstance(got, str) else ""
            return where, f"{name}: got {_got(got)}, expected {expected}{hint}"
        case _:
            return where, f"{name}: {error['msg']}"


def _problems(form: WorkspaceForm, root: Path, settings: Mapping[str, str]) -> Iterator[Problem]:
    yield from _lookalikes(form)
    for section, members in (("people", form.people), ("agents", form.agents)):
        if not members:
            yield (section,), f"[{section}] is empty: name at least one"
    for name, agent in form.agents.items():
        if agent.owner not in form.people:
            message = f"owner {agent.owner!r} is not in [people]"
            yield ("agents", name, "owner"), message + near(agent.owner, form.people)
        held = sorted(SEPARATED_STAGES.intersection(agent.stages))
        if len(held) > 1 and not agent.unsafe_combined_stages:  # S26
            message = f"agent {name!r} holds {' and '.join(held)}: give each its own agent"
            yield ("agents", name, "stages"), message + ", or say unsafe_combined_stages = true"
    for label, one in form.classes.items():
        default = DEFAULT_CLASSES.get(label)
        if default is not None and one.rank < default.rank:  # S33
            yield ("classes", label), f"{label!r} is at least {default.value}, got {one.value}"
    yield from _destination_problems(form)
    yield from _overlaps(form, root, settings)
    for name in ("credential", "grant"):
        if (getattr(form.lifetimes, name) or 0) > MAX_RIGHT:  # S24
            yield ("lifetimes", name), f"a {name} may live 5m at most"
    for name in ("ledger", "store"):
        if problem := storage_problem(name, getattr(form, name)):
            yield (name,), problem
        elif holds_secret(getattr(form, name)):
            yield (name,), f"holds a secret; set AGENTGUARD_{name.upper()} instead"
    policies = policies_of(form, root)
    if form.unsafe_replace_default_policy and not policies:  # I11: nothing would permit
        yield ("unsafe_replace_default_policy",), "replaces the default policy by no policies"
    for index, file in enumerate(policies):
        if not os.path.isdir(file) and not (file.suffix == ".cedar" and os.path.isfile(file)):
            yield ("policies", index), f"{str(file)!r} is neither a folder nor a .cedar file"


def _lookalikes(form: WorkspaceForm) -> Iterator[Problem]:
    for section in ("people", "agents", "destinations", "classes"):
        seen = {name: name for name in (DEFAULT_CLASSES if section == "classes" else ())}
        for name in getattr(form, section):
            other = seen.setdefault(name.casefold(), name)
            if other != name:
                message = f"{name!r} and {other!r} differ only by case; keep one"
                yield (section, name), message


def _destination_problems(form: WorkspaceForm) -> Iterator[Problem]:
    labels = {**DEFAULT_CLASSES, **form.classes}
    for name, one in form.destinations.items():
        if problem := _url_problem(one.url, one.audience):
            yield ("destinations", name, "url"), problem
        for index, label in enumerate(one.ceiling):
            if label not in labels:
                message = f"unknown class {label!r}{near(label, labels)}; add it to [classes]"
                yield ("destinations", name, "ceiling", index), message
    if form.chat_model is not None:
        found = form.destinations.get(form.chat_model)
        if found is None:
            message = f"chat_model {form.chat_model!r} is not in [destinations]"
            yield ("chat_model",), message + near(form.chat_model, form.destinations)
        elif found.audience is not Audience.VENDOR:
            message = f"chat_model {form.chat_model!r} is {found.audience}, expected vendor"
            yield ("chat_model",), message


def _url_problem(url: str | None, audience: Audience) -> str | None:
    if url is None:  # a vendor's tool, or the developer's own uploader, sends there
        return None
    scheme = _SCHEME.fullmatch(url)
    if scheme is None:
        return 'expected "file:FOLDER", or another fsspec URL'
    if scheme[1] == "vendor" and audience is not Audience.VENDOR:
        return f'audience {audience.value!r} needs a url ("file:FOLDER" or an fsspec URL), or none'
    if scheme[1] == "file":
        no_folder = not scheme[2].strip("/") or re.match("//(?!/)", scheme[2])
        return 'expected a folder, as in "file:out/team"' if no_folder else None
    if scheme[1] in _LOCAL and not scheme[2].removeprefix("//").startswith("/"):
        return 'is a relative folder; write it as "file:FOLDER"'
    if _has_dots(url):
        return _DOTS
    if holds_secret(url):  # S16
        return "holds a user, password or token; keep it in the environment of the export broker"
    return None


def _has_dots(url: str) -> bool:
    return not {".", ".."}.isdisjoint(re.split(r"[/:\\]", unquote(url)))


def _overlaps(form: WorkspaceForm, root: Path, settings: Mapping[str, str]) -> Iterator[Problem]:
    """What is put into one place must not arrive in another: a draft on the public site, say."""
    seen: dict[str, str] = {}
    own = {}
    for key in ("store", "ledger", "log_key", "signers"):
        value = settings.get(key) or str(getattr(form, key))
        file = value.removeprefix("sqlite:") if key == "ledger" else value
        called = key if key not in settings else f"AGENTGUARD_{key.upper()}"
        is_url = key == "store" or (key == "ledger" and file == value)
        own[called] = _place(file, root) if is_url else _local_place(file, root)
    for name, one in form.destinations.items():
        place = _place(one.url, root) if one.url is not None else None
        if place is None:
            continue
        for other, taken in seen.items():
            if _within(place, taken) or _within(taken, place):
                message = f"{name!r} and {other!r} share a place; give each a folder of its own"
                yield ("destinations", name, "url"), message
        for key, kept in own.items():
            if kept is not None and (_within(kept, place) or _within(place, kept)):
                message = f"{name!r} and {key} share a place; keep what is released elsewhere"
                yield ("destinations", name, "url"), message
        seen[name] = place


def _place(url: str, root: Path) -> str | None:
    """Where a URL or path leads, so that two can be compared; None where it is no place.

    Two spellings of one place compare equal. So may two places that differ only by scheme or case:
    several schemes lead to one service (s3 and s3a, gs and gcs, hdfs and webhdfs).
    """
    target = url.rsplit("::", 1)[-1]  # fsspec puts what it is given into the last link of a chain
    scheme = re.fullmatch("([A-Za-z][A-Za-z0-9+.-]*):(.*)", target)
    name = scheme[1].lower() if scheme is not None else "file"
    rest = scheme[2] if scheme is not None else target
    if name == "vendor":
        return None
    if name in _LOCAL:
        return _local_place(rest.removeprefix("//") if scheme is not None else rest, root)
    host, _, path = unquote(re.split("[?#]", rest)[0]).lstrip("/").partition("/")
    before, at, behind = host.rpartition("@")
    host = before if at and name in _AZURE else behind
    path = posixpath.normpath("/" + path.strip("/"))
    return f"remote:{re.sub(_OWN_PORT, '', host)}{path}".casefold().rstrip("/")


def _local_place(path: str, root: Path) -> str:
    real = os.path.realpath(os.path.abspath(root / path))
    return "/" + real.lstrip("/").casefold()  # POSIX keeps two leading slashes


def _within(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def policies_of(form: WorkspaceForm, root: Path) -> tuple[Path, ...]:
    """Files and folders of policies: those named, or else the folder beside the config file."""
    if form.policies is not None:
        return tuple(Path(os.path.abspath(root / one)) for one in form.policies)
    return (root / "policies",) if os.path.isdir(root / "policies") else ()


def storage_problem(name: str, value: str) -> str | None:
    """Why a `ledger` or `store` can't be used, None if it can."""
    if name == "store":
        bare = _SCHEME.fullmatch(value) and "://" not in value and not value.startswith("file:")
        if bare:
            return "expected a folder, or an fsspec URL with ://"
        is_remote = "://" in value and not value.startswith("file:")
        return _DOTS if is_remote and _has_dots(value) else None
    file = value.removeprefix("sqlite:")
    on_disk = file not in (value, "") and not file.startswith("//") and ":memory:" not in file
    if on_disk:
        return None
    try:
        LedgerUrl.parse(value)
    except ValueError as error:
        return str(error)
    return None


def holds_secret(url: str) -> bool:
    """Whether a URL carries a user and password, or a query that looks like a token (S16)."""
    address, *pairs = re.split("[?#&;]", url)
    if _USERINFO.search(unquote(address)):
        return True
    for pair in pairs:
        name, _, value = map(unquote, pair.partition("="))
        if _SECRET_NAME.search(name.lower()) or _SECRET_VALUE.fullmatch(value):
            return True
    return False
