"""Facts that change under a call: policy, destination, class, hold, recall, time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.attacks.corpus.time_travel import paused
from tests.attacks.matrix import GATES, SAVERS, attack
from tests.support import INES

if TYPE_CHECKING:
    from tests.attacks.driving import Way

Change = Callable[["Way", str], None]

NO_EXPORTS = """
@id("acme.frozen") @advice("nothing leaves this week")
forbid (principal, action in Action::"stage:export", resource)
  when { resource.labels.contains("brand") || resource.labels.contains("likeness") };
"""


def policy(way: Way, source: str) -> None:
    way.void(source)
    if way.guarded:
        way.ground.set_policy(NO_EXPORTS)


def destination(way: Way, source: str) -> None:
    way.void(source)
    if way.guarded:
        way.ground.move_destination("team")


def label(way: Way, source: str) -> None:
    way.void(source)
    if way.guarded:
        way.ground.raise_class(way.paths[source], "regulated", by=INES)


def hold(way: Way, source: str) -> None:
    way.hold(source)


def recall(way: Way, source: str) -> None:
    way.hold(source, column="recalled")


CHANGES: dict[str, Change] = {
    "policy": policy, "destination": destination, "class": label, "hold": hold, "recall": recall,
}  # fmt: skip


# Facts are in the ledger, whatever holds the thread: one checkpointer is enough.


def _between_gate_and_tool(change: Change, name: str) -> Callable[[Way], None]:
    def run(way: Way) -> None:
        free = way.asset()
        done: list[str] = []

        def once() -> None:
            if not done:
                done.append(name)
                change(way, free)

        way.between(once)
        way.start(way.publish(free), right=False)
        way.between(lambda: None)
        assert done
        way.ground.restore()

    run.__name__ = f"{name}_changes_between_gate_and_tool"
    return run


def _between_question_and_approval(change: Change, name: str) -> Callable[[Way], None]:
    def run(way: Way) -> None:
        mine = way.face()
        paused(way, mine)
        change(way, mine)
        way.approve()
        way.resume()
        way.ground.restore()
        if way.guarded and name in ("hold", "recall", "policy"):
            assert way.published(mine) == 0

    run.__name__ = f"{name}_changes_between_question_and_approval"
    return run


def _between_approval_and_tool(change: Change, name: str) -> Callable[[Way], None]:
    def run(way: Way) -> None:
        mine = way.face()
        paused(way, mine)
        way.approve()
        change(way, mine)
        way.resume()
        way.ground.restore()

    run.__name__ = f"{name}_changes_between_approval_and_tool"
    return run


for _name, _change in CHANGES.items():
    _makers = [_between_gate_and_tool, _between_question_and_approval]
    if _name in ("policy", "destination"):  # what happens to an asset is in evals/scenarios
        _makers.append(_between_approval_and_tool)
    for _made in _makers:
        attack(f"{_name}-changes", "facts", gates=GATES)(_made(_change, _name))


@attack("restart", gates=GATES, own=True, savers=SAVERS)
def a_restart_with_a_moved_destination(way: Way) -> None:
    """The process ends while it waits; the next one has another configuration."""
    mine = way.face()
    paused(way, mine)
    way.approve()
    way.void(mine)
    if way.job is not None:
        job = way.job
        job.__exit__(None, None, None)
        from tests.attacks.ground import TWO_COURIERS

        moved = TWO_COURIERS.replace('"file:out/team"', '"file:out/elsewhere"')
        way.ground.reopen(moved)
        way.job = way.ground.guard.rejoin_job(job.id, by="kim@acme.example")
        way.job.__enter__()
    way.rebuild()
    way.resume()
