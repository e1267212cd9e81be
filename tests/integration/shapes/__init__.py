"""Sixty shapes in which tutorials and apps call tools: what agentguard does with each."""
