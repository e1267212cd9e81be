"""A destination without a url is for a developer's own uploader; `export_asset` sends elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support import CONFIG, KIM, build, call, open_studio, results, says
from tests.support.command_line import Shell

NO_URL = CONFIG.replace('url = "file:out/team"\n', "")


def test_own_uploader_sends_where_export_asset_can_not(tmp_path: Path) -> None:
    studio = open_studio(tmp_path, config=NO_URL)
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])

        def run(name: str, args: dict[str, str]) -> Any:
            graph = build(studio, [says(call("look", {"source": asset})), says(call(name, args))])
            config = job.config(thread_id=name)
            return results(graph.invoke({"messages": [("user", "go")]}, config))[-1]

        refused = run("export_asset", {"asset": asset, "to": "team"})
        assert refused.status == "error"
        assert "team has no url, so export_asset can't send there" in refused.content
        sent = run("publish", {"source": asset, "to": "team"})
        assert sent.status == "success", sent.content
    studio.guard.close()


def test_doctor_is_not_red_about_it(tmp_path: Path, monkeypatch: Any) -> None:
    open_studio(tmp_path, config=NO_URL).guard.close()
    monkeypatch.chdir(tmp_path)
    findings = Shell(tmp_path).json("doctor")["findings"]
    (team,) = (one for one in findings if one["what"] == "team")
    assert team["state"] == "ok"
    assert "has no url" in team["text"]
