"""The tests' own PostgreSQL server: a run that is killed leaves one behind, the next removes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from tests.support import databases

_USER = """
import sys
from tests.support.databases import postgres_server
with postgres_server(sys.argv[1]) as server:
    print(server.get_pid(), flush=True)
    sys.stdin.readline()
"""


def test_a_server_is_removed_once_every_user_of_it_was_killed() -> None:
    name = f"abandoned-{os.getpid()}"
    folder = Path(tempfile.gettempdir()) / f"{databases._PREFIX}{name}"
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", _USER, name], stdin=pipe, stdout=pipe, text=True
    ) as user:
        assert user.stdout is not None
        server = psutil.Process(int(user.stdout.readline()))
        databases.remove_abandoned()
        assert server.is_running()
        assert folder.exists()
        user.send_signal(signal.SIGKILL)
    until = time.monotonic() + 120  # only a broken clean-up takes that long
    databases.remove_abandoned()
    while folder.exists():  # another worker may be at it too
        assert time.monotonic() < until
        time.sleep(0.05)
    assert psutil.wait_procs([server], timeout=120)[1] == []


def test_a_server_that_is_being_started_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    starting, abandoned = (tmp_path / f"{databases._PREFIX}{name}" for name in "ab")
    starting.mkdir()
    abandoned.mkdir()
    (starting / ".handle_pids.json").write_text("[]")
    long_ago = time.time() - databases._STARTING_S - 1
    os.utime(abandoned, (long_ago, long_ago))
    databases.remove_abandoned()
    assert starting.exists()
    assert not abandoned.exists()
