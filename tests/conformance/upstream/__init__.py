"""Upstream's own ToolNode, prebuilt and agent tests over guarded tools: `make conformance`."""
