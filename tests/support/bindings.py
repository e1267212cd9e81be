"""The words in which tests declare their tools, from here only.

A change to how tools are declared edits this file, not the tests.
"""

from agentguard import Arg, Attempt, Binding, McpTool, Returned, idempotency_key

__all__ = ["Arg", "Attempt", "Binding", "McpTool", "Returned", "idempotency_key"]
