"""The front of the command line: start, help, errors, drafts, the doctor, dry runs."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from agentguard.bindings.compilation import compiled
from agentguard.cli.app import app
from agentguard.people.keys import create_person_key
from agentguard.people.signers import Signers
from agentguard.transparency.log_key import create_log_key
from tests.support import KIM, OMAR, command_line
from tests.support.command_line import Shell, studio_in


@pytest.fixture
def workspace(shell: Shell) -> Shell:
    """A shell in a workspace of two people."""
    shell("init", "--workspace", "acme", "--person", KIM, "--person", OMAR)
    return shell


def every_command() -> Iterator[list[str]]:
    def walk(command: Any, words: list[str]) -> Iterator[list[str]]:
        yield words
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, [*words, name])

    yield from walk(typer.main.get_command(app), [])


# --- help and start ------------------------------------------------------------------------------


@pytest.mark.parametrize("words", list(every_command()), ids=" ".join)
def test_every_help_fits_80_columns_and_teaches(shell: Shell, words: list[str]) -> None:
    text = shell(*words, "--help")
    assert all(len(line) <= 80 for line in text.splitlines())
    if words and words[-1] not in ("people", "policy", "assets", "approvals", "jobs", "audit"):
        assert f"$ agentguard {' '.join(words)}" in text
        assert "Next:" in text


def test_alone_it_prints_the_overview_with_the_first_steps(shell: Shell) -> None:
    text = shell()
    assert text.index("agentguard init") < text.index("people add") < text.index("doctor")
    assert "Exit codes" in text


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from agentguard import cli;"
        "print({'langchain_core', 'langgraph', 'cedarpy', 'fsspec',"
        " 'cryptography', 'rich.table'} & set(sys.modules))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == "set()"


def test_a_wrong_option_is_a_usage_error(shell: Shell) -> None:
    shell("doctor", "--nonsense", code=2)
    shell("explain", code=2)
    shell("init", "--person", KIM, code=2)  # nobody approves their own job


def test_errors_are_one_line_and_no_traceback(shell: Shell) -> None:
    assert "agentguard init" in shell.error("approvals", "list")
    assert "not found" in shell.error("--config", "no\x1b[31m.toml", "matrix")
    assert "\x1b" not in shell.error("--config", "no\x1b[31m.toml", "matrix")


def test_config_names_a_workspace_elsewhere(
    workspace: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    path = tmp_path / "agentguard.toml"
    assert workspace.json("--config", path, "people", "list")[0]["person"] == KIM


# --- init and people -----------------------------------------------------------------------------


def test_init_writes_a_workspace_and_keeps_its_secrets_off_git(shell: Shell) -> None:
    text = shell("init", "--person", KIM, "--person", OMAR)
    key = shell.folder / ".agentguard" / "log.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert (shell.folder / ".agentguard" / ".gitignore").read_text() == "*\n"
    steps = [f"agentguard people add {KIM}", "agentguard bind", "agentguard doctor"]
    assert [text.index(step) for step in steps] == sorted(text.index(step) for step in steps)


def test_init_of_two_people_says_what_they_can_not_approve(shell: Shell) -> None:
    text = shell("init", "--person", KIM, "--person", OMAR)
    assert f"With two people, {OMAR} approves what {KIM} asks for." in text
    assert "Add a third" in text


def test_workspace_of_three_people_starts_without_warnings_about_approvers(shell: Shell) -> None:
    lee = ["--person", "lee@acme.example"]
    assert "two people" not in shell("init", "--person", KIM, "--person", OMAR, *lee)
    assert "look approvers" not in findings(shell)


def test_examples_of_explain_answer_in_a_new_workspace(workspace: Shell) -> None:
    text = workspace("explain", "--help")
    examples = [line.split()[2:] for line in text.splitlines() if "$ agentguard explain --" in line]
    assert len(examples) == 2
    assert "ASK" in workspace(*examples[0], code=4)
    assert "PERMIT" in workspace(*examples[1])


def test_audit_counts_one_checkpoint_as_one(workspace: Shell) -> None:
    with studio_in(workspace.folder, keys={}) as studio:
        studio.guard.import_asset(studio.picture(), ["brand"], by=KIM)
    said = workspace("audit", "verify").splitlines()[0]
    assert not re.search(r"\b1 (records|rows|checkpoints)\b", said)


def test_help_of_show_says_that_texts_are_shown_word_for_word(workspace: Shell) -> None:
    text = " ".join(workspace("approvals", "show", "--help").split())
    assert "word for word" in text
    assert "taken out" not in text


def test_init_without_a_terminal_writes_examples_that_the_doctor_points_at(shell: Shell) -> None:
    shell("init")
    assert "you@example.com" in (shell.folder / "agentguard.toml").read_text()
    found = shell.json("doctor")["findings"]
    assert any("are examples" in one["text"] for one in found)


def test_init_never_overwrites(workspace: Shell) -> None:
    before = (workspace.folder / "agentguard.toml").read_bytes()
    assert "not overwritten" in workspace.error("init")
    assert (workspace.folder / "agentguard.toml").read_bytes() == before


def test_init_leaves_a_former_workspace_alone(workspace: Shell) -> None:
    (workspace.folder / "agentguard.toml").unlink()
    key = (workspace.folder / ".agentguard" / "log.key").read_bytes()
    assert "a workspace was here" in workspace.error("init")
    assert (workspace.folder / ".agentguard" / "log.key").read_bytes() == key
    assert not (workspace.folder / "agentguard.toml").exists()


def test_init_does_not_hide_a_pyproject(shell: Shell) -> None:
    (shell.folder / "pyproject.toml").write_text("[tool.agentguard]\nworkspace = 'x'\n")
    assert "would hide it" in shell.error("init")


def test_init_writes_nothing_for_people_it_can_not_take(shell: Shell) -> None:
    shell.both("init", "--person", "two words", "--person", OMAR, code=1)
    assert list(shell.folder.iterdir()) == []


def test_a_person_gets_a_key_once_and_only_if_configured(workspace: Shell) -> None:
    text = workspace("people", "add", OMAR)
    path = workspace.folder / "home" / "agentguard" / "keys" / f"{OMAR}.pem"
    assert str(path) in text
    assert path.stat().st_mode & 0o777 == 0o600
    assert OMAR in (workspace.folder / "agentguard.signers").read_text()
    assert "here already" in workspace.error("people", "add", OMAR)
    assert "never overwritten" in workspace.error("people", "add", OMAR)
    assert "no person" in workspace.error("people", "add", "eve@acme.example")
    people = {row["person"]: row for row in workspace.json("people", "list")}
    assert len(people[OMAR]["keys"]) == 1
    assert people[KIM]["keys"] == []
    assert "no key" in workspace("people", "list")


def test_a_person_uses_one_key_in_two_workspaces(
    workspace: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace("people", "add", OMAR)
    key = workspace.folder / "home" / "agentguard" / "keys" / f"{OMAR}.pem"
    made = key.read_bytes()
    other = workspace.folder / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    workspace("init", "--workspace", "other", "--person", KIM, "--person", OMAR)
    with monkeypatch.context() as patch:
        patch.setattr(command_line, "PASSPHRASE", "another passphrase")
        said = workspace.error("people", "add", OMAR)
    assert "wrong passphrase" in said
    assert f"copy {OMAR}'s line from the other workspace's agentguard.signers" in said
    assert not (other / "agentguard.signers").exists()
    assert f"{OMAR} uses key" in workspace("people", "add", OMAR)
    assert key.read_bytes() == made
    first, second = (
        Signers.load(folder / "agentguard.signers").keys for folder in (workspace.folder, other)
    )
    assert set(first[OMAR]) == set(second[OMAR])


@pytest.mark.parametrize("has_key_file", [False, True], ids=["new", "from another workspace"])
def test_second_key_of_a_person_is_refused_unless_asked_for(
    workspace: Shell, tmp_path: Path, has_key_file: bool
) -> None:
    workspace("people", "add", OMAR)
    mine = tmp_path / "mallory"
    path = mine / f"{OMAR}.pem"
    if has_key_file:
        create_person_key(path, command_line.PASSPHRASE)
    signers = workspace.folder / "agentguard.signers"
    before = signers.read_bytes()
    said = workspace.error("people", "add", OMAR, "--key-folder", mine)
    assert f"{OMAR} has key" in said
    assert "add --second-key" in said
    assert signers.read_bytes() == before
    assert path.exists() == has_key_file
    assert "look signers" in findings(workspace)

    workspace("people", "add", OMAR, "--key-folder", mine, "--second-key")
    held = list(Signers.load(signers).keys[OMAR])
    assert len(held) == 2
    assert any(f"{OMAR} has 2 keys ({', '.join(held)})" in text
               for text in findings(workspace)["look signers"])  # fmt: skip
    assert "2 keys: " in workspace("people", "list")


def test_no_key_stays_if_its_public_half_can_not_be_noted(workspace: Shell) -> None:
    (workspace.folder / "agentguard.signers").write_text("not a signers file\n")
    workspace.error("people", "add", OMAR)
    assert not (workspace.folder / "home").exists()


def test_a_passphrase_is_never_read_from_a_pipe(workspace: Shell) -> None:
    out, err = workspace.both("people", "add", OMAR, code=1, input="secret12\nsecret12\n",
                              secret=False)  # fmt: skip
    assert "AGENTGUARD_PASSPHRASE" in err
    assert "secret12" not in out + err


def test_a_passphrase_is_asked_for_twice_and_not_echoed(workspace: Shell) -> None:
    keys = workspace.folder / "keys"
    words = ["-m", "agentguard.cli", "people", "add", OMAR, "--key-folder", str(keys)]
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover
        os.environ.pop("AGENTGUARD_PASSPHRASE", None)
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[3])
        os.execv(sys.executable, [sys.executable, *words])
    seen, sent, end = b"", 0, time.monotonic() + 30
    while time.monotonic() < end:
        if not select.select([terminal], [], [], 0.1)[0]:
            continue
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # the other side is gone
            break
        if not chunk:
            break
        seen += chunk
        if seen.count(b"phrase for the key") + seen.count(b"epeat") > sent:
            sent += 1
            time.sleep(0.2)  # until echo is off
            os.write(terminal, b"correct horse\n")
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, seen
    assert sent == 2, seen
    assert b"correct horse" not in seen
    assert (keys / f"{OMAR}.pem").exists()


# --- bind ----------------------------------------------------------------------------------------

TOOLS = '''
from langchain_core.tools import tool

print("printed while importing")

@tool
def crop(source: str, width: int, file: str = "c.png") -> str:
    """Crop a picture."""
    return ""

@tool("caption_it")
def caption(source: str, text: str, file: str = "c.png") -> str:
    """Write on a picture."""
    return ""

@tool
def odd(anything: dict) -> str:
    """Odd."""
    return ""

TOOLS = [crop, caption]
MIXED = {"crop": crop, "odd": odd}
'''


def test_bind_drafts_python_that_can_be_imported(workspace: Shell) -> None:
    (workspace.folder / "clitools_one.py").write_text(TOOLS)
    source, _ = workspace.both("bind", "clitools_one:TOOLS")
    assert source.startswith("# Drafted from signatures: a guess.")
    assert "printed while importing" not in source
    names: dict[str, Any] = {}
    exec(source, names)
    assert [binding.tool.name for binding in names["bindings"]] == ["crop", "caption_it"]
    assert compiled(names["bindings"][0]).binding.outputs == {"file": ""}


def test_bind_leaves_declared_tools_as_they_are(workspace: Shell) -> None:
    (workspace.folder / "clitools_declared.py").write_text(
        "from agentguard import media_tool\n\n\n@media_tool(stage=None)\n"
        'def count(n: int) -> str:\n    """Count."""\n    return str(n)\n\n\nTOOLS = [count]\n'
    )
    out = workspace("bind", "clitools_declared:TOOLS")
    assert "    # declared by @media_tool: it needs no Binding\n    count,\n" in out
    assert "Binding(" not in out.partition("bindings = [")[2]
    (workspace.folder / "clitools_drafted.py").write_text(out)
    findings(workspace, "--bindings", "clitools_drafted:bindings", code=0)


def test_bind_drafts_one_tool_and_names_what_it_can_not(workspace: Shell) -> None:
    (workspace.folder / "clitools_two.py").write_text(TOOLS)
    assert re.search(r"Binding\(\s*caption,", workspace("bind", "clitools_two:caption"))
    out, err = workspace.both("bind", "clitools_two:MIXED", code=1)
    assert re.search(r"Binding\(\s*crop,", out)
    assert "error: odd.anything: an open shape" in err
    out, _ = workspace.both("bind", "clitools_two:MIXED", "--json", code=1)
    assert [sorted(row) for row in json.loads(out)] == [
        ["expression", "source", "tool"],
        ["error", "expression", "tool"],
    ]


def test_bind_drafts_the_others_beside_a_function_without_schema(workspace: Shell) -> None:
    (workspace.folder / "clitools_hints.py").write_text(
        "from typing import Annotated\n"
        "def fit(photo: str, options: Annotated[int, 'no docstring']) -> bytes: ...\n"
        "def odd(photo: str, of: 'Missing') -> bytes:\n    'Odd.'\n"
        "def turn(photo: str) -> bytes:\n    'Turn a picture.'\n"
        "TOOLS = [fit, odd, turn]\n"
    )
    out, err = workspace.both("bind", "clitools_hints:TOOLS", code=1)
    assert re.search(r"Binding\(\s*turn,", out)
    assert "    # fit can't be drafted: " in out
    assert [line.split(" can't")[0] for line in err.splitlines()] == ["error: fit", "error: odd"]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Pydantic takes typing.TypedDict there")
def test_bind_drafts_the_others_beside_a_typed_dict(workspace: Shell) -> None:
    (workspace.folder / "clitools_typed.py").write_text(
        "from typing import TypedDict\n"
        "class Options(TypedDict):\n    width: int\n"
        "def crop(photo: str, options: Options) -> bytes:\n    'Crop.'\n"
        "def turn(photo: str) -> bytes:\n    'Turn.'\n"
        "TOOLS = [crop, turn]\n"
    )
    out, err = workspace.both("bind", "clitools_typed:TOOLS", code=1)
    assert re.search(r"Binding\(\s*turn,", out)
    assert "# crop can't be drafted: Please use `typing_extensions.TypedDict`" in out
    assert err.startswith("error: crop can't be drafted: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("clitools_missing:TOOLS", "can't be imported: ModuleNotFoundError"),
        ("clitools_three:NOPE", "no attribute 'NOPE'"),
        ("clitools_broken:TOOLS", "ZeroDivisionError: division by zero"),
        ("clitools_three", "expected MODULE:NAME"),
        ("clitools_three:__name__", "got a str, expected LangChain tools"),
    ],
)
def test_bind_says_what_it_can_not_import(workspace: Shell, named: str, said: str) -> None:
    (workspace.folder / "clitools_three.py").write_text(TOOLS)
    (workspace.folder / "clitools_broken.py").write_text("1 / 0\n")
    _, err = workspace.both("bind", named, code=1)
    assert said in err
    assert "Traceback" not in err


# --- doctor --------------------------------------------------------------------------------------


def findings(shell: Shell, *words: str, code: int = 0) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in shell.json("doctor", *words, code=code)["findings"]:
        found.setdefault(f"{one['state']} {one['what']}", []).append(one["text"])
    return found


def test_the_doctor_finds_nothing_red_in_a_new_workspace(workspace: Shell) -> None:
    found = findings(workspace)
    assert not [name for name in found if name.startswith("bad")]
    assert {"ok config", "ok policy", "ok log key", "ok ledger", "ok store", "ok site"} <= set(
        found
    )
    assert "nobody has a key" in found["look signers"][0]
    text = workspace("doctor")
    assert f"→ each person: agentguard people add {KIM}" in text
    assert "0 bad" in text


def test_the_doctor_names_whoever_can_never_be_approved(workspace: Shell) -> None:
    found = findings(workspace)["look approvers"]
    # kim owns every agent, so a job of omar's has nobody left.
    assert f"when {OMAR} asks for the job" in found[0]
    assert "regulated to site (ask 2 (legal))" in found[1]


def test_a_log_key_that_others_can_read_is_red(workspace: Shell) -> None:
    (workspace.folder / ".agentguard" / "log.key").chmod(0o644)
    found = findings(workspace, code=1)
    assert "chmod 600" in found["bad log key"][0]
    assert "ok ledger" not in found


def test_a_log_key_that_did_not_sign_the_ledger_is_red(workspace: Shell) -> None:
    assert "ok ledger" in findings(workspace)
    key = workspace.folder / ".agentguard" / "log.key"
    key.unlink()
    create_log_key(key)
    text = findings(workspace, code=1)["bad ledger"][0]
    assert "log key is not the one that signed the ledger; copy that one" in text


def test_a_destination_that_is_no_folder_is_red(workspace: Shell) -> None:
    (workspace.folder / "out").write_text("a file")
    assert "is no folder" in findings(workspace, code=1)["bad site"][0]


def test_an_unsound_configuration_is_red_line_by_line(workspace: Shell) -> None:
    path = workspace.folder / "agentguard.toml"
    path.write_text(path.read_text() + "\n[oops]\n[oops2]\n")
    assert len(findings(workspace, code=1)["bad config"]) == 2


def test_a_policy_that_is_broken_is_red(workspace: Shell) -> None:
    own = workspace.folder / "own.cedar"
    own.write_text("permit (principal, action, resource);")
    path = workspace.folder / "agentguard.toml"
    text = path.read_text().replace("[people]", 'policies = ["own.cedar"]\n[people]', 1)
    path.write_text(text)
    assert "@id" in findings(workspace, code=1)["bad policy"][0]


def test_a_policy_that_more_approvals_make_refuse_is_red(workspace: Shell) -> None:
    own = workspace.folder / "own.cedar"
    own.write_text(
        '@id("own.crowd")\nforbid (principal, action in Action::"stage:export", resource)'
        "\nwhen { context.approvals > 2 };"
    )
    path = workspace.folder / "agentguard.toml"
    text = path.read_text().replace("[people]", 'policies = ["own.cedar"]\n[people]', 1)
    path.write_text(text)
    (said,) = findings(workspace, code=1)["bad policy"]
    assert "with 2 approvals it is permitted, with 3 refused" in said
    checked = " ".join(workspace.json("policy", "check", code=1)["wrong"])
    assert "with 2 approvals it is permitted, with 3 refused" in checked
    assert "own.crowd" in checked


def test_a_ledger_whose_triggers_were_dropped_is_red(workspace: Shell) -> None:
    import sqlite3

    workspace("jobs", "list")
    with sqlite3.connect(workspace.folder / ".agentguard" / "ledger.db") as connection:
        connection.execute("DROP TRIGGER grants_transition")
    assert "grants_transition" in findings(workspace, code=1)["bad ledger"][0]


def test_bindings_are_looked_at_one_by_one(workspace: Shell) -> None:
    (workspace.folder / "clitools_bound.py").write_text(
        TOOLS + "\nfrom tests.support.bindings import Binding\n"
        'B = [Binding(crop, stage="edit", assets=["source"], plain=["width"], outputs=["file"]),\n'
        '     Binding(caption, stage="edit", assets=["source"], outputs=["file"]), crop]\n'
    )
    out, _ = workspace.both("doctor", "--bindings", "clitools_bound:B", "--json", code=1)
    found = [one for one in json.loads(out)["findings"] if one["what"] == "bindings"]
    assert [one["state"] for one in found] == ["ok", "bad", "bad"]
    assert "nobody declared text" in found[1]["text"]
    assert "crop: nobody declared it" in found[2]["text"]


def test_doctor_lists_roles_and_says_what_an_unsaid_to_means(workspace: Shell) -> None:
    (workspace.folder / "clitools_roles.py").write_text(
        TOOLS.replace("print(", "str(") + "\nfrom agentguard import Asset, Binding, Output, Text\n"
        'A = {"source": Asset(), "file": Output()}\n'
        'B = [Binding(crop, stage="edit", args=A),\n'
        '     Binding(caption, stage="edit", to=None, args={**A, "text": Text()})]\n'
    )
    said = findings(workspace, "--bindings", "clitools_roles:B")["ok bindings"]
    assert said == [
        "crop: edit stage; Asset source; Plain width; Output file; to= is not said, which means"
        " that nothing leaves this machine",
        "caption_it: edit stage; Asset source; Text text; Output file; nothing leaves this machine",
    ]


STATE_TOOL = """
from typing import Annotated, Any
from agentguard import Asset, Opaque, To, media_tool
from langgraph.prebuilt import InjectedState
@media_tool(stage="export", effect=Opaque())
def post_it(picture: Annotated[str, Asset()], to: Annotated[str, To()],
            state: Annotated[dict[str, Any], InjectedState]) -> str:
    'Post it.'
    return to
