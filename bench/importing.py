"""How long the first import takes, in fresh processes, and what in it weighs the most.

CPU time: it is what an import takes on a quiet machine, and a busy one does not change it much.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter

from bench.figures import Figure
from bench.rounds import Scale, p

_AIM = 0.3
_HEAVIEST = 10
_GUARD = "from agentguard import Binding, Guard"
_TOOLS = "from langchain_core.tools import BaseTool, tool"
# (what, imported before, timed, aim)
_CASES = (
    ("import agentguard", "", "import agentguard", _AIM),
    (f"{_GUARD}, what LangChain takes left out", _TOOLS, _GUARD, _AIM),
    (_GUARD, "", _GUARD, None),
    ("agentguard.langgraph, what LangGraph takes left out",
     f"import langgraph.prebuilt; {_TOOLS}",
     "import agentguard.langgraph.protect_graph", None),
    ("the command line: agentguard.cli", "", "import agentguard.cli.app", None),
)  # fmt: skip


def measure(scale: Scale) -> list[Figure]:
    """Medians of several processes; the first one leaves compiled files, as an install does."""
    figures = []
    for what, before, code, aim in _CASES[:1] if scale.quick else _CASES:
        scale.say(f"importing: {what}")
        times = [_seconds(before, code) for _ in range(scale.of(6, 1))]
        figures.append(
            Figure(subject="importing", what=what, value=p(50, times), unit="s", aim=aim)
        )
    scale.say("importing: the heaviest")
    for package, ms in _heaviest(_GUARD):
        what = f"of {_GUARD}: {package}"
        figures.append(Figure(subject="importing", what=what, value=ms, unit="ms"))
    return figures


def _seconds(before: str, code: str) -> float:
    program = (
        f"import time\n{before}\nbegan = time.process_time()\n{code}\n"
        "print(time.process_time() - began)"
    )
    return float(_run("-c", program).stdout)


def _heaviest(code: str) -> list[tuple[str, float]]:
    """The packages whose modules take the most time of their own, in ms."""
    spent: Counter[str] = Counter()
    for line in _run("-X", "importtime", "-c", code).stderr.splitlines():
        found = re.match(r"import time: +(\d+) \| +\d+ \| +([\w.]+)", line)
        if found is not None:
            spent[found[2].split(".")[0]] += int(found[1])
    return [(package, us / 1000) for package, us in spent.most_common(_HEAVIEST)]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, text=True, env=environ
    )
