"""`agentguard.toml`, or `[tool.agentguard]` of a pyproject.toml, as one frozen Workspace.

What is not understood is refused (I11), each problem with file and line. Messages repeat names,
never URLs, which may hold a secret (S16).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from agentguard.config.environment import settings_of
from agentguard.config.file import ConfigFile
from agentguard.config.schema import (
    DEFAULT_CLASSES,
    MAX_RIGHT,
    form_of,
    policies_of,
    storage_problem,
)
from agentguard.errors import ConfigError
from agentguard.model import Agent, Audience, Destination, Person, Sensitivity

_URL_OF_NONE: Mapping[Audience, str] = MappingProxyType({Audience.VENDOR: "vendor:"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """How long things live (ms); `review` is the window in which people may answer."""

    credential: int = MAX_RIGHT
    grant: int = 60_000
    review: int = 24 * 3_600_000
    lease: int = 30_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How large one asset may be."""

    max_bytes: int = 512 * 2**20
    max_pixels: int = 100_000_000


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """One content-production environment, as configured.

    Args:
        root: folder of the config file; relative paths were resolved against it.
        classes: the sensitivity of every known label.
        ledger: `sqlite:/absolute/path` or a `postgresql://` URL.
        store: where assets are kept: an absolute folder or an fsspec URL.
        policies: .cedar files, and folders of them, besides the default policy.
        other_tools: names of tools that policies may name although another process, or a session
            of this one, binds them.
        replace_default_policy: a file of `policies` takes the place of the default file of its
            name, instead of being added.
        chat_model: id of the vendor Destination whose ceiling is what the chat model may see.
        services: who, besides the requester, may rejoin a waiting job.
    """

    id: str
    root: Path
    people: Mapping[str, Person]
    agents: Mapping[str, Agent]
    destinations: Mapping[str, Destination]
    classes: Mapping[str, Sensitivity]
    lifetimes: Lifetimes
    limits: Limits
    ledger: str = field(repr=False)  # S16: from the environment it may hold a password
    store: str = field(repr=False)
    log_key: Path
    signers: Path
    policies: tuple[Path, ...]
    other_tools: frozenset[str]
    replace_default_policy: bool
    chat_model: str | None
    services: frozenset[str]

    def sensitivity(self, labels: Iterable[str]) -> Sensitivity:
        """The highest of the labels; an unknown one is RESTRICTED (S33), none at all is OPEN."""
        found = [self.classes.get(label, Sensitivity.RESTRICTED) for label in labels]
        return max(found, key=lambda one: one.rank, default=Sensitivity.OPEN)

    @cached_property
    def open_labels(self) -> frozenset[str]:
        """Every label of sensitivity `open`; no ceiling needs to name them."""
        return frozenset(k for k, one in self.classes.items() if one is Sensitivity.OPEN)

    @cached_property
    def chat_ceiling(self) -> frozenset[str]:
        """What the chat model may see: open labels, and the ceiling of its Destination if named."""
        if self.chat_model is None:
            return self.open_labels
        return self.open_labels | self.destinations[self.chat_model].ceiling


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Workspace:
    """Reads the configuration of a workspace.

    Args:
        path: an agentguard.toml, or a pyproject.toml. None: AGENTGUARD_CONFIG, or else the
            nearest such file in the working directory or above it.
        environ: AGENTGUARD_LEDGER, _STORE, _LOG_KEY and _SIGNERS override the file.

    Raises:
        ConfigError: something is missing, unknown or unsafe; names file and line, or variable.
    """
    settings = settings_of(environ)
    if path is None and "config" in settings:
        path = Path(settings["config"])
    source = _nearest(Path.cwd()) if path is None else ConfigFile.read(Path(os.path.abspath(path)))
    if source.table is None:
        raise ConfigError(f"{source.file}: has no [tool.agentguard] table; add one")
    return _workspace(source, settings)


def _nearest(start: Path) -> ConfigFile:
    for folder in (start, *start.parents):
        for name in ("agentguard.toml", "pyproject.toml"):
            if os.path.lexists(folder / name):
                source = ConfigFile.read(folder / name)
                if source.table is not None:
                    return source
    tried = "agentguard.toml, or pyproject.toml with [tool.agentguard],"
    raise ConfigError(f"no {tried} in {start} or above; `agentguard init` writes one")


def _workspace(source: ConfigFile, settings: Mapping[str, str]) -> Workspace:
    for name in {"ledger", "store"} & settings.keys():
        if problem := storage_problem(name, settings[name]):
            raise ConfigError(f"AGENTGUARD_{name.upper()}: {problem}")
    form, root = form_of(source, settings), source.file.parent

    def chosen(name: str) -> str:
        return str(settings.get(name) or getattr(form, name))

    people = {k: Person(id=k, groups=frozenset(v.groups)) for k, v in form.people.items()}
    agents = {
        k: Agent(id=k, owner=v.owner, stages=frozenset(v.stages)) for k, v in form.agents.items()
    }
    destinations = {
        k: Destination(
            id=k,
            url=_url(v.url, root) if v.url is not None else _URL_OF_NONE.get(v.audience, ""),
            audience=v.audience,
            environment=v.environment,
            ceiling=frozenset(v.ceiling),
            hosts=frozenset(v.hosts),
        )
        for k, v in form.destinations.items()
    }
    return Workspace(
        id=form.workspace,
        root=root,
        people=MappingProxyType(people),
        agents=MappingProxyType(agents),
        destinations=MappingProxyType(destinations),
        classes=MappingProxyType({**DEFAULT_CLASSES, **form.classes}),
        lifetimes=Lifetimes(**form.lifetimes.model_dump(exclude_unset=True)),
        limits=Limits(**form.limits.model_dump(exclude_unset=True)),
        ledger=_located(chosen("ledger"), root),
        store=_located(chosen("store"), root),
        log_key=Path(_absolute(chosen("log_key"), root)),
        signers=Path(_absolute(chosen("signers"), root)),
        policies=policies_of(form, root),
        other_tools=frozenset(form.other_tools),
        replace_default_policy=form.unsafe_replace_default_policy,
        chat_model=form.chat_model,
        services=frozenset(form.services),
    )


def _absolute(path: str, root: Path) -> str:
    return os.path.abspath(root / path)


def _located(value: str, root: Path) -> str:
    if value.startswith("sqlite:"):
        return "sqlite:" + _absolute(value.removeprefix("sqlite:"), root)
    if "://" in value and not value.startswith("file:"):
        return value
    return _absolute(_folder(value), root)


def _url(url: str, root: Path) -> str:
    return "file://" + _absolute(_folder(url), root) if url.startswith("file:") else url


def _folder(url: str) -> str:
    return url.removeprefix("file:").removeprefix("//")  # file:out, file:/out, file:///out
