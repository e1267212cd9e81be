"""What left a workspace in a test: noted by the executor of the guard, as it is recorded."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentguard.bindings.argument_schema import values_at
from agentguard.calls.assess import Assessor
from agentguard.calls.execution import Execution
from agentguard.calls.executor import Executor
from agentguard.calls.results import Collected
from agentguard.export.broker import Broker
from agentguard.model import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What one call sent to a Destination.

    Args:
        tool: the tool that sent it.
        sha256: of the bytes of each asset that went, in the order of the arguments.
        text: the words that went along, by argument, one line each argument; empty without any.
        arguments: what the tool was called with, asset ids in place of media.
        path: the file that `export_asset` wrote into the Destination's folder; None where a tool
            sends by itself.
        certain: False where the call failed and nobody knows what arrived.
    """

    tool: str
    sha256: tuple[str, ...]
    text: str
    arguments: Mapping[str, Any]
    path: Path | None
    certain: bool


class NotingExecutor(Executor):
    """The executor of a guard, which also notes what its calls sent.

    Args:
        assessor, broker: see `Executor`.
        folders: where the Destinations with a URL are, by id.
    """

    def __init__(self, *, assessor: Assessor, broker: Broker, folders: Mapping[str, Path]) -> None:
        super().__init__(assessor=assessor, broker=broker)
        self._folders = folders
        self._noted: list[tuple[str, Delivery]] = []
        self._notes = threading.Lock()

    def sent(self, destination: str) -> list[Delivery]:
        """What was sent to a Destination, in the order in which it was recorded."""
        with self._notes:
            return [delivery for place, delivery in self._noted if place == destination]

    def record(
        self,
        execution: Execution,
        collected: Collected,
        *,
        updates: Mapping[str, Any] | None = None,
    ) -> str:
        """See `Executor.record`."""
        self._note(execution, certain=True)
        return super().record(execution, collected, updates=updates)

    def record_failure(self, execution: Execution, text: str, *, unknown: bool) -> str:
        """See `Executor.record_failure`."""
        if unknown or execution.receipts:
            self._note(execution, certain=bool(execution.receipts))
        return super().record_failure(execution, text, unknown=unknown)

    def _note(self, execution: Execution, *, certain: bool) -> None:
        request, binding = execution.claimed.request, execution.claimed.call.bound.binding
        if request.destination is None or binding.stage is Stage.QUEUE:
            return
        receipts = [each for each in execution.receipts if each.destination in self._folders]
        paths = [
            self._folders[each.destination] / each.location.removeprefix(f"{each.destination}/")
            for each in receipts
        ]
        words = (value for path in binding.texts for value in values_at(request.args, path))
        delivery = Delivery(
            tool=request.tool,
            sha256=tuple(use.sha256 for use in request.assets if use.argument in binding.assets),
            text="\n".join(str(each) for each in words if each),
            arguments=request.args,
            path=paths[0] if paths else None,
            certain=certain,
        )
        with self._notes:
            self._noted.append((request.destination, delivery))
