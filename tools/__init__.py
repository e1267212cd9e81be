"""Reference media tools: plain LangChain tools over file paths.

They know nothing of agentguard: a tool reads the files it is given, writes the file it is told to
write, and says in one sentence what it did. Whoever hands them to a model binds and guards them.
"""
