"""A recorded call: its Request with its approval request and its Grant."""

from __future__ import annotations

from dataclasses import dataclass

from agentguard.ledger.rows.approvals import ApprovalRow, AskedRow
from agentguard.ledger.rows.decode import columns_of, values_of
from agentguard.ledger.rows.grants import GrantRow
from agentguard.ledger.rows.requests import RequestRow
from agentguard.ledger.storage.query import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRow(RequestRow):
    """A recorded Request, and what came of it so far.

    Args:
        approval: its approval request; None where nobody was asked.
        grant: its Grant; None where none was written.
    """

    approval: AskedRow | None
    grant: GrantRow | None


def call_row(row: Row) -> CallRow:
    """A row of a Request, with its approval request and its Grant behind `a_` and `g_`."""
    values = values_of(RequestRow, columns_of(RequestRow), row)
    approval, grant = None, None
    if row["a_request"] is not None:
        asked = values_of(ApprovalRow, columns_of(ApprovalRow), row, "a_")
        approval = AskedRow(**asked, body=values["body"])
    if row["g_request"] is not None:
        grant = GrantRow(**values_of(GrantRow, columns_of(GrantRow), row, "g_"))
    return CallRow(**values, approval=approval, grant=grant)
