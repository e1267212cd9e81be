"""What docs/how-to/long-work.md shows is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agentguard.config.workspace import load
from tests.e2e.test_readme import blocks
from tests.support import KIM
from tests.support.desk import desk, vendor
from tests.unit.config.test_config_file import GOOD

PAGE = "docs/how-to/long-work.md"


def test_the_example_of_long_work_runs_as_it_stands(tmp_path: Path) -> None:
    (code,) = blocks(PAGE, "python")
    with vendor(polls=1) as service, desk(tmp_path, service.place) as at:
        scope: dict[str, Any] = {"VENDOR": service.base}
        exec(compile(code, PAGE, "exec"), scope)
        at.bind(*scope["bindings"])
        with at.studio.guard.open_job("film", requested_by=KIM) as job:
            logo = job.import_asset(at.studio.picture(), ["brand"])
            said = at.act(job, "submit_video", prompt="waves", image_url=logo)
            assert "operation: req-0001" in said.content
            assert at.act(job, "video_result", request_id="req-0001").status == "success"
            assert at.made() == []
            said = at.act(job, "video_result", request_id="req-0001")
            (video,) = at.made()
            assert video["id"] in said.content
            assert video["labels"] == {"brand", "generated"}


def test_the_destination_of_the_example_can_be_configured(tmp_path: Path) -> None:
    (part,) = blocks(PAGE, "toml")
    path = tmp_path / "agentguard.toml"
    path.write_text(f"{GOOD}\n{part}", "utf-8")
    assert load(path).destinations["videos"].hosts == {"cdn.vendor.example"}
