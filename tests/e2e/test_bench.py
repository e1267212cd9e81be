"""The benchmark runs and compares guarded calls that really succeeded."""

from __future__ import annotations

import re

import pytest

from bench.__main__ import main


def test_the_benchmark_prints_its_ratios(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "--rounds", "3"])
    main()
    printed = capsys.readouterr().out
    assert len(re.findall(r"\d+\.\d\d *$", printed, flags=re.MULTILINE)) == 3
    assert re.search(r"decide alone: p50 \d+ µs", printed)
    assert re.search(r"audit verify: \d+ ms for \d+ records", printed)
