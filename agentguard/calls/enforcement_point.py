"""The enforcement point of a workspace: what a call goes through, whichever way it comes in.

The ways in are `authorization_nodes.py`, `function_nodes.py`, `middleware.py` and `guarded_tool.py`
of `langgraph/`.
"""

from __future__ import annotations

from langchain_core.tools import BaseTool

from agentguard.bindings.bound import Bound
from agentguard.calls.asked_calls import AskedCalls
from agentguard.calls.assess import Assessor
from agentguard.calls.authorize import Authorizer
from agentguard.calls.bound_tools import BoundTools
from agentguard.calls.claim import Claims
from agentguard.calls.executor import Executor
from agentguard.calls.import_asset import Importer
from agentguard.calls.refusal_log import RefusalLog
from agentguard.config.workspace import Workspace
from agentguard.content.formats.identify import Limits
from agentguard.content.store import Store
from agentguard.export.broker import Broker
from agentguard.jobs.registry import Jobs
from agentguard.ledger.ledger import Ledger
from agentguard.people.approvals import Approvals
from agentguard.policy.policy_set import Policy
from agentguard.transparency.log_key import derived_key, load_log_key


class EnforcementPoint:
    """What a call goes through, made once for a workspace in a process.

    A way in reads a run's calls, and hands them on to what is held here: `authorizer` decides on
    those of a message, `asked_calls` knows how asked ones stand, `claims` takes a Grant's one use,
    and `executor` runs what was claimed. All of it is synchronous; asynchronous ways in call it on
    a thread, so that nothing is written twice.

    Args:
        workspace: the configuration.
        policy: the policies.
        ledger: where everything is remembered.
        store: where asset bytes are.
        broker: the way out.

    Attributes:
        approvals: what people are asked, and the way an Answer gets in.
        assessor: decides on a call by the current facts.
        refusals: records and logs why calls don't go on.
        bound_tools: the tools with their Bindings.
        importer: takes media in.
        jobs: the jobs that this process holds.
        limits: what may be taken in.
        message_key: marks refusals as the guard's own words.
    """

    def __init__(
        self, *, workspace: Workspace, policy: Policy, ledger: Ledger, store: Store, broker: Broker
    ) -> None:
        self.workspace = workspace
        self.policy = policy
        self.ledger = ledger
        self.store = store
        self.broker = broker
        self.approvals = Approvals(workspace=workspace, ledger=ledger)
        self.limits = Limits(
            max_bytes=workspace.limits.max_bytes, max_pixels=workspace.limits.max_pixels
        )
        self.refusals = RefusalLog(ledger)
        self.assessor = Assessor(
            workspace=workspace,
            policy=policy,
            ledger=ledger,
            approvals=self.approvals,
            refusals=self.refusals,
        )
        self.authorizer = Authorizer(assessor=self.assessor, refusals=self.refusals)
        self.asked_calls = AskedCalls(assessor=self.assessor, refusals=self.refusals)
        self.claims = Claims(assessor=self.assessor, store=store, limits=self.limits)
        self.executor = Executor(assessor=self.assessor, broker=broker)
        self.bound_tools = BoundTools(workspace, policy)
        self.importer = Importer(
            workspace=workspace, store=store, ledger=ledger, limits=self.limits
        )
        self.jobs = Jobs(interval=workspace.lifetimes.lease / 3000)
        # Read once, for the file may go while the ledger is open.
        self.message_key = derived_key(load_log_key(workspace.log_key), "message/v1")

    def bound_for(self, tool: BaseTool) -> Bound:
        """The Binding of a tool object; see `BoundTools.bound_for`."""
        return self.bound_tools.bound_for(tool)

    @property
    def bound(self) -> dict[str, Bound]:
        """The bound tools by name."""
        return self.bound_tools.by_name
