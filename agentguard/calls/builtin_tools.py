"""The tools that the guard itself gives to agents: list, queue and export assets.

They are plain tools with plain Bindings, and pass the same gate as every other tool.
"""

from collections.abc import Mapping
from typing import Annotated, Protocol

from langchain_core.tools import ToolException, tool

from agentguard.bindings.bound import Bound
from agentguard.bindings.compiled_binding import Arg, CompiledBinding
from agentguard.calls.execution import Execution, current_execution
from agentguard.config.workspace import Workspace
from agentguard.content.text.scan import TextTooLong, scan
from agentguard.export.broker import EXPORT_ASSET, Receipt
from agentguard.ledger.ledger import Ledger
from agentguard.ledger.queries.assets import assets_of_job, parents_in_job
from agentguard.model import Audience, OutsideEffect, Stage, ToolAction


class Sender(Protocol):
    """Sends an asset of a claimed call through the broker."""

    def send(
        self, execution: Execution, *, path: str, sha256: str, texts: Mapping[str, str]
    ) -> Receipt: ...


class Host(Protocol):
    """What these tools need of an enforcement point."""

    @property
    def workspace(self) -> Workspace: ...

    @property
    def ledger(self) -> Ledger: ...

    @property
    def executor(self) -> Sender: ...


def list_assets(host: Host) -> CompiledBinding:
    """`list_assets`: the assets this job may see."""

    @tool
    def list_assets() -> str:
        """List the media of this job: asset id, kind, size, class, and what it was made from."""
        job = _running().claimed.call.job.id
        lines = []
        for asset in host.ledger.rows(assets_of_job(job)):
            parents = host.ledger.rows(parents_in_job(asset.sha256, job))
            size = f" {asset.width}x{asset.height}" if asset.width else ""
            made = f", made from {', '.join(parents)}" if parents else ""
            labels = " + ".join(sorted(asset.labels))
            state = ", recalled" if asset.recalled else ", on hold" if asset.held else ""
            name = _name(asset.called)
            lines.append(
                f"{asset.id}: {asset.media_type}{size}, {asset.how}{name},"
                f" class {labels}{made}{state}"
            )
        return "\n".join(lines) or "This job has no media yet."

    return CompiledBinding(list_assets, stage=None)


def queue_for_release(host: Host) -> CompiledBinding:
    """`queue_for_release`: the queue stage puts an asset in line for one destination."""
    names = _places(host)

    @tool
    def queue_for_release(
        asset: Annotated[str, "id of the asset"],
        to: Annotated[str, f"the destination it is meant for, one of: {names}"],
    ) -> str:
        """Queue an asset for release to a destination. Production takes only what was queued."""
        return f"Queued for {to}. The export stage can now ask to release it."

    return CompiledBinding(
        queue_for_release, stage=Stage.QUEUE, assets=["asset"], destination=Arg("to")
    )


def export_asset(host: Host) -> CompiledBinding:
    """`export_asset`: the export stage releases an asset to a destination, once, just in time."""
    names = _places(host, with_url=True)

    @tool(EXPORT_ASSET)
    def export_asset(
        asset: Annotated[str, "id of the asset"],
        to: Annotated[str, f"the destination, one of: {names}"],
        caption: Annotated[str, "text published with it, if any"] = "",
    ) -> str:
        """Release an asset to a destination. Sensitive exports wait until a person approves."""
        execution = _running()
        sha256 = execution.claimed.request.assets[0].sha256
        texts = {"caption": caption} if caption else {}
        receipt = host.executor.send(execution, path=asset, sha256=sha256, texts=texts)
        return f"Exported to {receipt.location}."

    return CompiledBinding(
        export_asset,
        stage=Stage.EXPORT,
        assets=["asset"],
        texts=["caption"],
        destination=Arg("to"),
        effect=OutsideEffect.IDEMPOTENT,
    )


OWN_TOOLS = (list_assets, queue_for_release, export_asset)
"""What makes each of the guard's own tools."""
OWN_NAMES = frozenset({"list_assets", "queue_for_release", EXPORT_ASSET})
"""Tool names that belong to the guard: recovery asks the broker about what `export_asset` sent."""


def own_tools(workspace: Workspace) -> list[Bound]:
    """The guard's own tools; they are made, and can't run."""
    host = _Unopened(workspace)
    return [Bound(make(host)) for make in OWN_TOOLS]


def own_actions(workspace: Workspace) -> list[ToolAction]:
    """The guard's own tools as policies see them."""
    return [bound.action for bound in own_tools(workspace)]


class _Unopened:
    """A workspace that nothing is done in."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    @property
    def ledger(self) -> Ledger:
        raise ToolException("no ledger is open")

    @property
    def executor(self) -> Sender:
        raise ToolException("no guard is open")


def _name(called: str) -> str:
    """What a file was called, for the model; not where the name says something of a person."""
    try:
        found = scan(called)
    except TextTooLong:
        return ""
    return f" as {called!r}" if not (found.secrets or found.labels) else ""


def _places(host: Host, *, with_url: bool = False) -> str:
    """The destinations that an asset can be released to; a vendor is reached by its own tool."""
    places = [one for one in host.workspace.destinations.values() if one.url or not with_url]
    return ", ".join(sorted(one.id for one in places if one.audience is not Audience.VENDOR))


def _running() -> Execution:
    execution = current_execution.get()
    if execution is None:
        raise ToolException("this runs only under a claimed grant; call it through a graph")
    return execution
