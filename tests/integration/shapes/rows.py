"""All shapes, in the order of their rows."""

from __future__ import annotations

from tests.integration.shapes import agents, apps, loops, teams
from tests.integration.shapes.shape import SHAPES

__all__ = ["SHAPES", "agents", "apps", "loops", "teams"]
