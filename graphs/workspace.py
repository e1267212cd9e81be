"""The workspace that the reference graphs bring along: people, agents, destinations, keys.

`make_workspace` writes a fresh one into a folder. The people's private keys are made there too,
each under a passphrase that only this process ever knew: what they sign later is nobody's.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agentguard import Binding, Guard
from agentguard.config import workspace as configuration
from agentguard.people.keys import create_person_key, load_person_key, person_key_path
from agentguard.people.signers import append_signer
from agentguard.transparency.log_key import create_log_key
from graphs.bindings import IMAGE_VENDOR, bindings

REQUESTER = "kim@studio.example"
"""Asks for the work and brings the material, so she approves none of it."""

CONFIG = """\
# A workspace for trying out the reference graphs. `agentguard init` writes one for real work.
workspace = "demo-studio"

[people]
"kim@studio.example" = { groups = ["creative"] }    # asks for the work
"sam@studio.example" = { groups = [] }              # owns the agents
"ines@studio.example" = { groups = ["marketing"] }  # may approve
"omar@studio.example" = { groups = ["legal"] }      # may approve, also for legal

# One agent per stage: whoever hijacks one reaches that stage only.
[agents]
painter   = { stages = ["generate"], owner = "sam@studio.example" }
editor    = { stages = ["edit"],     owner = "sam@studio.example" }
renderer  = { stages = ["render"],   owner = "sam@studio.example" }
reviewer  = { stages = ["review"],   owner = "sam@studio.example" }
traffic   = { stages = ["queue"],    owner = "sam@studio.example" }
publisher = { stages = ["export"],   owner = "sam@studio.example" }

# The team folder takes brand and customer material without a person; the public site takes nothing
# sensitive unless a person has looked at it.
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

# Where prompts go when OpenAI paints; the offline painter sends nothing anywhere.
[destinations.images]
audience = "vendor"
environment = "production"
ceiling = []
hosts = ["api.openai.com"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Private keys of demo people, by person; they exist for this process."""

    held: Mapping[str, Ed25519PrivateKey]

    def of(self, person: str) -> Ed25519PrivateKey | None:
        """A person's key, None if it is not held here."""
        return self.held.get(person)


def make_workspace(folder: Path) -> Keys:
    """Write configuration, log key and everybody's keys into a new folder."""
    folder.mkdir(parents=True)
    (folder / "agentguard.toml").write_text(CONFIG, "utf-8")
    workspace = configuration.load(folder / "agentguard.toml", {})
    create_log_key(workspace.log_key)
    held = {}
    for person in workspace.people:
        path = person_key_path(folder / "keys", person)
        passphrase = secrets.token_urlsafe(24)
        append_signer(workspace.signers, person, create_person_key(path, passphrase), "demo")
        held[person] = load_person_key(path, passphrase)
    return Keys(held=held)


def open_guard(config: Path | None, *more: Binding) -> Guard:
    """Open a workspace with the Bindings of the reference tools.

    Args:
        config: its agentguard.toml; None searches the working directory and above.
        more: further tools.

    Raises:
        ConfigError, BindingError, LedgerUnavailable, LedgerCorrupt: see `Guard.from_config`.
    """
    # With a key the tool sends its prompts to OpenAI; then the Binding has to say so.
    vendor = IMAGE_VENDOR if os.environ.get("OPENAI_API_KEY") else None
    return Guard.from_config(config, tools=[*bindings(image_vendor=vendor), *more])


def new_folder(parent: Path, name: str) -> Path:
    """A folder `name-N` that does not exist yet, so that each run begins afresh."""
    number = 1
    while (parent / f"{name}-{number}").exists():
        number += 1
    return parent / f"{name}-{number}"
