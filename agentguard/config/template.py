"""The configuration that a new workspace starts from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from agentguard.config.file import ConfigFile
from agentguard.config.schema import (
    form_of,
)
from agentguard.errors import ConfigError


def template(workspace: str, people: Sequence[str]) -> str:
    """The agentguard.toml that `agentguard init` writes.

    Args:
        workspace: its id.
        people: at least two ids: the first owns the agents, so another one has to approve (I1).

    Raises:
        ConfigError: fewer than two people, or an id that can't be used.
    """
    if len(people) < 2:
        raise ConfigError(f"got {len(people)} people, expected 2: nobody approves their own job")
    text = _TEMPLATE.format(
        workspace=_quoted(workspace),
        people="".join(
            f"{_quoted(one)} = {{ groups = [{'' if n == 0 else _quoted('legal')}] }}\n"
            for n, one in enumerate(people)
        ),
        owner=_quoted(people[0]),
    )
    form_of(ConfigFile.parse(Path("agentguard.toml"), text))
    return text


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)  # a JSON string is a TOML basic string


_TEMPLATE = """\
# agentguard.toml: who may do what in this workspace. Unknown keys are errors. No secrets here.
# Lines that start with "#" and no space are options; take the "#" away to use one.
workspace = {workspace}

# The vendor (below) that runs the chat model; without it the model sees open media only.
#chat_model = "chat"
# Where things are kept, relative to this file. AGENTGUARD_LEDGER and AGENTGUARD_STORE override.
#ledger = "sqlite:.agentguard/ledger.db"
#store = ".agentguard/assets"
#log_key = ".agentguard/log.key"
#signers = "agentguard.signers"
# Services that may rejoin a waiting job for the person who asked for it.
#services = ["scheduler"]

# Nobody approves a job they asked for, or work of an agent they own: it takes two people.
[people]
{people}
# One agent per stage, so that a hijacked one reaches one stage only.
[agents]
painter   = {{ stages = ["generate"], owner = {owner} }}
editor    = {{ stages = ["edit"],     owner = {owner} }}
renderer  = {{ stages = ["render"],   owner = {owner} }}
reviewer  = {{ stages = ["review"],   owner = {owner} }}
traffic   = {{ stages = ["queue"],    owner = {owner} }}
publisher = {{ stages = ["export"],   owner = {owner} }}

# audience: internal, partner, public or vendor. environment: draft or production.
# ceiling: classes that may go there without a person.
[destinations.team]
url = "file:out/team"
audience = "internal"
environment = "draft"
ceiling = ["brand", "customer-data"]

[destinations.site]
url = "file:out/site"
audience = "public"
environment = "production"
ceiling = []

#[destinations.chat]
#audience = "vendor"
#environment = "production"
#ceiling = ["brand"]

# Your own labels, or known ones raised: open, sensitive or restricted.
[classes]
#brand = "restricted"
#storyboard = "sensitive"

[lifetimes]
#credential = "5m"
#grant = "60s"
#review = "24h"
#lease = "30s"
[limits]
#max_bytes = 536870912
#max_pixels = 100000000
"""
