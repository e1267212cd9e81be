"""Two destinations never share a place, and none is a place of the workspace's own files."""

from __future__ import annotations

import re
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
        ("file:out", "file:///{folder}/out"),
        ("file:out/site", "file:link/site"),
        ("file:out", "simplecache::file://{folder}/out"),
        ("file:out", "filecache::{folder}/out/x"),
        ("memory://x", "memory:///x"),
        ("memory://x", "memory:x/y"),
        ("memory://x", "memory://X"),
        ("s3://bucket/a", "s3a://bucket/a"),
        ("s3://bucket/a", "simplecache::s3://bucket/a"),
        ("s3://bucket", "blockcache::s3a://bucket/a/"),
        ("s3://bucket/a", "dir://b::s3://bucket/a"),
        ("s3://bucket/a", "s3://bucket//a"),
        ("s3://bucket/a", "s3://bucket/a?acl=private"),
        ("gs://bucket", "gcs://bucket/a"),
        ("sftp://cms.example/a", "ssh://cms.example:22/a"),
        ("sftp://cms.example/a", "sftp://kim@cms.example/a"),
        ("abfs://media@acme.dfs.core.windows.net/a", "az://media/a"),
        ("https://cms.example/site", "http://cms.example/%73ite"),
        ("https://cms.example/site", "https://CMS.example:443/site/"),
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
    ("url", "says"),
    [
        ("memory://a/../b", '".."'),
        ("s3://bucket/a/./b", '".."'),
        ("s3://bucket/a/%2e%2e/b", '".."'),
        ("simplecache::file://{folder}/link/../b", '".."'),
        ("local:out", 'write it as "file:FOLDER"'),
        ("local://out", 'write it as "file:FOLDER"'),
        ("S3://bucket/a", 'expected "file:FOLDER"'),
        ("FILE:out", 'expected "file:FOLDER"'),
    ],
)
def test_url_that_services_read_differently_is_refused(tmp_path: Path, url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        load(workspace(tmp_path, url.replace("{folder}", str(tmp_path))), {})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("STORE", "out/site"),
        ("STORE", "out/site/assets"),
        ("STORE", "out"),
        ("STORE", "file:out/site"),
        ("STORE", "file://{folder}/out/site"),
        ("STORE", "local://{folder}/out/site"),
        ("STORE", "FILE://{folder}/out/site"),
        ("STORE", "simplecache::file://{folder}/out/site"),
        ("STORE", "link/site"),
        ("STORE", "out/x/../site"),
        ("STORE", "memory:///cms/x"),
        ("LEDGER", "sqlite:out/site/ledger.db"),
        ("LEDGER", "sqlite:{folder}/link/site/ledger.db"),
        ("LOG_KEY", "out/site/log.key"),
        ("LOG_KEY", "link/site/log.key"),
        ("SIGNERS", "{folder}/out/site/signers"),
        ("SIGNERS", "out/./site/signers"),
    ],
)
def test_environment_leads_no_own_file_into_a_destination(
    tmp_path: Path, variable: str, value: str
) -> None:
    (tmp_path / "out" / "site").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    file = workspace(tmp_path, "file:out/site", "memory://cms")
    name = f"AGENTGUARD_{variable}"
    with pytest.raises(ConfigError, match=f"{name} share a place"):
        load(file, {name: value.replace("{folder}", str(tmp_path))})


@pytest.mark.parametrize("url", ["memory://cms/../x", "s3://bucket/%2E%2e/x"])
def test_store_url_with_dots_is_refused(tmp_path: Path, url: str) -> None:
    file = workspace(tmp_path, "memory://cms")
    with pytest.raises(ConfigError, match=r'AGENTGUARD_STORE: holds "\." or "\.\."'):
        load(file, {"AGENTGUARD_STORE": url})


def test_environment_can_lead_an_own_file_out_of_a_destination(tmp_path: Path) -> None:
    file = workspace(tmp_path, "file:.agentguard/assets")
    with pytest.raises(ConfigError, match="share a place"):
        load(file, {})
    assert load(file, {"AGENTGUARD_STORE": "elsewhere"}).store == str(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "url", ["file:.", "file:.agentguard", "file:.agentguard/assets", "file:.agentguard/assets/x"]
)
def test_no_destination_holds_the_workspaces_own_files(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="share a place"):
        load(workspace(tmp_path, url), {})
    elsewhere = 'store = "kept"\nledger = "sqlite:l/l.db"\nlog_key = "k/k"\nsigners = "s/s"'
    if url != "file:.":
        load(workspace(tmp_path, url, extra=elsewhere), {})
