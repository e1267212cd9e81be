"""Rows about jobs, and the credentials of those who act in them."""

from __future__ import annotations

from dataclasses import dataclass

from agentguard.model import JobEnd, JobState, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job.

    Args:
        reason: why it ended, in words that decide nothing.
        ended_by: None while it goes on, and of jobs that ended before schema 9.
    """

    id: str
    purpose: str
    requested_by: str
    state: JobState
    epoch: int
    opened_at: int
    ended_at: int | None
    reason: str | None
    ended_by: JobEnd | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary(JobRow):
    """A job as people read it.

    Args:
        until: the end of its lease; None without one.
        asked: how many of its questions are open.
    """

    until: int | None
    asked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderRow:
    """Who may act in a job: all None where there is no such job."""

    job_state: JobState | None
    job_epoch: int | None
    leased_until: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingRow:
    """A job as a decision sees it.

    Args:
        live: the agent has a live credential for the call's stage.
        unguarded: a tool was started past the guard.
        denials: how many of its questions were answered with a no.
    """

    state: JobState
    requested_by: str
    live: bool
    unguarded: bool
    denials: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialRow:
    """A credential."""

    id: str
    job: str
    agent: str
    stage: Stage
    epoch: int
    issued_at: int
    expires_at: int
    state: str
