"""Messages of protocol version 1, as JSON. Times are RFC 3339 in UTC, durations seconds.

Nothing here says what a job computes: command, parameters, names, exit code and reasons travel in
the opaque envelopes (`sekisho.wire.envelope`), file contents as frames (`sekisho.wire.frames`).
Of a name that a message says twice the last value counts, for everybody: one decoder reads it,
once; what is judged is what is done. It could be sent alone as well: nothing is gained by it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from sekisho.domain.ids import (
    COMMAND_PATTERN,
    INSTANCE_PATTERN,
    JOB_ID_PATTERN,
    SITE_PATTERN,
    USER_PATTERN,
)
from sekisho.domain.limits import (
    MAX_ENVELOPE_BYTES,
    MAX_QUEUE_TIME,
    MAX_SNAPSHOT_ENVELOPE_BYTES,
    POLL_SECONDS,
)

#: The end of a text: `$` alone would let a line feed follow.
END = r"$(?!\n)"
JobId = Annotated[str, Meta(pattern=f"^{JOB_ID_PATTERN}{END}")]
SiteName = Annotated[str, Meta(pattern=f"^{SITE_PATTERN}{END}")]
UserName = Annotated[str, Meta(pattern=f"^{USER_PATTERN}{END}")]
CommandName = Annotated[str, Meta(pattern=f"^{COMMAND_PATTERN}{END}")]
Instance = Annotated[str, Meta(pattern=f"^{INSTANCE_PATTERN}{END}")]
Digest = Annotated[str, Meta(pattern=f"^[0-9a-f]{{64}}{END}")]
Envelope = Annotated[bytes, Meta(max_length=MAX_ENVELOPE_BYTES)]  # base64 in JSON
SnapshotEnvelope = Annotated[bytes, Meta(max_length=MAX_SNAPSHOT_ENVELOPE_BYTES)]
Epoch = Annotated[int, Meta(ge=1, le=2**31)]


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of every message."""


# --- workflow side -----------------------------------------------------------------------------


class SubmitJob(Message, frozen=True, kw_only=True, omit_defaults=True):
    """A new job. Without inputs it is queued at once, else it stays a draft until `start`."""

    id: JobId
    site: SiteName
    request: Envelope
    has_inputs: bool = False
    queue_s: Annotated[float, Meta(gt=0, le=MAX_QUEUE_TIME.total_seconds())] | None = None


class OpenDraft(Message, frozen=True, kw_only=True, omit_defaults=True):
    """A job of which only inputs are known so far: its `SubmitJob` comes later, once."""

    id: JobId
    site: SiteName


class JobView(Message, frozen=True, kw_only=True, omit_defaults=True):
    """A job as its submitter, its site or an administrator may see it."""

    id: JobId
    site: SiteName
    submitter: UserName
    state: str
    version: int
    created_at: datetime
    changed_at: datetime
    expires_at: datetime
    cancel_requested: bool = False
    attention: str | None = None
    result: Envelope | None = None
    received: bool = False
    lost_by: str | None = None
    unguarded: bool = False  #: its site is served by an old MInt agent: no manifest holds there
    snapshots: int = 0  #: how often the running job has published; the last one can be read


class SnapshotView(Message, frozen=True, kw_only=True, omit_defaults=True):
    """What a running job published last, opaque to the broker."""

    number: int  #: as `JobView.snapshots`
    snapshot: SnapshotEnvelope


class JobPage(Message, frozen=True, kw_only=True, omit_defaults=True):
    jobs: list[JobView]
    next: str | None = None  #: give it as `after` to read on


class SiteView(Message, frozen=True, kw_only=True, omit_defaults=True):
    """A site as its submitters may see it."""

    id: SiteName
    connected: bool
    last_seen_at: datetime | None = None
    disabled: bool = False
    disabled_commands: list[CommandName] = []
    waiting: int = 0  #: the caller's own jobs that no agent has yet
    active: int = 0  #: the caller's own jobs at the site
    agent_version: str | None = None
    unguarded: bool = False  #: served by an old MInt agent, which cannot keep a manifest


class SiteList(Message, frozen=True, kw_only=True, omit_defaults=True):
    sites: list[SiteView]


