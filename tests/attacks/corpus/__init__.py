"""Every attack there is: a file each for what it aims at."""

from tests.attacks.corpus import facts, people, routes, time_travel, tools
from tests.attacks.matrix import ATTACKS

__all__ = ["ATTACKS", "facts", "people", "routes", "time_travel", "tools"]
