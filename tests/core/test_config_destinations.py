"""Two destinations never share a place, and none is a place of the workspace's own files."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentguard.config.workspace import load
from agentguard.errors import ConfigError


def workspace(folder: Path, *destinations: str, extra: str = "") -> Path:
    places = "\n".join(
        f'[destinations.d{number}]\nurl = "{url}"\naudience = "{audience}"\n'
        f'environment = "{environment}"'
        for number, (url, audience, environment) in enumerate(
            zip(
                destinations,
                ("internal", "public", "partner"),
                ("draft", "production", "draft"),
                strict=False,
            )
        )
    )
    file = folder / "agentguard.toml"
    file.write_text(
        f'workspace = "acme"\n{extra}\n[people]\n"kim@acme.example" = {{}}\n'
        '"omar@acme.example" = {}\n[agents]\n'
        'editor = { stages = ["edit"], owner = "kim@acme.example" }\n' + places,
        "utf-8",
    )
    return file


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("file:out", "file:out"),
        ("file:out", "file:out/"),
        ("file:out", "file:./out"),
        ("file:out/team", "file:out/site/../team"),
        ("file:out", "file:out/site"),
        ("file:out/site", "file:out"),
        ("file:out", "file:link"),
        ("file:out", "local://{folder}/out"),
        ("file:out", "file://{folder}/out"),
        ("s3://bucket/a", "s3://bucket/a/"),
        ("s3://bucket", "s3://bucket/site"),
    ],
)
def test_destinations_that_share_a_place_are_refused(tmp_path: Path, one: str, two: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    urls = [url.replace("{folder}", str(tmp_path)) for url in (one, two)]
    with pytest.raises(ConfigError, match="share a place"):
        load(workspace(tmp_path, *urls), {})


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("file:out/team", "file:out/site"),
        ("file:out/a", "file:out/ab"),
        ("s3://bucket/a", "s3://bucket/ab"),
        ("s3://one/a", "s3://two/a"),
        ("file:out", "s3://bucket/out"),
    ],
)
def test_destinations_side_by_side_are_fine(tmp_path: Path, one: str, two: str) -> None:
    assert set(load(workspace(tmp_path, one, two), {}).destinations) == {"d0", "d1"}


@pytest.mark.parametrize(
    "url", ["file:.", "file:.agentguard", "file:.agentguard/assets", "file:.agentguard/assets/x"]
)
def test_no_destination_holds_the_workspaces_own_files(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="share a place"):
        load(workspace(tmp_path, url), {})
    elsewhere = 'store = "kept"\nledger = "sqlite:l/l.db"\nlog_key = "k/k"\nsigners = "s/s"'
    if url != "file:.":
        load(workspace(tmp_path, url, extra=elsewhere), {})
