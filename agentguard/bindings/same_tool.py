"""Whether a tool object is the one that was bound."""

from __future__ import annotations

from langchain_core.tools import BaseTool, StructuredTool

from agentguard.bindings.compiled_binding import CompiledBinding
from agentguard.bindings.declaration import MARK
from agentguard.bindings.mcp import require_place, require_same_endpoint
from agentguard.bindings.tool_class import require_upstream_class, runs_alike


def same_tool(binding: CompiledBinding, tool: BaseTool) -> bool:
    """Whether a tool object is the one that was bound, or a copy of it with the same state.

    Raises:
        BindingError: an MCP tool other than the one that was pinned, or one whose class overrides
            what runs before `_run`, saying what differs.
    """
    pin, original = binding.mcp, binding.tool
    if pin is not None:
        pin.require(tool)
        require_same_endpoint(original, tool)
        require_place(
            tool,
            sends=bool(binding.assets or binding.texts),
            placed=binding.destination is not None,
            local=binding.local,
        )
    require_upstream_class(original)
    require_upstream_class(tool)
    if binding.known is not None:
        binding.known.accept(tool)
        return True
    return (
        pin is not None
        or tool is original
        or runs_alike(original, tool)
        or _is_same_function(original, tool)
    )


def _is_same_function(original: BaseTool, tool: BaseTool) -> bool:
    """Whether LangChain made both of the same declared function; the one that was bound runs."""
    if type(tool) is not StructuredTool or type(original) is not StructuredTool:
        return False
    bodies = [(each.func, each.coroutine) for each in (original, tool)]
    declared = any(getattr(body, MARK, None) is not None for body in bodies[0])
    return declared and all(one is other for one, other in zip(*bodies, strict=True))
