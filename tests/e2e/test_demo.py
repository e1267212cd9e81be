"""The demo as people run it: `python -m graphs.demo`, with and without a terminal.

What it exported is read back from disk: Pillow opens every picture, PyAV decodes every frame.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import av
import pytest
from PIL import Image

from agentguard.ledger.storage.open import SqliteStorage
from evals.scenario import load_all
from graphs import attacks
from graphs.workspace import open_guard

ROOT = Path(__file__).parents[2]
# The bound is 30 s; a loaded test machine gets three times that before it counts as hanging.
LIMIT = 90


@dataclass(frozen=True)
class Ran:
    """One run of the demo."""

    code: int
    lines: list[str]
    folder: Path

    @property
    def text(self) -> str:
        """The output in one line, so that line breaks of the terminal don't matter."""
        return " ".join(" ".join(self.lines).split())


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "AGENTGUARD_"))}
    return {**kept, "COLUMNS": "100", "TERM": "xterm", "PYTHONPATH": str(ROOT)}


def command(out: Path) -> list[str]:
    return [sys.executable, "-m", "graphs.demo", "--out", str(out)]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "demo-out"


@pytest.fixture(scope="module")
def ran(out: Path) -> Ran:
    """The first run, as `make demo` runs it: no options, no terminal, from where one stands."""
    done = subprocess.run(
        command(out)[:-2],
        cwd=out.parent,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.stderr == ""
    return Ran(code=done.returncode, lines=done.stdout.splitlines(), folder=out / "run-1")


def deliveries(folder: Path) -> list[str]:
    """The media at all destinations; each has a slip of text beside it."""
    found = (folder / "out").glob("*/*")
    return sorted(str(path.relative_to(folder)) for path in found if path.suffix != ".txt")


def rows(folder: Path, sql: str) -> list[tuple[object, ...]]:
    with open_guard(folder / "agentguard.toml") as guard:
        return [tuple(row) for row in guard.ledger.all(sql)]


def test_it_ends_well_and_says_so(ran: Ran) -> None:
    assert ran.code == 0, ran.text[-2000:]
    assert re.fullmatch(r"audit verified: [1-9][0-9]* records", ran.lines[-1])
    assert str(ran.folder) in "".join(ran.lines[-3:])
    for agent in ("painter", "editor", "renderer", "reviewer", "traffic", "publisher"):
        assert f"✓ {agent}" in ran.text


def test_the_pictures_and_the_film_are_real(ran: Ran) -> None:
    pictures = sorted((ran.folder / "out" / "team").glob("*.png"))
    (film,) = (ran.folder / "out" / "team").glob("*.mp4")
    assert len(pictures) == 2
    for path in pictures:
        with Image.open(path) as picture:
            picture.load()
            assert picture.size == (1280, 720)
            assert len(picture.convert("RGB").getcolors(1280 * 720) or ()) > 10_000
    with av.open(film) as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    assert len(frames) == 96
    assert frames[0].shape == (720, 1280)
    assert abs(frames[0].astype(int) - frames[-1].astype(int)).mean() > 10


def test_the_brand_mark_is_public_and_the_customer_is_not(ran: Ran) -> None:
    (public,) = (ran.folder / "out" / "site").glob("*.png")
    found = {str(id): text for id, text in rows(ran.folder, "SELECT id, labels FROM assets")}
    assert found[f"asset-{public.stem}"] == '["brand","generated"]'
    inside = {found[f"asset-{Path(p).stem}"] for p in deliveries(ran.folder) if "team" in p}
    assert '["customer-data","generated"]' in inside
    assert '["brand","customer-data","generated"]' in inside


def test_only_the_public_export_asked_and_a_named_person_answered(ran: Ran) -> None:
    asked = rows(
        ran.folder,
        "SELECT destination, thread FROM requests WHERE effect = 'ask' AND tool = 'export_asset'",
    )
    assert {thread: place for place, thread in asked}["brief"] == "site"
    answers = {person for (person,) in rows(ran.folder, "SELECT person FROM answers")}
    assert answers
    assert not answers & {"kim@studio.example", "sam@studio.example"}
    assert "no terminal: answering as ines@studio.example, with their own key" in ran.text
    assert "to-approve/asset-" in "".join("".join(ran.lines).split())


def test_every_attack_is_refused_and_has_no_effect(ran: Ran) -> None:
    assert "0 effects, 4 deliveries as before the attack" in ran.text
    assert len(deliveries(ran.folder)) == 4
    assert rows(ran.folder, "SELECT count(*) FROM receipts") == [(4,)]
    for refusal in (
        "there is no tool export_asset here",
        "is not queued for site",
        "was called where nothing decides on its calls",
        "are not what was decided on; somebody changed them",
        "nothing ran; the recorded outcome came back",
        "an output must be a file directly in the call's scratch folder",
        "an output must be a regular file, not a link or device",
        "it tried to route the graph",
    ):
        assert refusal in ran.text, refusal


def test_its_attacks_are_those_of_the_evals(ran: Ran) -> None:
    known = {scenario.name for scenario in load_all()}
    for attack in attacks.ALL:
        assert set(attack.scenarios) <= known
        assert all(name in ran.text for name in attack.scenarios)


def test_nothing_it_says_leads_out_of_its_folder(ran: Ran) -> None:
    assert "/tmp/agentguard-" not in ran.text
    assert not [path for path in ran.folder.rglob("*") if path.is_symlink()]


def test_people_keys_are_encrypted_and_private(ran: Ran) -> None:
    keys = list((ran.folder / "keys").iterdir())
    assert len(keys) == 4
    for key in keys:
        assert b"ENCRYPTED" in key.read_bytes()
        assert key.stat().st_mode & 0o077 == 0


def test_no_right_outlives_the_job(ran: Ran) -> None:
    assert rows(ran.folder, "SELECT count(*) FROM grants WHERE state = 'issued'") == [(0,)]
    assert rows(ran.folder, "SELECT count(*) FROM credentials WHERE state = 'live'") == [(0,)]
    assert rows(ran.folder, "SELECT DISTINCT state FROM jobs") == [("ended",)]


def test_at_a_terminal_a_person_views_and_says_no_in_a_second_run(out: Path, ran: Ran) -> None:
    """It asks, `v` shows, `d` denies; the second run in the same place works like the first."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.execve(sys.executable, command(out), {**environment(), "PATH": ""})
    said = b""
    answers = [b"x\n", b"v\n", b"d\n"]
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        try:
            said += os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if answers and said.count(b"iew)? ") > 3 - len(answers):
            os.write(terminal, answers.pop(0))
    _, status = os.waitpid(child, 0)
    text = re.sub(r"\x1b(\[[0-9;?]*[a-zA-Z]|\]8;[^\x1b]*\x1b\\)", "", said.decode())
    assert os.waitstatus_to_exitcode(status) == 0, text[-2000:]
    second = out / "run-2"
    assert "You are ines@studio.example." in text
    assert "a(pprove), d(eny) or v(iew)?" in text
    assert "there is no viewer here; the file is" in text
    assert "ines@studio.example says no" in text
    assert "refused: a person said no" in " ".join(text.split())
    assert re.search(r"audit verified: [1-9][0-9]* records\s*$", text)
    assert len(deliveries(second)) == 3
    assert not [path for path in deliveries(second) if "site" in path]
    assert len(deliveries(ran.folder)) == 4, "the first run's results stay"


def test_the_ledger_of_a_run_opens_again(ran: Ran) -> None:

    with open_guard(ran.folder / "agentguard.toml") as guard:
        assert isinstance(guard.ledger.storage, SqliteStorage)
        assert guard.verify().records > 50