B = [post_it]
"""


def test_doctor_points_at_an_export_that_depends_on_what_nobody_decides_on(
    workspace: Shell,
) -> None:
    (workspace.folder / "clitools_state.py").write_text(STATE_TOOL, "utf-8")
    said = findings(workspace, "--bindings", "clitools_state:B")["look bindings"]
    assert "post_it is handed state by the graph, which nobody decides on" in said[0]


CLIENT_TOOL = """
import http.client
from langchain_core.tools import tool
from tests.support.bindings import Binding
there = http.client.HTTPConnection("127.0.0.1", 9)
@tool
def size_it(prompt: str) -> str:
    'Size it.'
    return str(there)
"""


def test_a_tool_that_holds_a_client_is_drafted_and_looked_at(workspace: Shell) -> None:
    (workspace.folder / "clitools_client.py").write_text(CLIENT_TOOL, "utf-8")
    out, _ = workspace.both("bind", "clitools_client:size_it")
    assert 'Binding(size_it, stage="edit", to="?", args={' in out
    for word, module, code in (('"?"', "clitools_asks", 1), ("True", "clitools_says", 0)):
        (workspace.folder / f"{module}.py").write_text(
            f'{CLIENT_TOOL}B = [Binding(size_it, stage="edit", texts=["prompt"], local={word})]\n',
            "utf-8",
        )
        said = findings(workspace, "--bindings", f"{module}:B", code=code)
        if code:
            assert any(
                "size_it: got local='?', expected True" in one for one in said["bad bindings"]
            )
        else:
            assert any(
                "size_it says that nothing leaves this machine, and has an object of"
                " http.client.HTTPConnection" in one
                for one in said["look bindings"]
            )


def test_a_drafted_operation_that_nobody_decided_on_is_red(workspace: Shell) -> None:
    (workspace.folder / "clitools_long.py").write_text(
        "from langchain_core.tools import tool\nfrom tests.support.bindings import Binding\n"
        "@tool\ndef get_clip(job_id: str) -> str:\n    'Get a clip.'\n    return ''\n"
        'B = [Binding(get_clip, stage="generate", operations={"job_id": "?"})]\n'
    )
    (said,) = findings(workspace, "--bindings", "clitools_long:B", code=1)["bad bindings"]
    assert "get_clip.job_id takes an operation of ?, which is not bound" in said


# --- explain and matrix --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "effect", "code"),
    [
        ("--to team --class brand", "permit", 0),
        ("--to site --class brand --queued --reviewed", "ask", 4),
        ("--to site --class brand --queued --reviewed --approvals 1", "permit", 0),
        ("--to site --class generated --queued --reviewed --provenance verified", "permit", 0),
        ("--to site --class brand", "deny", 3),
        ("--to site --queued --reviewed", "ask", 4),
        ("--agent editor --tool-stage export --to team --class brand", "deny", 3),
        ("--tool-stage generate", "permit", 0),
        ("--tool-stage edit --to site --class brand", "deny", 3),
    ],
)
def test_explain_dry_runs_a_call(workspace: Shell, words: str, effect: str, code: int) -> None:
    said = workspace.json("explain", *words.split(), code=code)
    assert said["effect"] == effect
    assert all(
        policy["file"].startswith("agentguard/policy/default/") for policy in said["policies"]
    )
    text = workspace("explain", *words.split(), code=code)
    assert text.startswith(effect.upper())
    assert said["policies"][0]["id"] in text


def test_explain_counts_only_people_who_may_approve(workspace: Shell) -> None:
    words = ["--to", "site", "--class", "regulated", "--queued", "--approvals", "2"]
    assert "only 1 may approve" in workspace.error("explain", *words)
    words = ["--to", "site", "--class", "brand", "--queued", "--group", "marketing"]
    assert "nobody in marketing" in workspace.error("explain", *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--to nowhere", "there are site, team"),
        ("--to site --class bran", "no class bran"),
        ("--agent eve", "no agent eve"),
        ("--to site --requested-by eve", "no person"),
        ("0123456789abcdef", "nothing is called"),
        ("abc", "give 12 or more characters"),
    ],
)
def test_explain_says_what_it_does_not_know(workspace: Shell, words: str, said: str) -> None:
    assert said in workspace.error("explain", *words.split())


def test_explain_records_nothing(workspace: Shell) -> None:
    workspace("explain", "--to", "site", "--class", "brand", code=3)
    assert workspace.json("audit", "tail") == []


def test_matrix_says_who_may_do_what_and_what_is_asked(workspace: Shell) -> None:
    data = workspace.json("matrix")
    publisher = {"owner": KIM, "stages": ["export"], "combined": []}
    assert data["agents"]["publisher"] == publisher
    words = {(one["class"], one["destination"]): one["word"] for one in data["exports"]}
    assert words["brand", "team"] == "permit"
    assert words["licensed", "team"] == "ask 1"
    assert words["regulated", "site"] == "ask 2 (legal)"
    assert words["embargoed", "site"] == "deny"
    assert words["generated", "site"] == "ask 1"
    text = workspace("matrix")
    assert "✓" in text
    assert "ask 2 (legal) !" in text  # nobody in this workspace could give it
    assert all(len(line) <= 80 for line in text.splitlines())
    verified = workspace.json("matrix", "--provenance", "verified")["exports"]
    words = {(one["class"], one["destination"]): one["word"] for one in verified}
    assert words["generated", "site"] == "permit"


def test_S26_an_agent_of_combined_stages_is_pointed_out_everywhere(workspace: Shell) -> None:
    path = workspace.folder / "agentguard.toml"
    studio = (
        f'studio = {{ stages = ["export", "edit", "generate"], owner = "{KIM}",'
        " unsafe_combined_stages = true }\n"
    )
    path.write_text(path.read_text().replace("[agents]\n", "[agents]\n" + studio))
    (found,) = findings(workspace)["look agents"]
    assert "studio combines generate, export (unsafe_combined_stages)" in found
    assert "studio combines generate, export" in workspace("matrix")
    agents = workspace.json("matrix")["agents"]
    assert agents["studio"]["combined"] == ["generate", "export"]
    assert agents["editor"]["combined"] == []
    words = ["--to", "team", "--class", "brand"]
    assert "studio also holds generate" in workspace("explain", "--agent", "studio", *words)
    assert "also holds" not in workspace("explain", "--agent", "publisher", *words)


def test_matrix_shows_vendors_by_what_may_be_sent_to_them(workspace: Shell) -> None:
    path = workspace.folder / "agentguard.toml"
    vendor = '[destinations.images]\naudience = "vendor"\nenvironment = "draft"\n'
    path.write_text(path.read_text() + vendor + 'ceiling = ["brand"]\n')
    words = {
        one["class"]: one["word"]
        for one in workspace.json("matrix")["exports"]
        if one["destination"] == "images"
    }
    assert words["brand"] == words["generated"] == "permit"
    assert words["customer-data"] == "deny"
    assert "vendors take no releases" in workspace("matrix")
