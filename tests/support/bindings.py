"""The words in which tests declare their tools, from here only.

A change to how tools are declared edits this file, not the tests.
"""

from agentguard import Attempt, McpTool, idempotency_key
from agentguard.bindings.compiled_binding import Arg
from agentguard.bindings.compiled_binding import CompiledBinding as Binding

__all__ = ["Arg", "Attempt", "Binding", "McpTool", "idempotency_key"]
