"""Why a call does not go on, as this room raises it; what leaves the room is the Obstacle."""

from __future__ import annotations

from agentguard.model import Obstacle, ObstacleKind


class Refused(Exception):
    """A call is refused before or instead of a Decision.

    Args:
        sentence: what is wrong and what to do, for the model.
    """

    def __init__(self, sentence: str, *, kind: ObstacleKind) -> None:
        super().__init__(sentence)
        self.obstacle = Obstacle(kind=kind, sentence=sentence)

    @classmethod
    def of(cls, obstacle: Obstacle) -> Refused:
        """The refusal that an Obstacle is."""
        made = cls(obstacle.sentence, kind=obstacle.kind)
        made.obstacle = obstacle
        return made


class Ungated(Obstacle):
    """Nothing decided on the call, in no job and no thread: the graph lacks a gate."""