# --- site side ---------------------------------------------------------------------------------


class JoinSite(Message, frozen=True, kw_only=True, omit_defaults=True):
    """Redeems a one-time invitation, whose token is this request's credential."""

    instance: Instance
    token_hash: Digest  #: SHA-256 of the token that the site made for itself; it never travels here


class Joined(Message, frozen=True, kw_only=True, omit_defaults=True):
    site: SiteName
    submitters: list[UserName]


class Poll(Message, frozen=True, kw_only=True, omit_defaults=True):
    """The agent's long poll. ``free`` is how many more jobs it would take now."""

    instance: Instance
    free: Annotated[int, Meta(ge=0, le=10_000)]
    wait_s: Annotated[float, Meta(ge=0, le=POLL_SECONDS * 1.2)] = POLL_SECONDS
    holds: list[JobId] = []  #: jobs in hand whose cancel this poll wants to hear of
    cancelling: list[JobId] = []  #: of these it has heard already
    coming: list[JobId] | None = None  #: drafts it has heard of; None: it wants to hear of none
    agent_version: Annotated[str, Meta(max_length=40)] = ""


class Offer(Message, frozen=True, kw_only=True, omit_defaults=True):
    job: JobId
    epoch: Epoch
    submitter: UserName
    request: Envelope
    accept_s: float  #: how long the offer stands, counted by the agent from its arrival


class Coming(Message, frozen=True, kw_only=True, omit_defaults=True):
    """A draft whose inputs are being sent: nothing is offered, and nothing need be done."""

    job: JobId
    submitter: UserName
    request: Envelope


class PollAnswer(Message, frozen=True, kw_only=True, omit_defaults=True):
    offers: list[Offer] = []
    cancel: list[JobId] = []
    disabled_commands: list[CommandName] | None = None  #: None: as told before
    coming: list[Coming] = []
    gone: list[JobId] = []  #: of `Poll.coming`: ended, or another agent's


class Held(Message, frozen=True, kw_only=True, omit_defaults=True):
    """What every message about a job that a site holds begins with."""

    epoch: Epoch
    instance: Instance


class Accept(Held, frozen=True, kw_only=True, omit_defaults=True):
    pass


class Report(Held, frozen=True, kw_only=True, omit_defaults=True):
    """Steps in their order, as far as the broker has not acknowledged them."""

    steps: list[Literal["started", "ended"]]


class Publish(Held, frozen=True, kw_only=True, omit_defaults=True):
    """What a running job shows of itself; it replaces what was published before."""

    snapshot: SnapshotEnvelope


class Verdict(Held, frozen=True, kw_only=True, omit_defaults=True):
    """A site's last word on a job. The tree's chunks were sent before."""

    verdict: Literal["succeeded", "failed", "unable", "refused", "cancelled", "lost"]
    result: Envelope
    tree: Digest | None = None
    steps: list[Literal["started", "ended"]] = []  #: not yet acknowledged; they come first


class Identity(Message, frozen=True, kw_only=True, omit_defaults=True):
    """Whom the broker takes the caller for, and its own clock."""

    role: str
    name: str
    at: datetime
    broker_version: str
    max_body_bytes: int


# --- administration ----------------------------------------------------------------------------


class DeclareLost(Message, frozen=True, kw_only=True, omit_defaults=True):
    """An operator's word, by name, on a job that its site cannot tell of any more."""

    by: UserName


class SiteSwitch(Message, frozen=True, kw_only=True, omit_defaults=True):
    """Takes a site, or one command of it, out of service at once, or puts it back."""

    disabled: bool
    command: CommandName | None = None


class Done(Message, frozen=True, kw_only=True, omit_defaults=True):
    done: bool = True


class BrokerStatus(Message, frozen=True, kw_only=True, omit_defaults=True):
    version: str
    started_at: datetime
    jobs: dict[str, int]  #: by state
    stored_bytes: int
    free_bytes: int
    polling: int
    unguarded: list[SiteName] = []  #: sites of old MInt agents, which cannot keep a manifest


class Problem(Message, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457. The sentence is made by the reader, in the reader's language."""

    type: str
    status: int
    code: str
    params: dict[str, str | int | float | bool | list[str] | None] = {}
