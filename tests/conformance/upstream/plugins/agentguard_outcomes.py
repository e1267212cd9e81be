"""A pytest plugin: writes every test's outcome to the file that `--outcomes` names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", required=True, help="the JSON file to write")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Outcomes(Path(config.getoption("--outcomes"))))


class _Outcomes:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._found: dict[str, dict[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        known = self._found.get(report.nodeid)
        if known is None or (known["outcome"] == "passed" and report.outcome != "passed"):
            text = "" if report.passed else report.longreprtext
            self._found[report.nodeid] = {"outcome": report.outcome, "text": text}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._found[report.nodeid] = {"outcome": "failed", "text": report.longreprtext}

    def pytest_sessionfinish(self, session: Any) -> None:
        self._file.write_text(json.dumps(self._found), "utf-8")
