"""What the reference tools' arguments mean: one Binding each, written as a developer writes them.

`review_media` describes media to the model, but only by measurements and fixed words (its findings
never repeat what a medium says), so it reveals nothing of the class that it looks at.
"""

from __future__ import annotations

from langchain_core.tools import BaseTool

from agentguard import Asset, Binding, Guard, Output, Text
from tools.edit import adjust, caption, compose_photo, crop, place_logo, resize
from tools.generate import generate_image
from tools.render import render_video, thumbnail, transcode
from tools.review import review_media

IMAGE_VENDOR = "images"
"""The Destination that prompts go to when OpenAI paints; the offline painter sends nothing."""

AGENTS = {
    "painter": "generate",
    "editor": "edit",
    "renderer": "render",
    "reviewer": "review",
    "traffic": "queue",
    "publisher": "export",
}
"""The agents of the studio and the one stage that each takes; `agentguard init` names them too."""


def bindings(*, image_vendor: str | None) -> list[Binding]:
    """The Bindings of the reference tools.

    Args:
        image_vendor: the Destination of prompts; None where the offline painter paints.
    """
    source, png, mp4 = {"source": Asset()}, {"file": Output()}, {"file": Output(".mp4")}
    return [
        Binding(generate_image, stage="generate", to=image_vendor, args={"prompt": Text(), **png}),
        Binding(crop, stage="edit", args={**source, **png}),
        Binding(resize, stage="edit", args={**source, **png}),
        Binding(caption, stage="edit", args={**source, "text": Text(), **png}),
        Binding(place_logo, stage="edit", args={**source, "logo": Asset(), **png}),
        Binding(compose_photo, stage="edit", args={**source, "photo": Asset(), **png}),
        Binding(adjust, stage="edit", args={**source, **png}),
        Binding(render_video, stage="render", args={"stills": Asset(), **mp4}),
        Binding(transcode, stage="render", args={**source, **mp4}),
        Binding(thumbnail, stage="render", args={**source, "file": Output(".png")}),
        Binding(review_media, stage="review", args=source),
    ]


def toolboxes(guard: Guard) -> dict[str, list[BaseTool]]:
    """Each agent's tools, guarded: the reference tools of its stage, and the guard's own."""
    edit = [place_logo, compose_photo, caption, crop, resize, adjust]
    return {
        "painter": guard.tools([generate_image]),
        "editor": [guard.list_tool(), *guard.tools(edit)],
        "renderer": guard.tools([render_video, transcode, thumbnail]),
        "reviewer": guard.tools([review_media]),
        "traffic": [guard.queue_tool()],
        "publisher": [guard.export_tool()],
    }
