"""A power cut: the file system of a workspace is shut down without flushing, then mounted again.

    python -m tests.crash.power_cut [ROUNDS] [ext4|xfs]

A process imports pictures, permits calls with an effect outside, claims and finishes them. Its
file system is an image of its own; `EXT4_IOC_SHUTDOWN` with `NOLOGFLUSH` throws away whatever
was not flushed. What the process was told before is counted on another file system. Afterwards the
ledger must open, verify, and hold every effect's claim and every asset's bytes. Needs root, loop
devices and mkfs; the exit code is 1 if anything was lost, and 2 if this machine can't do it.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import itertools
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from agentguard import Guard
from agentguard.config.workspace import load
from agentguard.content.store import Store
from agentguard.durable_files import make_folders
from agentguard.errors import AgentGuardError
from agentguard.ledger import verify as audit
from agentguard.ledger.open import checkpoints_of, open_ledger
from agentguard.model import OutsideEffect
from tests.support import CONFIG, write_workspace
from tests.support.ledgers import Bench

ROOT = Path(__file__).parents[2]
_SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN, of ext4 and xfs alike
_NOLOGFLUSH = 2
_SIZE = {"ext4": 64 << 20, "xfs": 320 << 20}
_MKFS = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q", "-f")}
_PATIENCE_S = 30


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What one power cut left.

    Args:
        acknowledged: effects and assets that the process was told of.
        lost: what of that is not there any more, and why the ledger does not go on.
    """

    acknowledged: int
    lost: tuple[str, ...]


def missing(kind: str) -> str | None:
    """What this machine lacks to cut the power of a file system; None: nothing."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "needs root, to mount"
    for tool in (_MKFS[kind][0], "mount", "umount"):
        if shutil.which(tool) is None:
            return f"needs {tool}"
    with tempfile.TemporaryDirectory(prefix="agentguard-cut-") as folder:
        try:
            with _mounted(Path(folder), kind, new=True) as mounted:
                _cut(mounted)
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or str(error).encode()
            return f"needs loop devices and {kind} with a shutdown: {said.decode().strip():.200}"
    return None


def cut_power(kind: str, *, acknowledged: int) -> Cut:
    """Cut the power once a process was told of so many effects; what is left."""
    with tempfile.TemporaryDirectory(prefix="agentguard-cut-") as name:
        folder = Path(name)
        told = folder / "told"
        told.touch()
        with _mounted(folder, kind, new=True) as mounted:
            workspace = mounted / "a" / "workspace"
            make_folders(workspace)
            write_workspace(workspace, CONFIG)
            os.sync()  # what `agentguard init` wrote was there yesterday
            worker = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.crash.power_cut",
                    "worker",
                    str(workspace),
                    str(told),
                ],
                cwd=ROOT,
                stderr=subprocess.DEVNULL,  # its disk goes away
            )
            try:
                deadline = time.monotonic() + _PATIENCE_S
                while len(_lines(told)) < acknowledged and time.monotonic() < deadline:
                    if worker.poll() is not None:
                        raise RuntimeError(f"the worker ended with {worker.returncode}")
                    time.sleep(0.001)
                _cut(mounted)
            finally:
                worker.send_signal(signal.SIGKILL)
                worker.wait()
        lines = _lines(told)
        with _mounted(folder, kind, new=False) as mounted:
            return Cut(
                acknowledged=len(lines), lost=tuple(_lost(mounted / "a" / "workspace", lines))
            )


def work(workspace: Path, told: Path) -> None:
    """Import, claim and finish until killed; every line of `told` was acknowledged before."""

    def tell(*words: str) -> None:
        with told.open("ab") as file:
            file.write(" ".join(words).encode() + b"\n")

    def go(guard: Guard, thread: int) -> None:
        bench = Bench(guard.ledger)
        for number in itertools.count():
            asked = bench.permit(outside=OutsideEffect.OPAQUE, call=f"{thread}-{number}")
            if guard.ledger.claim(bench.judged(asked), durable=True) is None:
                tell("effect", asked.digest)
            bench.finish(asked)
            data = _picture(thread, number)
            tell(
                "asset",
                guard.enforcement.importer.take_in(
                    data, ["brand"], by="kim", job=bench.job, name="p.png"
                ),
            )

    with Guard.from_config(workspace / "agentguard.toml", tools=[]) as guard:
        threads = [
            threading.Thread(target=go, args=(guard, number), daemon=True) for number in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _picture(thread: int, number: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), (thread, number >> 8 & 255, number & 255)).save(data, "PNG")
    return data.getvalue()


def _lost(workspace: Path, lines: list[list[str]]) -> Iterator[str]:
    try:
        configured = load(workspace / "agentguard.toml")
        ledger = open_ledger(configured)
    except AgentGuardError as error:
        yield f"the ledger does not open: {error}"
        return
    with contextlib.closing(ledger.storage):
        try:
            audit.verify(ledger.storage, checkpoints_of(configured))
        except AgentGuardError as error:
            yield f"verify: {error}"
        states = {
            row["request"]: row["state"] for row in ledger.all("SELECT request, state FROM grants")
        }
        assets = {row["id"]: row["sha256"] for row in ledger.all("SELECT id, sha256 FROM assets")}
    store = Store(str(configured.store))
    for sha256 in assets.values():
        try:
            with open(os.devnull, "wb") as nowhere:
                store.fetch(sha256, nowhere)
        except AgentGuardError as error:
            yield f"a registered asset: {error}"
    for kind, name in lines:
        if kind == "effect" and states.get(name) not in ("claimed", "unknown", "executed"):
            yield f"an effect without a claim: {states.get(name)}"
        if kind == "asset" and name not in assets:
            yield "an acknowledged asset without a row"


@contextlib.contextmanager
def _mounted(folder: Path, kind: str, *, new: bool) -> Iterator[Path]:
    image, mounted = folder / "disk", folder / "mounted"
    if new:
        with image.open("wb") as file:
            file.truncate(_SIZE[kind])
        _run(*_MKFS[kind], str(image))
    mounted.mkdir(exist_ok=True)
    _run("mount", "-o", "loop", str(image), str(mounted))
    try:
        yield mounted
    finally:
        for _ in range(100):
            if subprocess.run(["umount", str(mounted)], capture_output=True).returncode == 0:
                break
            time.sleep(0.05)
        else:
            _run("umount", "-l", str(mounted))


def _cut(mounted: Path) -> None:
    descriptor = os.open(mounted, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NOLOGFLUSH))
    finally:
        os.close(descriptor)


def _lines(told: Path) -> list[list[str]]:
    return [line.split() for line in told.read_text("ascii").splitlines()]


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def main(arguments: list[str]) -> int:
    """Cut the power again and again; returns the exit code."""
    rounds = int(arguments[0]) if arguments else 40
    kind = arguments[1] if len(arguments) > 1 else "ext4"
    lacking = missing(kind)
    if lacking is not None:
        print(f"{kind}: {lacking}")
        return 2
    choose = random.Random(7)
    broken = effects = 0
    for number in range(rounds):
        found = cut_power(kind, acknowledged=choose.choice((0, 1, 2, 5, 20, 80, 300)))
        broken += bool(found.lost)
        effects += found.acknowledged
        said = f"{len(found.lost)} lost: {found.lost[0]}" if found.lost else "nothing lost"
        print(f"{kind} {number + 1}: {found.acknowledged} acknowledged, {said}", flush=True)
    print(f"{broken} of {rounds} power cuts lost something; {effects} were acknowledged")
    return 1 if broken else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        work(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        sys.exit(main(sys.argv[1:]))
