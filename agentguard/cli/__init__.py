"""The command line by noun; `agentguard.cli` puts it together. Heavy imports wait inside."""
