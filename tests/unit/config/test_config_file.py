"""What agentguard.toml may say; each refusal names the line to fix (S10, S16, S24, S26)."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentguard.config.file import line_of, lines_of
from agentguard.config.schema import AgentForm, DestinationForm, WorkspaceForm
from agentguard.config.template import template
from agentguard.config.workspace import Lifetimes, Workspace, load
from agentguard.errors import ConfigError
from agentguard.model import Audience, Environment, Sensitivity, Stage

GOOD = """\
workspace = "acme"
[people]
"kim@acme.example" = { groups = [] }
"omar@acme.example" = { groups = ["legal"] }
[agents]
painter = { stages = ["generate"], owner = "kim@acme.example" }
[agents.publisher]
stages = ["export"]
owner = "kim@acme.example"
[destinations.team]
url = "file:out/team"
audience = "internal"
environment = "draft"
ceiling = ["brand", "customer-data"]
[destinations.chat]
audience = "vendor"
environment = "production"
ceiling = ["brand"]
"""


def written(tmp_path: Path, text: str, name: str = "agentguard.toml") -> Path:
    file = tmp_path / name
    file.write_bytes(text.encode())
    return file


def loaded(tmp_path: Path, text: str = GOOD, **environ: str) -> Workspace:
    return load(written(tmp_path, text), environ)


def put(after: str, *lines: str) -> str:
    """GOOD with lines added behind the line that starts so."""
    found: list[str] = []
    for line in GOOD.splitlines():
        found.append(line)
        if line.startswith(after):
            found.extend(lines)
    return "\n".join(found) + "\n"


def test_a_workspace_is_made_of_frozen_values_with_absolute_paths(tmp_path: Path) -> None:
    one = loaded(tmp_path)
    assert one.id == "acme"
    assert one.root == tmp_path
    assert one.people["omar@acme.example"].groups == {"legal"}
    assert one.agents["publisher"].stages == {Stage.EXPORT}
    team = one.destinations["team"]
    assert team.url == f"file://{tmp_path}/out/team"
    assert (team.audience, team.environment) == (Audience.INTERNAL, Environment.DRAFT)
    assert team.ceiling == {"brand", "customer-data"}
    assert one.destinations["chat"].url == "vendor:"
    assert one.lifetimes == Lifetimes(
        credential=300_000, grant=60_000, review=86_400_000, lease=30_000
    )
    assert one.ledger == f"sqlite:{tmp_path}/.agentguard/ledger.db"
    assert one.store == f"{tmp_path}/.agentguard/assets"
    assert one.log_key == tmp_path / ".agentguard/log.key"
    assert one.signers == tmp_path / "agentguard.signers"
    assert one.policies == ()
    assert one.replace_default_policy is False
    assert one.chat_model is None
    assert one.services == frozenset()
    with pytest.raises(TypeError):
        one.agents["x"] = one.agents["painter"]  # type: ignore[index]


def test_S33_an_unknown_label_is_restricted_and_no_label_is_open(tmp_path: Path) -> None:
    one = loaded(tmp_path, GOOD + '[classes]\nbrand = "restricted"\nhouse = "open"\n')
    assert one.sensitivity([]) is Sensitivity.OPEN
    assert one.sensitivity(["generated", "house"]) is Sensitivity.OPEN
    assert one.sensitivity(["generated", "licensed"]) is Sensitivity.SENSITIVE
    assert one.sensitivity(["brand"]) is Sensitivity.RESTRICTED
    assert one.sensitivity(["generated", "never-heard-of"]) is Sensitivity.RESTRICTED
    assert one.sensitivity(["unclassified"]) is Sensitivity.RESTRICTED
    assert one.open_labels == {"generated", "house"}


def test_the_chat_model_sees_open_labels_only_unless_its_destination_is_named(
    tmp_path: Path,
) -> None:
    assert loaded(tmp_path).chat_ceiling == {"generated"}
    named = loaded(tmp_path, 'chat_model = "chat"\n' + GOOD)
    assert named.chat_model == "chat"
    assert named.chat_ceiling == {"generated", "brand"}


def test_durations_become_milliseconds(tmp_path: Path) -> None:
    text = '[lifetimes]\ncredential = "5m"\ngrant = "500ms"\nreview = "2d"\nlease = "10s"\n'
    assert loaded(tmp_path, GOOD + text).lifetimes == Lifetimes(
        credential=300_000, grant=500, review=172_800_000, lease=10_000
    )


def test_limits_services_and_other_places(tmp_path: Path) -> None:
    head = (
        'ledger = "postgresql://db.internal/agentguard?sslmode=require"\nstore = "s3://media/in"\n'
        'log_key = "/etc/agentguard/log.key"\nservices = ["scheduler"]\n'
    )
    one = loaded(tmp_path, head + GOOD + "[limits]\nmax_bytes = 10\nmax_pixels = 20\n")
    assert one.ledger == "postgresql://db.internal/agentguard?sslmode=require"
    assert one.store == "s3://media/in"
    assert one.log_key == Path("/etc/agentguard/log.key")
    assert one.services == {"scheduler"}
    assert (one.limits.max_bytes, one.limits.max_pixels) == (10, 20)


def test_policies_are_the_folder_beside_the_file_or_those_named(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "more.cedar").write_text("")
    assert loaded(tmp_path).policies == (tmp_path / "policies",)
    head = 'policies = ["more.cedar"]\nunsafe_replace_default_policy = true\n'
    one = loaded(tmp_path, head + GOOD)
    assert one.policies == (tmp_path / "more.cedar",)
    assert one.replace_default_policy is True
    assert loaded(tmp_path, "policies = []\n" + GOOD).policies == ()


def test_S26_separated_stages_on_one_agent_only_under_its_dangerous_name(tmp_path: Path) -> None:
    line = 'solo = { stages = ["generate", "export"], owner = "kim@acme.example"'
    text = put("painter", line + ", unsafe_combined_stages = true }")
    assert loaded(tmp_path, text).agents["solo"].stages == {Stage.GENERATE, Stage.EXPORT}
    together = put("painter", 'both = { stages = ["edit", "queue"], owner = "kim@acme.example" }')
    assert loaded(tmp_path, together).agents["both"].stages == {Stage.EDIT, Stage.QUEUE}


AGENT = 'x = { stages = ["edit"], owner = "kim@acme.example" }'
PLACE = 'audience = "public"\nenvironment = "production"\n'

REFUSALS = {
    "unknown top-level key": ('chatmodel = "x"\n' + GOOD, 1, "did you mean 'chat_model'?"),
    "unknown section": (GOOD + "[agent.x]\n", 19, "did you mean 'agents'?"),
    "unknown agent key": (
        put("painter", 'x = { stage = ["edit"], owner = "kim@acme.example" }'),
        7,
        "did you mean 'stages'?",
    ),
    "unknown destination key": (put('url = "file', 'cieling = ["brand"]'), 12, "'ceiling'?"),
    "proven is probed, not claimed": (put('url = "file', 'proven = ["hold"]'), 12, "unknown key"),
    "unknown person key": (put("[people]", "jo = { group = [] }"), 3, "did you mean 'groups'?"),
    "unknown lifetime": (GOOD + '[lifetimes]\ngrants = "1m"\n', 20, "did you mean 'grant'?"),
    "unknown limit": (GOOD + "[limits]\nmax_byte = 1\n", 20, "did you mean 'max_bytes'?"),
    "top-level key under a table": (GOOD + 'chat_model = "chat"\n', 19, "above the first [table]"),
    "no workspace": (GOOD.replace('workspace = "acme"\n', "\n"), 1, "'workspace' is missing"),
    "workspace with a space": (GOOD.replace('"acme"', '"ac me"'), 1, "without spaces"),
    "S26 two separated stages": (
        put("painter", 'x = { stages = ["review", "render"], owner = "kim@acme.example" }'),
        7,
        "holds render and review",
    ),
    "S26 flag must be true": (
        put("[agents.publisher]", "unsafe_combined_stages = false").replace(
            '["export"]', '["export", "generate"]'
        ),
        9,
        "holds export and generate",
    ),
    "S10 agent without owner": (
        put("painter", 'x = { stages = ["edit"] }'),
        7,
        "owner' is missing",
    ),
    "S10 S11 owner removed from people": (
        GOOD.replace('owner = "kim@acme.example"\n', 'owner = "eve@acme.example"\n'),
        9,
        "'eve@acme.example' is not in [people]",
    ),
    "owner differs by case": (
        GOOD.replace('owner = "kim@acme.example"\n', 'owner = "Kim@acme.example"\n'),
        9,
        "did you mean 'kim@acme.example'?",
    ),
    "unknown stage": (GOOD.replace('["export"]', '["exprot"]'), 8, "did you mean 'export'?"),
    "stage in another case": (GOOD.replace('["export"]', '["Export"]'), 8, "did you mean 'export'"),
    "approve is no stage": (GOOD.replace('["export"]', '["approve"]'), 8, "only people approve"),
    "stages on several lines": (
        GOOD.replace('["export"]', '[\n  "edit", # ]\n  "bogus",\n]'),
        10,
        "got 'bogus'",
    ),
    "stage as large as can be": (
        GOOD.replace('["export"]', f"[0x{'f' * 5000}]"),
        8,
        "got a int, expected 'generate'",
    ),
    "no stage": (GOOD.replace('["export"]', "[]"), 8, "at least 1 item"),
    "stages is a word": (GOOD.replace('["export"]', '"export"'), 8, "valid list"),
    "chat model unknown": ('chat_model = "chap"\n' + GOOD, 1, "did you mean 'chat'?"),
    "chat model no vendor": ('chat_model = "team"\n' + GOOD, 1, "is internal, expected vendor"),
    "ceiling with an unknown class": (
        GOOD.replace('["brand", "customer-data"]', '["brand", "costumer-data"]'),
        14,
        "did you mean 'customer-data'?",
    ),
    "S33 unclassified lowered": (GOOD + '[classes]\nunclassified = "open"\n', 20, "at least"),
    "default lowered": (GOOD + '[classes]\nlikeness = "sensitive"\n', 20, "at least restricted"),
    "no such sensitivity": (GOOD + '[classes]\nx = "secret"\n', 20, "got 'secret'"),
    "class differs by case from a default": (GOOD + '[classes]\nBrand = "open"\n', 20, "only by"),
    "S24 credential over 5 minutes": (
        GOOD + '[lifetimes]\ncredential = "301s"\n',
        20,
        "5m at most",
    ),
    "S14 grant over 5 minutes": (GOOD + '[lifetimes]\ngrant = "6m"\n', 20, "5m at most"),
    "duration without unit": (GOOD + "[lifetimes]\nlease = 30\n", 20, "got a int"),
    "duration of zero": (GOOD + '[lifetimes]\nlease = "0s"\n', 20, "got '0s'"),
    "duration below zero": (GOOD + '[lifetimes]\nlease = "-5s"\n', 20, "got '-5s'"),
    "duration of other digits": (GOOD + '[lifetimes]\nlease = "٣s"\n', 20, "duration"),
    "S22 review without end": (GOOD + '[lifetimes]\nreview = "999999d"\n', 20, "365 days"),
    "S24 credential that never expires": (
        GOOD + '[lifetimes]\ncredential = "never"\n',
        20,
        "duration",
    ),
    "limit of zero": (GOOD + "[limits]\nmax_bytes = 0\n", 20, "greater than 0"),
    "limit as large as can be": (GOOD + f"[limits]\nmax_bytes = 0x{'f' * 5000}\n", 20, "less than"),
    "people differ by case": (put("[people]", '"KIM@acme.example" = {}'), 4, "only by case"),
    "agents differ by case": (put("painter", AGENT.replace("x", "Painter", 1)), 7, "only by case"),
    "agents differ by width": (
        put("painter", '"\\uff50ainter"' + AGENT[1:]),
        7,
        "ASCII letters only",
    ),
    "people differ by script": (
        put("[people]", '"\\u043emar@acme.example" = {}'),
        3,
        "ASCII letters only",
    ),
    "people with an umlaut": (
        put("[people]", '"j\u00fcrgen@acme.example" = {}'),
        3,
        "ASCII letters only",
    ),
    "destinations differ by case": (
        GOOD + '[destinations.Team]\nurl = "s3://x"\n' + PLACE,
        19,
        "only by case",
    ),
    "the same person twice": (put("[people]", '"kim@acme.example" = {}'), 4, "not valid TOML"),
    "empty people": (re.sub(r'(?m)^"(kim|omar).*\n', "", GOOD), 2, "[people] is empty"),
    "empty agents": (
        'workspace = "acme"\n[people]\nkim = {}\n[agents]\n',
        4,
        "[agents] is empty",
    ),
    "no agents": ('workspace = "acme"\n[people]\nkim = {}\n', 1, "[agents] is empty"),
    "id with a space": (put("[people]", '"kim lee" = {}'), 3, "without spaces"),
    "id with a control character": (put("[people]", '"k\\u0007" = {}'), 3, "visible characters"),
    "id with an invisible character": (put("[people]", '"k\\u200b" = {}'), 3, "visible"),
    "empty id": (put("[people]", '"" = {}'), 3, "visible characters"),
    "group with a space": (put("[people]", 'jo = { groups = ["le gal"] }'), 3, "without spaces"),
    "people is a list": ('workspace = "a"\npeople = ["kim"]\n', 2, "dictionary"),
    "audience missing": (GOOD.replace('audience = "internal"\n', "\n"), 10, "audience' is missing"),
    "environment missing": (
        GOOD.replace('environment = "draft"\n', "\n"),
        10,
        "environment' is missing",
    ),
    "audience unknown": (GOOD.replace('"internal"', '"interal"'), 12, "did you mean 'internal'?"),
    "url without scheme": (GOOD.replace("file:out/team", "out/team"), 11, "file:FOLDER"),
    "file url on another machine": (GOOD.replace("file:out", "file://out"), 11, "a folder"),
    "file url of nothing": (GOOD.replace("file:out/team", "file:"), 11, "a folder"),
    "vendor url for people": (GOOD.replace("file:out/team", "vendor:"), 11, "needs a url"),
    "url with a NUL": (GOOD.replace("file:out", "file:\\u0000"), 11, "one line"),
    "hosts by pattern": (put('url = "file', 'hosts = ["*.example"]'), 12, "pattern"),
    "hosts with a scheme": (put('url = "file', 'hosts = ["https://a.b"]'), 12, "pattern"),
    "ledger of no known kind": ('ledger = "mysql://x"\n' + GOOD, 1, "sqlite:FILE"),
    "ledger as a URL with slashes": ('ledger = "sqlite:///x.db"\n' + GOOD, 1, "sqlite:FILE"),
    "ledger of nothing": ('ledger = "sqlite:"\n' + GOOD, 1, "sqlite:FILE"),
    "ledger in memory": ('ledger = "sqlite::memory:"\n' + GOOD, 1, "on disk"),
    "store of a bare scheme": ('store = "s3:media"\n' + GOOD, 1, "://"),
    "policy that is not there": ('policies = ["gone.cedar"]\n' + GOOD, 1, "neither a folder"),
    "I11 default policy replaced by nothing": (
        "unsafe_replace_default_policy = true\n" + GOOD,
        1,
        "by no policies",
    ),
    "flag as a word": ('unsafe_replace_default_policy = "yes"\n' + GOOD, 1, "valid boolean"),
    "syntax": (put("[people]", "kim = "), 3, "not valid TOML"),
    "syntax at the end": (GOOD + "x = [", 19, "not valid TOML"),
    "number too long": (GOOD + "x = " + "9" * 5000, 19, "not valid TOML"),
    "nesting too deep": ("x = " + "[" * 100_000, 1, "not valid TOML"),
}


@pytest.mark.parametrize(("text", "line", "says"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refusal_names_the_line(tmp_path: Path, text: str, line: int, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, text)
    first = str(refused.value).splitlines()[0]
    assert first.startswith(f"{tmp_path}/agentguard.toml:{line}: "), first
    assert says in first


SECRETS = [
    "https://kim:CANARY@cms.example/wp",
    "https://:CANARY@cms.example/wp",
    "sftp://kim:CAN/ARY@host/x",
    "https://kim%3ACANARY%40cms.example",
    "https://CANARYCANARYCANARYCANARY@git.example/x",
    "https://cms.example/wp?api_key=CANARY",
    "https://cms.example/wp?X-Amz-Signature=CANARY",
    "https://cms.example/wp?page=1;access_token=CANARY",
    "https://cms.example/wp#token=CANARY",
    "abfs://media/x?sv=2022&sig=CANARY",
    "https://cms.example/wp?q=CANARYa1b2c3d4e5f6a1b2c3d4e5f6a1b2c3d4",
    "simplecache::https://kim:CANARY@cms.example/x",
]


@pytest.mark.parametrize("url", SECRETS)
def test_S16_a_secret_in_a_destination_is_refused_and_not_repeated(
    tmp_path: Path, url: str
) -> None:
    with pytest.raises(ConfigError, match="environment") as refused:
        loaded(tmp_path, GOOD.replace("file:out/team", url))
    assert f"{tmp_path}/agentguard.toml:11: " in str(refused.value)
    assert "CAN" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["s3://media/out", "memory://x", "https://cms.example/wp?page=1", "sftp://kim@host/x"]
)
def test_other_urls_pass_as_they_are(tmp_path: Path, url: str) -> None:
    assert loaded(tmp_path, GOOD.replace("file:out/team", url)).destinations["team"].url == url


@pytest.mark.parametrize("name", ["ledger", "store"])
def test_S16_a_password_of_the_storage_comes_from_the_environment(
    tmp_path: Path, name: str
) -> None:
    url = "postgresql://kim:CANARY@db/x"
    with pytest.raises(ConfigError, match=f":1: .*AGENTGUARD_{name.upper()}") as refused:
        loaded(tmp_path, f'{name} = "{url}"\n' + GOOD)
    assert "CANARY" not in str(refused.value)
    one = loaded(tmp_path, **{f"AGENTGUARD_{name.upper()}": url})
    assert getattr(one, name) == url
    assert "CANARY" not in repr(one)


def test_all_problems_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = GOOD.replace('"internal"', '"x"').replace('["export"]', '["y"]')
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, text)
    assert re.findall(r"toml:(\d+):", str(refused.value)) == ["8", "12"]
    with pytest.raises(ConfigError, match="and 30 more"):
        loaded(tmp_path, "".join(f"k{n} = 1\n" for n in range(50)) + GOOD)


def test_pyproject_holds_the_same_table(tmp_path: Path) -> None:
    text = re.sub(r"(?m)^\[", "[tool.agentguard.", GOOD)
    file = written(tmp_path, '[project]\nname = "x"\n[tool.agentguard]\n' + text, "pyproject.toml")
    assert load(file, {}).agents["publisher"].owner == "kim@acme.example"
    file.write_text(file.read_text().replace('["export"]', '["exprot"]'))
    with pytest.raises(ConfigError, match=r"pyproject\.toml:11: "):
        load(file, {})
    file.write_text('[project]\nname = "x"\n')
    with pytest.raises(ConfigError, match=r"no \[tool.agentguard\] table"):
        load(file, {})
    for odd in ("[tool]\nagentguard = 3\n", "tool = 3\n"):
        file.write_text(odd)
        with pytest.raises(ConfigError):
            load(file, {})


def test_the_nearest_file_above_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    written(tmp_path, GOOD)
    written(deep, "[project]\nname = 'x'\n", "pyproject.toml")
    monkeypatch.chdir(deep)
    assert load(environ={}).root == tmp_path
    text = "[tool.agentguard]\n" + re.sub(r"(?m)^\[", "[tool.agentguard.", GOOD)
    written(tmp_path / "a", text, "pyproject.toml")
    assert load(environ={}).root == tmp_path / "a"
    written(tmp_path / "a", GOOD.replace("acme", "nearer"))
    assert load(environ={}).id == "nearer"


def test_a_missing_file_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="agentguard init"):
        load(tmp_path / "gone.toml", {})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="agentguard init"):
        load(environ={})
    with pytest.raises(ConfigError, match="can't be read"):
        load(tmp_path, {})
    (tmp_path / "latin.toml").write_bytes(b"\n# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.toml:2: not UTF-8"):
        load(tmp_path / "latin.toml", {})


def test_the_environment_overrides_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, GOOD)
    monkeypatch.chdir("/")
    one = load(
        environ={
            "AGENTGUARD_CONFIG": str(file),
            "AGENTGUARD_LEDGER": "sqlite:other.db",
            "AGENTGUARD_STORE": "/srv/assets",
            "AGENTGUARD_LOG_KEY": "keys/log",
            "AGENTGUARD_SIGNERS": "/etc/signers",
            "AGENTGUARD_VECTORS": "x",
            "AGENTGUARD_PASSPHRASE": "x",
            "AGENTGUARD_DB_ANYTHING": "x",
            "HOME": "/",
        }
    )
    assert one.ledger == f"sqlite:{tmp_path}/other.db"
    assert one.store == "/srv/assets"
    assert one.log_key == tmp_path / "keys/log"
    assert one.signers == Path("/etc/signers")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("AGENTGUARD_LEDGER", "mysql://CANARY", "sqlite:FILE"),
        ("AGENTGUARD_STORE", "", "unset it"),
        ("AGENTGUARD_LOG_KEY", "a\0b", "one line"),
    ],
)
def test_a_wrong_variable_is_refused(tmp_path: Path, name: str, value: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)) as refused:
        loaded(tmp_path, **{name: value})
    assert name in str(refused.value)
    assert "CANARY" not in str(refused.value)


def test_destinations_of_own_uploaders_need_no_url(tmp_path: Path) -> None:
    text = GOOD.replace('url = "file:out/team"\n', "")
    text += '[destinations.site]\naudience = "public"\nenvironment = "production"\n'
    found = loaded(tmp_path, text).destinations
    assert {name: one.url for name, one in found.items()} == {
        "team": "", "chat": "vendor:", "site": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "AGENTGUARD_SERVICE_HOST",
        "AGENTGUARD_SERVICE_PORT",
        "AGENTGUARD_SERVICE_PORT_HTTP",
        "AGENTGUARD_PORT",
        "AGENTGUARD_PORT_80_TCP",
        "AGENTGUARD_PORT_80_TCP_ADDR",
        "AGENTGUARD_PORT_80_TCP_PORT",
        "AGENTGUARD_PORT_80_TCP_PROTO",
        "AGENTGUARD_LEDGER_SERVICE_HOST",
        "AGENTGUARD_STORE_PORT",
        "AGENTGUARD_CONFIG_PORT_80_TCP",
        "AGENTGUARD_SIGNERS_PORT_443_TCP_ADDR",
        "AGENTGUARD_VERSION",
        "AGENTGUARD_",
        "AGENTGUARD",
    ],
)
@pytest.mark.parametrize("value", ["tcp://10.0.0.1:80", "", "a\nb"])
def test_variable_of_somebody_else_is_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, value: str
) -> None:
    assert loaded(tmp_path, **{name: value}) == loaded(tmp_path)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("AGENTGUARD_LEGDER", "AGENTGUARD_LEDGER"),
        ("AGENTGUARD_LEDGERS", "AGENTGUARD_LEDGER"),
        ("AGENTGUARD_STORES", "AGENTGUARD_STORE"),
        ("AGENTGUARD_LOGKEY", "AGENTGUARD_LOG_KEY"),
        ("AGENTGUARD_SIGNER", "AGENTGUARD_SIGNERS"),
        ("AGENTGUARD_CONFG", "AGENTGUARD_CONFIG"),
        ("agentguard_ledger", "AGENTGUARD_LEDGER"),
        ("AGENTGUARD_PASSPHRAS", "AGENTGUARD_PASSPHRASE"),
    ],
)
def test_near_miss_of_our_variables_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, meant: str
) -> None:
    assert loaded(tmp_path, **{name: "CANARY"}) == loaded(tmp_path)
    assert f"{name} is not read; did you mean {meant}?" in caplog.text
    assert "CANARY" not in caplog.text


@pytest.mark.parametrize("ids", [("kim", "omar"), ('k"im\\', "o'mar"), ("a", "b", "c")])
def test_the_template_loads_also_with_every_option_taken(
    tmp_path: Path, ids: tuple[str, ...]
) -> None:
    text = template("acme", ids)
    one = loaded(tmp_path, text)
    assert list(one.people) == list(ids)
    assert {name: stage for name, a in one.agents.items() for stage in a.stages} == {
        "painter": Stage.GENERATE,
        "editor": Stage.EDIT,
        "renderer": Stage.RENDER,
        "reviewer": Stage.REVIEW,
        "traffic": Stage.QUEUE,
        "publisher": Stage.EXPORT,
    }
    assert one.destinations["team"].ceiling == {"brand", "customer-data"}
    assert one.destinations["site"].environment is Environment.PRODUCTION
    full = loaded(tmp_path, re.sub(r"(?m)^#(?=\S)", "", text))
    assert full.chat_model == "chat"
    assert full.lifetimes == one.lifetimes  # the options show the defaults
    assert full.limits == one.limits
    assert (full.ledger, full.store, full.log_key) == (one.ledger, one.store, one.log_key)


@pytest.mark.parametrize(
    ("name", "ids"), [("acme", ["kim"]), ("acme", ["kim", "kim"]), ("a b", ["kim", "omar"])]
)
def test_the_template_refuses_what_could_not_load(name: str, ids: list[str]) -> None:
    with pytest.raises(ConfigError):
        template(name, ids)


LINES = '''\
# a = 1
top."quoted key".x = 1
[agents]
painter = { stages = ["a", "b"], owner = "kim" } # [not.a.table]
[agents."a.b"]
"k=[x]" = """
[agents.fake]
"""
'lit' = \'\'\'"""\'\'\'
list = [
  1, # ]
  { deep = [ 2.5,
    1979-05-27T07:32:00Z ] },
]
[[rows]]
id = "\\"]"
[[rows]]
[ spaced . "head" ]
end = """""quotes"""""
last = 0
'''


@pytest.mark.parametrize(
    ("where", "line"),
    [
        (("top", "quoted key", "x"), 2),
        (("top", "quoted key"), 2),
        (("agents",), 3),
        (("agents", "painter"), 4),
        (("agents", "painter", "stages", 1), 4),
        (("agents", "painter", "owner"), 4),
        (("agents", "a.b"), 5),
        (("agents", "a.b", "k=[x]"), 6),
        (("agents", "a.b", "lit"), 9),
        (("agents", "a.b", "list"), 10),
        (("agents", "a.b", "list", 0), 11),
        (("agents", "a.b", "list", 1), 12),
        (("agents", "a.b", "list", 1, "deep", 1), 13),
        (("rows",), 15),
        (("rows", "id"), 16),
        (("spaced", "head"), 18),
        (("spaced", "head", "end"), 19),
        (("spaced", "head", "last"), 20),
        (("agents", "fake"), 3),
        (("spaced", "head", "gone"), 18),
        (("nowhere",), 1),
        ((), 1),
    ],
)
def test_a_key_is_found_on_its_line(where: tuple[str | int, ...], line: int) -> None:
    tomllib.loads(LINES)
    assert line_of(lines_of(LINES), where) == line
    assert line_of(lines_of(LINES.replace("\n", "\r\n")), where) == line


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08x}" for c in value) + '"'
    return str(value).lower()


_KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    [*WorkspaceForm.model_fields, *DestinationForm.model_fields, *AgentForm.model_fields, "grant"]
)
_VALUES = st.recursive(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["vendor", "public", "file:x", "5m", "edit", "kim", "open", "sqlite:"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)
_QUIET = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)


@_QUIET
@given(st.dictionaries(_KEYS, _VALUES, max_size=6), st.booleans())
def test_no_keys_raise_anything_but_ConfigError(
    tmp_path: Path, table: dict[str, Any], whole: bool
) -> None:
    text = "".join(f"{_toml(key)} = {_toml(value)}\n" for key, value in table.items())
    tomllib.loads(text)
    _load_or_refuse(tmp_path, text if whole else GOOD + "[destinations.x]\n" + text)


@_QUIET
@given(st.text("[]{}=\"'.,#\n\\ abk1\r\té\0"))
def test_no_text_raises_anything_but_ConfigError(tmp_path: Path, text: str) -> None:
    _load_or_refuse(tmp_path, text)
    _load_or_refuse(tmp_path, GOOD + text)


def _load_or_refuse(tmp_path: Path, text: str) -> None:
    try:
        assert loaded(tmp_path, text).agents
    except ConfigError as error:
        for line in re.findall(r"toml:(\d+):", str(error)):
            assert 1 <= int(line) <= text.count("\n") + 1


@_QUIET
@given(st.dictionaries(_KEYS, _VALUES, max_size=6))
def test_every_key_of_valid_text_is_found(table: dict[str, Any]) -> None:
    lines = [f"{_toml(key)} = {_toml(value)}\n" for key, value in table.items()]
    for number, key in enumerate(table, start=1):
        assert line_of(lines_of("".join(lines)), (key,)) == number
