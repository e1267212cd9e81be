"""Where a guarded tool answers otherwise than upstream's tests say, on purpose.

A test listed here must fail, and fail with the text given, or the list is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """One upstream test that passes over plain tools and not over guarded ones.

    Args:
        test: its node id.
        shows: a text that its failure must hold.
        reason: the documented refusal or rule behind it.
    """

    test: str
    shows: str
    reason: str


DEVIATIONS = (
    Deviation(
        test="tests/test_react_agent.py::test_react_agent_parallel_tool_calls[memory-v1]",
        shows="assert 1 == 2",
        reason="I8: a call runs at most once. A sibling's pause makes LangGraph run the node again"
        " and upstream expects the finished call's tool to run twice; guarded, it ran once",
    ),
    Deviation(
        test="tests/test_tool_node.py::test_tool_node",
        shows="the tool returned media that is not in the message",
        reason="I3: a URL of media in a tool's result is never handed on",
    ),
    Deviation(
        test="tests/unit_tests/agents/middleware/implementations/test_human_in_the_loop.py::"
        "test_per_call_resume_with_each_decision[edit-with-an-undeclared-arg]",
        shows="assert ([], 'error') == (['bob'], 'success')",
        reason="an argument that the tool does not have is refused, not dropped",
    ),
)
