"""What the model checker puts in the place of threads, files and networks, and nothing else.

The ledger's tables, triggers and transitions, `decide`, the policies, `Gate`, `Execution`,
`Broker`, `Approvals` and the guard's own tools are the real ones.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from unittest.mock import patch

from agentguard.calls import assess as gate
from agentguard.calls import claim as claiming
from agentguard.content.formats.identify import Format
from agentguard.errors import ApprovalError, IllegalTransition
from agentguard.export.folder import Parcel
from agentguard.ledger.ledger import Ledger
from agentguard.ledger.storage.open import Plan, Tx
from agentguard.ledger.storage.sqlite.schema import migrate
from agentguard.ledger.storage.sqlite.storage import SqliteTx
from agentguard.model import Assessment, Credential, Obstacle
from agentguard.people import approvals
from agentguard.people.signers import Signers

PAGE = 512  # small pages make small snapshots


class MemoryStorage:
    """A Storage without a thread or a file: each transition is one transaction, at once.

    Transitions are savepoints, so that what a move wrote can be taken back (`attempt`).

    Args:
        clock: the ledger's time in ms.
        dropped: triggers to leave out, for mutants.
    """

    def __init__(self, *, clock: Callable[[], int], dropped: tuple[str, ...] = ()) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.row_factory = sqlite3.Row
        self.connection.execute(f"PRAGMA page_size = {PAGE}")
        migrate(self.connection)
        for trigger in dropped:
            self.connection.execute(f"DROP TRIGGER {trigger}")
        self.name = "memory"
        self.records: list[dict[str, Any]] = []
        self.wrote = False
        self._clock = clock
        self._root = b""

    def submit(
        self, transition: Callable[[Tx], Any], *, durable: bool = False, plan: Plan | None = None
    ) -> Future[Any]:
        """Run a transition in a transaction of its own; the Future is done when this returns."""
        future: Future[Any] = Future()
        connection = self.connection
        connection.execute("SAVEPOINT transition")
        before = connection.total_changes
        try:
            tx = SqliteTx(now=self._clock(), connection=connection, plan=plan)
            result = transition(tx)
            records = tx.finish()
        except BaseException as error:
            connection.execute("ROLLBACK TO transition")
            connection.execute("RELEASE transition")
            if isinstance(error, sqlite3.IntegrityError):  # as the real one says it
                error = IllegalTransition(str(error))
            future.set_exception(error)
            return future
        connection.execute("RELEASE transition")
        self.wrote = self.wrote or connection.total_changes != before
        # Kept for this move only: appending to the Merkle log is tested elsewhere.
        self.records.extend(json.loads(record) for record in records)
        future.set_result(result)
        return future

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        yield self.connection

    snapshot = read

    def close(self) -> None:
        self.connection.close()

    # --- snapshots --------------------------------------------------------------------------

    def attempt(self) -> None:
        """From here on, `take_back` returns to the rows of now; cheaper than `restore`."""
        self.connection.execute("SAVEPOINT move")

    def take_back(self) -> None:
        self.connection.execute("ROLLBACK TO move")

    def settle(self) -> None:
        self.connection.execute("ROLLBACK TO move")
        self.connection.execute("RELEASE move")

    def save(self) -> dict[int, bytes]:
        """The pages that differ from the first snapshot."""
        data = self.connection.serialize()
        if not self._root:
            self._root = data
        root = self._root
        pages = {at: data[at : at + PAGE] for at in range(0, len(data), PAGE)
                 if data[at : at + PAGE] != root[at : at + PAGE]}  # fmt: skip
        pages[-1] = len(data).to_bytes(8, "big")
        return pages

    def restore(self, pages: dict[int, bytes]) -> None:
        size = int.from_bytes(pages[-1], "big")
        data = bytearray(self._root[:size].ljust(size, b"\0"))
        for at, page in pages.items():
            if at >= 0:
                data[at : at + PAGE] = page
        self.connection.deserialize(bytes(data))


class RacedLedger(Ledger):
    """A Ledger in which something else happens just before a decision is written down.

    Args:
        meanwhile: called then; another process may do anything.
        minted: told of each new credential.
    """

    def __init__(
        self,
        storage: Any,
        *,
        clock: Callable[[], int],
        meanwhile: Callable[[], None],
        minted: Callable[[Credential], None],
    ) -> None:
        super().__init__(storage, clock=clock)
        self._meanwhile = meanwhile
        self._minted = minted

    def take_credential(self, *args: Any, **named: Any) -> Credential:
        credential = super().take_credential(*args, **named)
        self._minted(credential)
        return credential

    def record_decisions(self, *args: Any, **named: Any) -> bool:
        self._meanwhile()
        return super().record_decisions(*args, **named)

    def ask_anew(self, *args: Any, **named: Any) -> bool:
        self._meanwhile()
        return super().ask_anew(*args, **named)

    def claim(self, item: Assessment, *, durable: bool) -> Obstacle | None:
        self._meanwhile()
        return super().claim(item, durable=durable)

    def answer(self, *args: Any, **named: Any) -> None:
        self._meanwhile()
        super().answer(*args, **named)


class Drawer:
    """A Scratch whose files are always there: the same bytes by the same names, made once.

    Args:
        store: where those files are.
    """

    def __init__(self, store: Files, *, limits: Any, parent: Path | None = None) -> None:
        self.limits = limits
        self._store = store
        self._taken = ""

    def close(self) -> None:
        pass

    def holds(self, *_: Any) -> bool:
        return True

    def input(self, sha256: str, extension: str) -> str:
        self._taken = sha256
        return str(self._store.path(sha256))

    def output(self, argument: str, suffix: str) -> str:
        return str(self._store.written)

    def take(self, path: str) -> tuple[str, int, Format]:
        """The one output of a crop: what it is depends on what it was made from."""
        made = self._store.made_from[self._taken]
        return made, 1, Format(media_type="image/png", extension=".png", width=1, height=1)

    def conceal(self, text: str, shown: Callable[[str], str]) -> str:
        return text


class Files:
    """A Store of a few fixed files.

    Args:
        folder: where they are written.
        contents: by name.
    """

    def __init__(self, folder: Path, contents: dict[str, bytes]) -> None:
        self.sha256: dict[str, str] = {}
        self.name: dict[str, str] = {}
        self.made_from: dict[str, str] = {}
        self._folder = folder
        self.written = folder / "written.png"  # what every tool wrote
        self.written.touch()
        for name, data in contents.items():
            sha256 = hashlib.sha256(data).hexdigest()
            self.sha256[name], self.name[sha256] = sha256, name
            self.path(sha256).write_bytes(data)
        for name, sha256 in self.sha256.items():
            if f"crop of {name}" in self.sha256:
                self.made_from[sha256] = self.sha256[f"crop of {name}"]

    def path(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.png"


class Place:
    """An Adapter: a destination that keeps what arrives, by key.

    Args:
        id: the destination.
        arrive: told of each parcel.
        arrived: (destination, key, SHA-256) of all that is there now.
    """

    def __init__(
        self,
        id: str,
        *,
        arrive: Callable[[str, str, str], None],
        arrived: Callable[[], frozenset[tuple[str, str, str]]],
    ) -> None:
        self._id = id
        self._arrive = arrive
        self._arrived = arrived

    def put(self, parcel: Parcel) -> str:
        self._arrive(self._id, parcel.key, parcel.sha256)
        return f"{self._id}/{parcel.name}"

    def find(self, parcel_key: str, sha256: str) -> str | None:
        return f"{self._id}/found" if (self._id, parcel_key, sha256) in self._arrived() else None


class NoThread:
    """In the place of the thread that renews leases: here that is a move."""

    def hold(self, job: object) -> None:
        pass

    drop = hold


@contextlib.contextmanager
def fast_and_repeatable() -> Iterator[None]:
    """Remember what pure functions said, count ids instead of drawing them, and keep no files."""
    said: dict[Any, Any] = {}
    # As they are looked up: a mutant may stand there.
    real_decide, real_verify = vars(gate)["decide"], vars(approvals)["verify_answer"]
    numbers = itertools.count(1)

    def decide(
        policy: Any, request: Any, facts: Any, answers: Any, now: int, question: Any = None
    ) -> Any:
        key = (policy.digest, request.digest, facts, tuple(answers), now, question)
        if key not in said:
            said[key] = real_decide(policy, request, facts, answers, now, question)
        return said[key]

    sound: dict[Any, str] = {}

    def verify_answer(answer: Any, signers: Any) -> None:
        if answer not in sound:
            sound[answer] = ""
            try:
                real_verify(answer, signers)
            except ApprovalError as error:
                sound[answer] = str(error)
        if sound[answer]:
            raise ApprovalError(sound[answer])

    load = functools.cache(Signers.load)
    with (
        patch.object(gate, "decide", decide),
        patch.object(approvals, "verify_answer", verify_answer),
        patch.object(Signers, "load", load),
        patch.object(claiming, "Scratch", Drawer),
        patch.object(secrets, "token_hex", lambda n: f"{next(numbers):0{2 * n}x}"),
    ):
        yield
