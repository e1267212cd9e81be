"""A few of the power cuts that `python -m tests.crash.power_cut` makes 40 of."""

from __future__ import annotations

import pytest

from tests.crash.power_cut import cut_power, missing


@pytest.mark.parametrize("acknowledged", [1, 12, 60])
def test_I10_power_cut_loses_nothing_that_was_acknowledged(acknowledged: int) -> None:
    lacking = missing("ext4")
    if lacking is not None:
        pytest.skip(f"cutting the power of a file system {lacking}")
    found = cut_power("ext4", acknowledged=acknowledged)
    assert found.acknowledged >= acknowledged
    assert found.lost == ()
