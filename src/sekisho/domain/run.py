"""The life of a job at its site: the stages that the runner carries it through.

The runner is a reconcile loop: it looks at what is really there, takes one idempotent step and
records it as one row of STAGES. A restart is the normal case; no step assumes that the one before
it ran in this process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from sekisho.domain.errors import InvalidTransition
from sekisho.domain.launch import LaunchLimits, Sandbox
from sekisho.domain.resources import Resources, Venue


class Stage(StrEnum):
    """How far a job has come at its site."""

    TAKEN = "taken"  #: in the journal; the broker has not yet confirmed the accept
    ACCEPTED = "accepted"  #: ours; inputs may be fetched
    STAGED = "staged"  #: inputs verified and in place
    SUBMITTED = "submitted"  #: the intent to start is recorded; from here a start may have happened
    RUNNING = "running"
    ENDED = "ended"  #: an exit record with our token, and nothing of the job runs any more
    COLLECTED = "collected"  #: copied, decided, and the release is in the site's log
    RETURNED = "returned"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    DROPPED = "dropped"  #: the broker gave it to somebody else, or ended it, before we started it

    @property
    def final(self) -> bool:
        return self not in STAGES


G = Stage
_VERDICTS: Final = frozenset({G.REFUSED, G.FAILED, G.CANCELLED})
STAGES: Final[Mapping[Stage, frozenset[Stage]]] = {
    G.TAKEN: frozenset({G.ACCEPTED, G.REFUSED, G.DROPPED}),
    G.ACCEPTED: frozenset({G.STAGED, G.LOST, G.DROPPED}) | _VERDICTS,
    # back to ACCEPTED: the site wants it on another host now; its inputs have to go there
    G.STAGED: frozenset({G.SUBMITTED, G.ACCEPTED, G.DROPPED}) | _VERDICTS,
    # back to ACCEPTED: it certainly did not start, or its command is idempotent; tried afresh
    G.SUBMITTED: frozenset({G.RUNNING, G.ACCEPTED, G.LOST, G.DROPPED}) | _VERDICTS,
    G.RUNNING: frozenset({G.ENDED, G.ACCEPTED, G.LOST, G.DROPPED}) | _VERDICTS,
    G.ENDED: frozenset({G.COLLECTED, G.DROPPED}) | _VERDICTS,
    G.COLLECTED: frozenset({G.RETURNED, G.FAILED, G.DROPPED}),  # FAILED: the copy does not keep
}


class Stop(StrEnum):
    """Why a run is being stopped."""

    CANCEL = "cancel"
    TIME_LIMIT = "time_limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a command ended, from its exit record. ``signal`` is 0 when none ended it."""

    code: int
    signal: int
    started_at: datetime
    ended_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Elements of an array of ``count`` that did not end well, as ranges such as ``3,5-7``.

    ``failed`` ended with another code than 0; ``lost`` were started and left no record of an end;
    ``unstarted`` never were, and never will be.
    """

    count: int
    failed: str = ""
    lost: str = ""
    unstarted: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One job at its site: everything that must survive the agent."""

    job: str
    epoch: int
    submitter: str
    request: bytes  #: the opaque envelope as it came
    taken_at: datetime
    stage: Stage = G.TAKEN
    command: str = ""
    attempt: int = 1
    kept: bool = True  #: its inputs, once staged, outlive a power cut
    manifest: str = ""  #: the digest of the one that its inputs passed last
    token: str = ""  #: recorded before a start; what is started carries it
    argv: tuple[str, ...] = ()  #: recorded with the token: a repeated start is the same start
    environment: tuple[tuple[str, str], ...] = ()
    limits: LaunchLimits = field(default_factory=LaunchLimits)
    sandbox: Sandbox | None = None
    venue: Venue = field(default_factory=Venue)
    resources: Resources = field(default_factory=Resources)
    started_at: datetime | None = None  #: when the intent to start was recorded
    began_at: datetime | None = None  #: when a batch job was first seen to run
    ticket: str | None = None  #: the scheduler's name for what was started
    held: bool = False  #: the batch system lets it wait until somebody there does something
    stop: Stop | None = None
    exit: Exit | None = None
    why: str | None = None  #: the code of what ended it, when that was not its own doing
    part: Part | None = None  #: what did not end well of an array
    result: bytes | None = None  #: the cleared outcome envelope, recorded before anything is sent
    tree: str | None = None  #: digest of the cleared outputs
    seal: str | None = None  #: of the copy of them, when it has one
    ok: bool = False
    keep_until: datetime | None = None  #: when the work directory may be purged
    told: tuple[Stage, ...] = ()  #: what the broker has acknowledged
    finished_at: datetime | None = None

    @property
    def settled(self) -> bool:
        """Final, and the broker knows: nothing is owed any more."""
        return self.stage.final and (self.stage in self.told or self.stage is G.DROPPED)


def advance(run: Run, stage: Stage, **changes: object) -> Run:
    """Return ``run`` in ``stage`` with ``changes``, or raise InvalidTransition."""
    if stage not in STAGES.get(run.stage, frozenset()):
        raise InvalidTransition(job=run.job, state=run.stage.value, event=stage.value)
    return replace(run, stage=stage, **changes)  # type: ignore[arg-type]
