"""What README and docs show is run: a reader who copies it gets what they saw."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from PIL import Image

from agentguard.bindings.compilation import compiled
from agentguard.config import workspace as configuration
from agentguard.model import Effect, Provenance, Stage
from agentguard.policy.lint import Known
from agentguard.policy.policy_set import Policy
from agentguard.policy.simulate import Trial, first_agent, judge_among_strangers
from tests.support import call, write_workspace

ROOT = Path(__file__).parents[2]


def blocks(path: str, language: str) -> list[str]:
    text = (ROOT / path).read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


class Obedient(GenericFakeChatModel):
    """Crops the asset that the user names."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        assert [tool.name for tool in tools] == ["crop"]
        assert set(tools[0].args) == {"source", "width", "height"}
        return self

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        last = messages[-1]
        if isinstance(last, HumanMessage):
            asset = re.findall(r"asset-[0-9a-f]+", str(last.content))[0]
            arguments = {"source": asset, "width": 64, "height": 64}
            answer = AIMessage("", tool_calls=[call("crop", arguments)])
        else:
            answer = AIMessage("done")
        self.messages = iter([answer])
        return super()._generate(messages, *args, **kwargs)


def test_the_readme_example_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teaser, code, rejoin = blocks("README.md", "python")
    for line in filter(None, teaser.splitlines()):
        assert line.removesuffix(" ...") in code, "the first screen shows what the example has"
    assert "rejoin_job" in rejoin  # tests/integration/approvals/test_waiting_jobs.py goes that way
    write_workspace(tmp_path)
    Image.new("RGB", (200, 100), "navy").save(tmp_path / "logo.png")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"model": Obedient(messages=iter([])), "saver": InMemorySaver()}
    exec(compile(code, "README.md", "exec"), scope)
    guard = scope["guard"]
    state = scope["graph"].get_state({"configurable": {"thread_id": "t1"}})
    (message,) = [m for m in state.values["messages"] if isinstance(m, ToolMessage)]
    assert message.status == "success", message.content
    (made,) = guard.ledger.all("SELECT width, height, labels FROM assets WHERE width = 64")
    assert (made["height"], made["labels"]) == (64, '["brand"]')
    guard.close()


def test_the_documented_policy_loads(tmp_path: Path) -> None:
    for number, text in enumerate(blocks("docs/reference/configuration.md", "cedar")):
        file = tmp_path / f"doc{number}.cedar"
        file.write_text(text, "utf-8")
        assert len(Policy.load([file]).rules) == len(Policy.load().rules) + 1
    assert number == 0


def test_the_policy_of_the_how_to_does_what_the_page_says(tmp_path: Path) -> None:
    """The page's tool, its policies and its call, as written there."""
    page = "docs/how-to/policies.md"
    scope: dict[str, Any] = {}
    for text in blocks(page, "python"):
        exec(compile(text, page, "exec"), scope)
    action = compiled(scope["render_video"]).action
    file = tmp_path / "own.cedar"
    file.write_text("".join(blocks(page, "cedar")), "utf-8")
    policy = Policy.load([file])
    known = Known(
        tools=[action],
        other_tools=frozenset(),
        agents=(),
        destinations=(),
        groups=("legal",),
        labels=("embargoed", "regulated"),
    )
    policy.require_fits(known)
    write_workspace(tmp_path)
    workspace = configuration.load(tmp_path / "agentguard.toml")
    agent = first_agent(workspace, Stage.RENDER)
    assert agent is not None
    for seconds, effect in ((90, Effect.ASK), (60, Effect.PERMIT)):
        trial = Trial(
            agent=agent,
            stage=Stage.RENDER,
            destination=None,
            labels=frozenset({"brand"}),
            queued=False,
            reviewed=False,
            provenance=Provenance.VERIFIED,
            requester=agent.owner,
            action=action,
            args={"source": "x", "seconds": seconds, "codec": "h264"},
        )
        assert judge_among_strangers(trial, workspace, policy).effect is effect


def test_every_requirement_id_in_the_readme_is_proved_by_a_test() -> None:
    cited = set(re.findall(r"\bS\d+\b", (ROOT / "README.md").read_text("utf-8")))
    tests = "".join(p.read_text("utf-8") for p in (ROOT / "tests").rglob("test_*.py"))
    missing = sorted(i for i in cited if not re.search(rf"{i}(?!\d)", tests))
    assert missing == []
