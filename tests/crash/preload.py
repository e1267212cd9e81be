"""What every worker needs, imported once: each is a fork of a process that has run this.

Some of it is imported by the product only when it is first used, which would be in every fork.
"""

from __future__ import annotations

import gc
import logging

from PIL import Image

import tests.crash.roles
import tests.crash.worker  # noqa: F401
from agentguard.content.text.scan import scan
from agentguard.policy.policy_set import Policy

Image.init()
Policy.load()
scan("a calm sea")
logging.getLogger("agentguard").addHandler(logging.NullHandler())
gc.freeze()  # a fork's collections leave these pages shared
