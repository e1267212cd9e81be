"""The workspace of every scenario: people, agents and their tools, destinations."""

from __future__ import annotations

from collections.abc import Mapping

AGENTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "painter": ("generate", ("generate_image", "stock_photo", "partner_plugin")),
    "editor": ("edit", ("crop", "caption", "retouch", "note_brief")),
    "reviewer": ("review", ("review_media",)),
    "traffic": ("queue", ("queue_for_release",)),
    "publisher": ("export", ("export_asset", "publish")),
}
"""Agent → its stage and its tools."""

HOME: Mapping[str, str] = {tool: agent for agent, (_, tools) in AGENTS.items() for tool in tools}
"""Tool → the agent that has it."""

PEOPLE: Mapping[str, tuple[str, ...]] = {
    "kim": (),
    "omar": ("legal",),
    "ines": ("marketing",),
    "lee": (),
    "ada": (),
}
"""Person → groups. ada owns the agents; kim asks for jobs unless a scenario says otherwise."""

OWNER = "ada"
VENDOR = "images"


def mail(person: str) -> str:
    """The id of a person."""
    return f"{person}@acme.example"


def config() -> str:
    """The agentguard.toml of the workspace."""
    people = "\n".join(
        f'"{mail(name)}" = {{ groups = [{", ".join(repr(g) for g in groups)}] }}'
        for name, groups in PEOPLE.items()
    )
    agents = "\n".join(
        f'{name} = {{ stages = ["{stage}"], owner = "{mail(OWNER)}" }}'
        for name, (stage, _) in AGENTS.items()
    )
    return f"""workspace = "acme-evals"
[people]
{people}
[agents]
{agents}
[lifetimes]
review = "1h"
[destinations.team]
url = "file:out/team"
audience = "internal"
environment = "draft"
ceiling = ["brand", "customer-data"]
[destinations.site]
url = "file:out/site"
audience = "public"
environment = "production"
[destinations.{VENDOR}]
audience = "vendor"
environment = "draft"
ceiling = ["brand"]
"""
