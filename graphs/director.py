"""The scripted director, and the scripted model that plays every role without a key.

It is a LangChain chat model: it reads the messages that a language model would read and answers
with tool calls. What it knows it knows from them: the destinations from its system prompt, the
brief and the material from the person's message, asset ids and refusals from reports and tools.
A script is replayed over the conversation at each turn, so the model itself keeps nothing.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Literal, TypeVar

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, Field

from agentguard.errors import ConfigError
from graphs.brief import Delivery, Place, Plan, read_brief
from graphs.crew import ASSET, SCRIPTS, Call, Script, is_logo, numbered

HAND_OVER = "hand_over"
_PLACE = re.compile(r"^- (\S+): (internal|partner|public), (draft|production)$", re.M)
_MATERIAL = re.compile(r"^- (.+?): (.+)$", re.M)
_SIZE = "1280x720"
_SECONDS = 2

Said = TypeVar("Said")
Heard = TypeVar("Heard")


class hand_over(BaseModel):
    """Give one task to one agent of the studio and get its report."""

    agent: Literal["painter", "editor", "renderer", "reviewer", "traffic", "publisher"]
    task: str = Field(description="What to do, with the ids of the assets to use.")


def load_model(name: str | None) -> BaseChatModel:
    """A chat model by name, e.g. `openai:gpt-5`; None is the scripted one, which needs no key.

    Raises:
        ConfigError: the name, the provider's package or its key is wrong; says which.
    """
    if name is None:
        return ScriptedModel()
    from langchain.chat_models import init_chat_model

    try:
        model = init_chat_model(name)
    except Exception as error:  # each provider's package has its own kinds
        raise ConfigError(f"--model {name}: {str(error).partition(chr(10))[0]}") from error
    assert isinstance(model, BaseChatModel)
    return model


class ScriptedModel(BaseChatModel):
    """Plays whichever role its tools are for: the director, a stage agent, or the solo agent."""

    tools: tuple[str, ...] = ()

    @property
    def _llm_type(self) -> str:
        return "agentguard-scripted"

    def bind_tools(
        self, tools: Sequence[Mapping[str, Any] | type | Callable[..., Any] | BaseTool], **_: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """A copy that plays the role of these tools."""
        names = tuple(
            tool.name if isinstance(tool, BaseTool)
            else str(convert_to_openai_tool(tool)["function"]["name"]) for tool in tools
        )  # fmt: skip
        return self.model_copy(update={"tools": names})

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.speak(messages))])

    def speak(self, messages: Sequence[BaseMessage]) -> AIMessage:
        """The next message of the role, after what was said so far."""
        since = _since_last_human(messages)
        turns = [_results(since, message) for message in since if _calls(message)]
        task = since[0].text if since else ""
        if HAND_OVER in self.tools:
            heard = [results[0].text for results in turns]
            wish = _replay(_direct(task, _system(messages)), heard)
            if isinstance(wish, str):
                return AIMessage(wish)
            return as_message([Call(HAND_OVER, {"agent": wish[0], "task": wish[1]})])
        roles = [role for role, tool in _SIGNATURE.items() if tool in self.tools]
        script = SCRIPTS[roles[0]](task) if len(roles) == 1 else _solo(task, _system(messages))
        calls = _replay(script, turns)
        return AIMessage(calls) if isinstance(calls, str) else as_message(calls)


_SIGNATURE = {
    "painter": "generate_image",
    "editor": "place_logo",
    "renderer": "render_video",
    "reviewer": "review_media",
    "traffic": "queue_for_release",
    "publisher": "export_asset",
}


def _direct(message: str, system: str) -> Generator[tuple[str, str], str, str]:
    """Yields (agent, task), is sent the agent's report, returns what to tell the person."""
    brief, _, listed = message.partition("\nMaterial:")
    places = {id: Place(audience=a, environment=e) for id, a, e in _PLACE.findall(system)}
    plan = read_brief(brief.strip(), places)
    wanted = "\n".join(f"{n}. {picture.prompt}" for n, picture in enumerate(plan.pictures, 1))
    count = len(plan.pictures)
    report = yield "painter", f"Paint {_count(count, 'picture')}, {_SIZE}.\n{wanted}"
    pictures = _assets(report)
    told = _troubles(report)
    if not pictures:
        return f"Nothing was made. The painter reports:\n{report}"
    wishes = _wishes(plan, _MATERIAL.findall(listed))
    edits = [f"{n}. {asset}: {'; '.join(wishes[n])}" for n, asset in pictures.items() if wishes[n]]
    if edits:
        report = yield "editor", "Edit these pictures.\n" + "\n".join(edits)
        pictures |= _assets(report)
        told += _troubles(report)
    film = ""
    if plan.film:
        stills = ", ".join(pictures.values())
        report = yield "renderer", f"Make a film of {stills}, {_SECONDS} seconds each."
        film = "".join(ASSET.findall(report)[:1]) if "refused" not in report else ""
        told += _troubles(report)
    everything = [*pictures.values(), *([film] if film else [])]
    report = yield "reviewer", f"Review {', '.join(everything)}."
    faulty = {a for line in report.splitlines() if "refused" in line for a in ASSET.findall(line)}
    told += _troubles(report)
    for delivery in plan.deliveries:
        assets = [a for a in _chosen(delivery, pictures, film) if a not in faulty]
        if not assets:
            told.append(f"Nothing was left to send to {delivery.place}.")
            continue
        named = ", ".join(assets)
        if places[delivery.place].environment == "production":
            report = yield "traffic", f"Queue for {delivery.place}: {named}"
            told += _troubles(report)
        report = yield "publisher", f"Export to {delivery.place}: {named}"
        told += report.splitlines()
    done = f"Made {_count(len(pictures), 'picture')}{' and a film' * bool(film)}."
    return "\n".join([done, *told])


