"""What the models are told: the same words for a language model and for the scripted one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langchain_core.messages import HumanMessage

from agentguard.config.workspace import Workspace
from agentguard.model import Audience

_ROLES = {
    "painter": "You paint. Call generate_image once for every picture of your task, all at once."
    " Report one numbered line per picture with its asset id.",
    "editor": "You edit pictures. Call list_assets first: it names the logo and the photos of this"
    " job. Report one numbered line per picture with the id of its final version.",
    "renderer": "You render films from pictures. Report the film's asset id.",
    "reviewer": "You review media. Call review_media for every asset of your task and report one"
    " line each.",
    "traffic": "You queue finished media for a destination with queue_for_release. Report one line"
    " per asset.",
    "publisher": "You release media with export_asset, to the destination that your task names and"
    " to no other. Report one line per asset.",
}
_COMMON = (
    "Media has ids such as asset-0123456789abcdef0123; never write a path or a URL. A call may be"
    " refused: then report the reason word for word and do not try to get around it. Some calls"
    " wait for a person; that is normal."
)
_DIRECTOR = (
    "You direct a small studio. Plan from the brief, then give one task at a time to one agent"
    " with hand_over and read its report. The order of work is: painter, editor, renderer (if a"
    " film is wanted), reviewer, then for each destination traffic (production destinations take"
    " only what was queued) and publisher. Name assets by their ids. Release only what the brief"
    " asks to be released. When all is done, or cannot be done, say in a few lines what was made,"
    " where it went and what was refused."
)


def stage_prompt(agent: str) -> str:
    """The system prompt of a stage agent."""
    return f"{_ROLES[agent]} {_COMMON}"


def director_prompt(workspace: Workspace) -> str:
    """The system prompt of the director, with the destinations that are configured."""
    return f"{_DIRECTOR}\n\n{_destinations(workspace)}"


def solo_prompt(workspace: Workspace) -> str:
    """The system prompt of the one agent that does everything."""
    roles = " ".join(role.replace("You ", "To work: you ", 1) for role in _ROLES.values())
    return f"You are a studio of one. Work in this order. {roles} {_COMMON}\n\n" + _destinations(
        workspace
    )


def brief_message(brief: str, material: Mapping[str, Sequence[str]]) -> HumanMessage:
    """The message that a run begins with.

    Args:
        brief: what the person wants.
        material: file name → class, of what was imported for this job.
    """
    lines = [f"- {name}: {' + '.join(labels)}" for name, labels in material.items()]
    return HumanMessage("\n".join([brief, *(["", "Material:", *lines] if lines else [])]))


def _destinations(workspace: Workspace) -> str:
    lines = [
        f"- {one.id}: {one.audience}, {one.environment}"
        for one in workspace.destinations.values()
        if one.audience is not Audience.VENDOR
    ]
    return "\n".join(["Destinations:", *lines])
