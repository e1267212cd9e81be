"""A declaration in roles and its twin in lists compile to one and the same (the digest, too).

Policy, approvals and the log go by the compiled form: a change of words must not change any of it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from agentguard.bindings.bound import Bound
from agentguard.bindings.compilation import compiled
from agentguard.bindings.compiled_binding import CompiledBinding as Binding
from graphs.bindings import bindings as declared
from tools.edit import adjust, caption, compose_photo, crop, place_logo, resize
from tools.generate import generate_image
from tools.render import render_video, thumbnail, transcode
from tools.review import review_media


def in_lists(image_vendor: str | None) -> list[Binding]:
    return [
        Binding(
            generate_image,
            stage="generate",
            texts=["prompt"],
            plain=["width", "height", "seed"],
            outputs=["file"],
            destination=image_vendor,
        ),
        Binding(
            crop,
            stage="edit",
            assets=["source"],
            plain=["left", "top", "width", "height"],
            outputs=["file"],
        ),
        Binding(
            resize,
            stage="edit",
            assets=["source"],
            plain=["width", "height", "fit"],
            outputs=["file"],
        ),
        Binding(
            caption,
            stage="edit",
            assets=["source"],
            texts=["text"],
            plain=["position"],
            outputs=["file"],
        ),
        Binding(
            place_logo,
            stage="edit",
            assets=["source", "logo"],
            plain=["corner", "scale"],
            outputs=["file"],
        ),
        Binding(
            compose_photo,
            stage="edit",
            assets=["source", "photo"],
            plain=["position", "scale"],
            outputs=["file"],
        ),
        Binding(
            adjust,
            stage="edit",
            assets=["source"],
            plain=["brightness", "contrast", "saturation"],
            outputs=["file"],
        ),
        Binding(
            render_video,
            stage="render",
            assets=["stills[]"],
            plain=["seconds_each", "width", "height", "fps"],
            outputs={"file": ".mp4"},
        ),
        Binding(
            transcode,
            stage="render",
            assets=["source"],
            plain=["width", "height"],
            outputs={"file": ".mp4"},
        ),
        Binding(
            thumbnail,
            stage="render",
            assets=["source"],
            plain=["second"],
            outputs={"file": ".png"},
        ),
        Binding(review_media, stage="review", assets=["source"]),
    ]


def fields_of(bound: Bound) -> dict[str, Any]:
    binding = bound.binding
    values = {each.name: getattr(binding, each.name) for each in dataclasses.fields(binding)}
    lists = ("texts", "plain", "operations", "state")
    return {name: sorted(v) if name in lists else v for name, v in values.items()}


@pytest.mark.parametrize("image_vendor", ["images", None])
def test_reference_tools_compile_to_what_they_were(image_vendor: str | None) -> None:
    olds = [Bound(each) for each in in_lists(image_vendor)]
    news = [compiled(each) for each in declared(image_vendor=image_vendor)]
    assert [each.name for each in news] == [each.name for each in olds]
    for new, old in zip(news, olds, strict=True):
        assert fields_of(new) == fields_of(old)
        assert new.digest == old.digest
        assert new.args_schema.model_json_schema() == old.args_schema.model_json_schema()
