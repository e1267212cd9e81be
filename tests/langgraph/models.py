"""A chat model that says what a test wrote."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel


class Scripted(GenericFakeChatModel):
    """Says its messages in order, whatever it is asked; tools are bound and ignored."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self
