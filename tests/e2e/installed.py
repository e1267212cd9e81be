"""Build wheel and sdist, and use each from outside the clone, under every Python that is here.

    python -m tests.e2e.installed

makes both archives in a temporary folder, looks at what is in them, and then, for each of Python
3.11, 3.12 and 3.13 that is on PATH, installs the wheel (once also the sdist) into a fresh
environment and runs the command line and a guarded graph there. It exits 1 if anything fails, and
names each version that is not on PATH. It is a script, not a test: it installs packages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.11", "3.12", "3.13")
PROGRAM = '''
from typing import Annotated

from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

import agentguard
from agentguard import Guard, Output, media_tool
from agentguard.langgraph import protect


@media_tool(stage="edit")
def note(width: int, file: Annotated[str, Output(".vtt")]) -> str:
    """Write captions."""
    with open(file, "x", encoding="utf-8") as out:
        out.write("WEBVTT\\n\\n00:00.000 --> 00:01.000\\nhello\\n")
    return "written"


with Guard.from_config("agentguard.toml", tools=[note]) as guard:
    says = AIMessage("", tool_calls=[{"name": "note", "args": {"width": 1}, "id": "c1"}])
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [says]})
    builder.add_node("tools", ToolNode(guard.tools(agent="editor")))
    builder.add_edge(START, "model")
    builder.add_edge("model", "tools")
    sealed = protect(builder, guard, agents={"tools": "editor"})
    graph = sealed.compile(checkpointer=InMemorySaver())
    with guard.open_job("try it", requested_by="kim@acme.example") as job:
        state = graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
    answer = state["messages"][-1]
    assert answer.status == "success" and "asset-" in answer.text, answer
    print(agentguard.__version__, answer.text)
'''


def main() -> int:
    """Build, look, install and run."""
    with tempfile.TemporaryDirectory(prefix="agentguard-installed-") as place:
        folder = Path(place)
        clean = folder / "source"  # what is tracked, and nothing that lies about
        run("git", "clone", "--quiet", str(ROOT), str(clean))
        wheel, sdist = build(clean, folder)
        look(wheel, sdist)
        tried = 0
        for version in VERSIONS:
            python = interpreter(version)
            if python is None:
                print(f"Python {version}: not on PATH, so not tried")
                continue
            archives = [wheel] if tried else [wheel, sdist]
            for archive in archives:
                use(python, archive, folder / f"{version}-{archive.suffix[1:]}")
                print(f"Python {version}: {archive.name} installs and runs")
            tried += 1
    return 0 if tried else 1


def build(source: Path, folder: Path) -> tuple[Path, Path]:
    """The wheel and the sdist of the clone."""
    backend = "import setuptools.build_meta as b; b.build_{}(r'{}')"
    for kind in ("sdist", "wheel"):
        run(sys.executable, "-c", backend.format(kind, folder), cwd=source)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def look(wheel: Path, sdist: Path) -> None:
    """All that the package needs is in both, and nothing else is in the wheel."""
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "agentguard").rglob("*")
        if path.suffix in (".py", ".cedar", ".cedarschema", ".sql", ".typed")
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    with tarfile.open(sdist) as archive:
        source = {name.split("/", 1)[-1] for name in archive.getnames()}
    if held != wanted:
        sys.exit(f"{wheel.name} has not what the package is: {sorted(held ^ wanted)}")
    if missing := wanted - source:
        sys.exit(f"{sdist.name} lacks {sorted(missing)}")


def interpreter(version: str) -> str | None:
    """The interpreter of this version, None if there is none that runs."""
    found = shutil.which(f"python{version}")
    if found is None or subprocess.run([found, "-c", ""], capture_output=True).returncode:
        return None
    return found


def use(python: str, archive: Path, folder: Path) -> None:
    """Install an archive into a fresh environment, and work with it outside the clone."""
    run(python, "-m", "venv", str(folder / "env"))
    bin, work = folder / "env" / "bin", folder / "work"
    work.mkdir()
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    pip = [str(bin / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    if archive.suffix == ".gz":
        run(*pip, *constraints, "setuptools")
    run(*pip, *constraints, "--no-build-isolation", str(archive))
    guard = str(bin / "agentguard")
    run(guard, "init", "--person", "kim@acme.example", "--person", "omar@acme.example", cwd=work)
    (work / "program.py").write_text(PROGRAM, "utf-8")
    run(str(bin / "python"), "program.py", cwd=work)
    run(guard, "audit", "verify", cwd=work)
    run(guard, "matrix", cwd=work)


def run(*command: str, cwd: Path | None = None) -> None:
    """Run a program whose failure ends this one, with what it printed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHONPATH")}
    done = subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