def _solo(message: str, system: str) -> Script:
    """The director's plan, carried out by the same hands."""
    directing = _direct(message, system)
    try:
        agent, task = next(directing)
        while True:
            report = yield from SCRIPTS[agent](task)
            agent, task = directing.send(report)
    except StopIteration as told:
        return str(told.value)


def _wishes(plan: Plan, material: Sequence[tuple[str, str]]) -> dict[int, list[str]]:
    """What to do to each picture: material where the brief mentions it, else in turn."""
    wishes: dict[int, list[str]] = {n: [] for n in range(1, len(plan.pictures) + 1)}
    for turn, (name, labels) in enumerate(material):
        words = r"\blogo|\bmark\b" if is_logo(name, labels) else r"\bphoto|\bportrait|\bcustomer"
        homes = [n for n in wishes if re.search(words, plan.pictures[n - 1].words)]
        wishes[homes[0] if homes else 1 + turn % len(wishes)].append(f"place {name}")
    for number, picture in enumerate(plan.pictures, 1):
        if picture.caption:
            wishes[number].append(f'caption "{picture.caption}"')
    return wishes


def _chosen(delivery: Delivery, pictures: Mapping[int, str], film: str) -> list[str]:
    films = [film] if film else []
    if delivery.what.isdigit():
        return [asset for n, asset in pictures.items() if n == int(delivery.what)]
    return {
        "film": films,
        "pictures": list(pictures.values()),
        "all": [*pictures.values(), *films],
    }[delivery.what]


def _assets(report: str) -> dict[int, str]:
    found = {number: ASSET.search(line) for number, line in numbered(report)}
    return {n: match[0] for n, match in found.items() if match is not None}


def _troubles(report: str) -> list[str]:
    return [line for line in report.splitlines() if "refused" in line or "no such" in line]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _replay(script: Generator[Said, Heard, str], heard: Sequence[Heard]) -> Said | str:
    """What a script says after what it heard; a str is its report."""
    try:
        said = next(script)
        for answer in heard:
            said = script.send(answer)
    except StopIteration as report:
        return str(report.value)
    return said


def _since_last_human(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    starts = [n for n, message in enumerate(messages) if isinstance(message, HumanMessage)]
    return list(messages[starts[-1] :]) if starts else []


def _system(messages: Sequence[BaseMessage]) -> str:
    return "\n".join(message.text for message in messages if isinstance(message, SystemMessage))


def _calls(message: BaseMessage) -> bool:
    return isinstance(message, AIMessage) and bool(message.tool_calls)


def _results(messages: Sequence[BaseMessage], said: BaseMessage) -> list[ToolMessage]:
    """The results of a message's calls, in their order; a call that got none was refused."""
    answers = {m.tool_call_id: m for m in messages if isinstance(m, ToolMessage)}
    return [
        answers.get(call["id"] or "")
        or ToolMessage("nothing came back", tool_call_id=call["id"] or "", status="error")
        for call in (said.tool_calls if isinstance(said, AIMessage) else ())
    ]


def as_message(calls: Sequence[Call]) -> AIMessage:
    """An AI message that makes these calls, each with an id of its own."""
    return AIMessage(
        "",
        tool_calls=[
            {"name": call.tool, "args": call.args, "id": f"call_{secrets.token_hex(8)}",
             "type": "tool_call"} for call in calls
        ],
    )  # fmt: skip
