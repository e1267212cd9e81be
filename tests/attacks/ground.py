"""A guarded workspace with the tools that the attacks aim at, and what these tools really did."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, InjectedToolCallId, tool
from langgraph.prebuilt import InjectedState
from langgraph.types import Command, interrupt
from PIL import Image

from agentguard import Guard
from agentguard.config.workspace import Workspace
from agentguard.model import Verdict
from agentguard.people.answers import sign_answer
from agentguard.policy.policy_set import Policy
from tests.support import CONFIG, Clock, write_workspace
from tests.support.bindings import Arg, Binding

TWO_COURIERS = (
    CONFIG.replace(
        "[destinations.team]",
        'courier = { stages = ["export"], owner = "kim@acme.example" }\n\n[destinations.team]',
    )
    + """
[lifetimes]
review = "10m"
"""
)


TWO_PEOPLE = """
@id("acme.regulated") @advice("regulated media is looked at twice")
forbid (principal, action in Action::"stage:export", resource)
  when { resource.labels.contains("regulated") }
  unless { context.approvals >= 2 };
"""

NO_ASSET = "asset-" + "0" * 20


@dataclass
class Scene:
    """What the tools of one attack did, and how they are made to misbehave.

    Args:
        effects: (SHA-256 of the bytes that were published, where to, who drove) of each publish.
        seen: what the tool `peek` found in its injected state.
        plugin: what the tool `plugin` answers, given its call id.
        after_effect: called by `publish` once the bytes are out.
        driver: who drives the graph now: a job, or a graph, by a name.
    """

    effects: list[tuple[str, str, str]] = field(default_factory=list)
    seen: list[list[str]] = field(default_factory=list)
    plugin: Callable[[str], Any] = field(default=lambda call_id: "nothing to do")
    after_effect: Callable[[], None] = field(default=lambda: None)
    driver: str = "first"


class Tools:
    """The plain tools; they do what they do whatever scene is on."""

    def __init__(self) -> None:
        self.scene = Scene()

        @tool
        def publish(source: str, to: str) -> str:
            """Upload a picture by the developer's own code."""
            scene, data = self.scene, Path(source).read_bytes()
            scene.effects.append((hashlib.sha256(data).hexdigest(), to, scene.driver))
            scene.after_effect()
            return "published"

        @tool
        def plugin(note: str, tool_call_id: Annotated[str, InjectedToolCallId]) -> Any:
            """A plugin from somewhere."""
            return self.scene.plugin(tool_call_id)

        @tool(response_format="content_and_artifact")
        def peek(note: str, state: Annotated[dict[str, Any], InjectedState]) -> Any:
            """Look at the conversation."""
            self.scene.seen.append([str(m.content) for m in state["messages"]])
            return "looked", None

        @tool
        def keep(note: str, tool_call_id: Annotated[str, InjectedToolCallId]) -> Any:
            """Keep a note in the graph's state."""
            said = ToolMessage("kept", tool_call_id=tool_call_id)
            return Command(update={"note": note, "messages": [said]})

        @tool
        def consult(note: str) -> str:
            """Ask a question of its own, then say what was answered."""
            return f"the answer is {interrupt('really?')}"

        self.by_name: dict[str, BaseTool] = {
            t.name: t for t in (publish, plugin, peek, keep, consult)
        }
        self.home = dict.fromkeys(self.by_name, "edit") | {"publish": "export"}

    def bindings(self) -> list[Binding]:
        by = self.by_name
        return [
            Binding(by["publish"], stage="export", assets=["source"], destination=Arg("to"),
                    effect="opaque"),
            Binding(by["plugin"], stage="edit", plain=["note"]),
            Binding(by["peek"], stage="edit", plain=["note"]),
            Binding(by["keep"], stage="edit", plain=["note"], state=["note"]),
            Binding(by["consult"], stage="edit", plain=["note"], interrupts=True),
        ]  # fmt: skip


@dataclass
class Ground:
    """One workspace on disk, its guard, and everybody's private keys.

    Many attacks share one: each has jobs, threads and pictures of its own.
    """

    folder: Path
    guard: Guard
    clock: Clock
    keys: Mapping[str, Ed25519PrivateKey]
    tools: Tools
    used: int = 0

    def picture(self) -> Path:
        """A picture like no other, so that no two attacks know each other's bytes."""
        noise = os.urandom(8 * 8 * 3)
        path = self.folder / f"{noise[:6].hex()}.png"
        Image.frombytes("RGB", (8, 8), noise).save(path)
        return path

    def answer(self, request: str, person: str, verdict: Verdict, group: str | None) -> None:
        """A person answers one approval request, by their own key."""
        self.guard.approvals.answer(
            sign_answer(self.keys[person], request=request, verdict=verdict, person=person,
                        group=group, at=self.clock())
        )  # fmt: skip

    def reopen(self, config: str | None = None) -> None:
        """Close the guard and open the workspace again, as another process would."""
        self.guard.close()
        if config is not None:
            (self.folder / "agentguard.toml").write_text(config, "utf-8")
        self.guard = open_guard(self.folder, self.tools, self.clock)

    def set_policy(self, text: str) -> None:
        """Decide by the default policy and one more, from now on."""
        file = self.folder / "tighter.cedar"
        file.write_text(text, "utf-8")
        self.guard.enforcement.assessor.policy = Policy.load([file])

    def raise_class(self, file: Path, label: str, *, by: str) -> None:
        """Somebody imports the same bytes under one more label."""
        self.guard.import_asset(file, [label], by=by)

    def move_destination(self, id: str) -> None:
        """Change where a destination sends to, in the configuration that is in force."""
        workspace = self.guard.workspace
        moved = dataclasses.replace(
            workspace.destinations[id], url=f"file:{self.folder / 'elsewhere'}"
        )
        self._configure(
            dataclasses.replace(workspace, destinations={**workspace.destinations, id: moved})
        )

    def restore(self) -> None:
        """Put policy and configuration back as they were."""
        self.guard.enforcement.assessor.policy = self.guard.policy
        vars(self.guard.enforcement.authorizer).pop("authorize", None)
        self._configure(self._workspace)

    def _configure(self, workspace: Workspace) -> None:
        self.guard.enforcement.workspace = workspace
        self.guard.enforcement.assessor.workspace = workspace

    def __post_init__(self) -> None:
        self._workspace = self.guard.workspace


def open_ground(folder: Path) -> Ground:
    """A new workspace in a folder, and a guard over it."""
    keys = write_workspace(folder, TWO_COURIERS)
    (folder / "policies").mkdir()
    (folder / "policies" / "two.cedar").write_text(TWO_PEOPLE, "utf-8")
    clock, tools = Clock(), Tools()
    return Ground(
        folder=folder, guard=open_guard(folder, tools, clock), clock=clock, keys=keys, tools=tools
    )


def open_guard(folder: Path, tools: Tools, clock: Clock) -> Guard:
    """A guard over a workspace's folder."""
    return Guard.from_config(folder / "agentguard.toml", tools=tools.bindings(), clock=clock)
