"""Runs `agentguard` in a workspace folder, as a person at a shell would."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from agentguard.cli.app import app
from tests.support import Clock, Studio, build, call, open_studio, says

PASSPHRASE = "correct horse battery"


@dataclass
class Shell:
    """A shell in a folder; the last result is kept for messages of failed tests."""

    folder: Path

    def __call__(
        self, *words: str | Path, code: int = 0, input: str | None = None, secret: bool = True
    ) -> str:
        """Run a command; returns its stdout.

        Args:
            code: the exit code it must have.
            secret: AGENTGUARD_PASSPHRASE is set.
        """
        return self.both(*words, code=code, input=input, secret=secret)[0]

    def both(
        self, *words: str | Path, code: int = 0, input: str | None = None, secret: bool = True
    ) -> tuple[str, str]:
        """Run a command; returns (stdout, stderr)."""
        env = {
            "XDG_CONFIG_HOME": str(self.folder / "home"),
            "AGENTGUARD_PASSPHRASE": PASSPHRASE if secret else None,
        }
        result = CliRunner().invoke(app, [str(word) for word in words], input=input, env=env)
        unexpected = result.exception is not None and not isinstance(result.exception, SystemExit)
        if unexpected and result.exception is not None:
            raise result.exception
        assert result.exit_code == code, (words, result.exit_code, result.stdout, result.stderr)
        return result.stdout, result.stderr

    def json(self, *words: str | Path, code: int = 0) -> Any:
        """What a command prints with --json; anything else on stdout or stderr fails."""
        out, err = self.both(*words, "--json", code=code)
        assert err == ""
        assert out.isascii()
        return json.loads(out)

    def error(self, *words: str | Path, code: int = 1) -> str:
        """The one line a failing command prints."""
        out, err = self.both(*words, code=code)
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err


@contextmanager
def studio_in(folder: Path, *, keys: dict[str, Any] | None = None) -> Iterator[Studio]:
    """The test studio over a folder, on the real clock that the command line has too.

    Args:
        keys: {} if the folder is a workspace already; None writes one.
    """
    studio = open_studio(folder, clock=Clock(now=time.time_ns() // 1_000_000), keys=keys)
    try:
        yield studio
    finally:
        studio.guard.close()


def ask_for_export(
    studio: Studio, job: Any, asset: str, *, caption: str = "", to: str = "site"
) -> tuple[Any, Any]:
    """Run a graph up to the interrupt of an export; returns (graph, config)."""
    texts = {"caption": caption} if caption else {}
    script = [
        says(call("look", {"source": asset})),
        says(call("queue_for_release", {"asset": asset, "to": to})),
        says(call("export_asset", {"asset": asset, "to": to, **texts})),
    ]
    graph = build(studio, script)
    config = job.config(thread_id="t")
    state = graph.invoke({"messages": [("user", "go")]}, config)
    assert "__interrupt__" in state, state["messages"][-1].content
    return graph, config
