"""The tables, and how our types are kept in them.

Times are microseconds since 1970 in UTC, digests 32 bytes, words of an enumeration text. What a
database adds to an empty one is in `adapters.migrations`; a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from sekisho.domain.access import Role
from sekisho.domain.job import TRANSITIONS, Attention, JobState

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Kept(TypeDecorator[Any]):
    """A type of ours over a plain column: how it is written and how it is read back."""

    impl = sa.String  # always replaced by `plain`
    cache_ok = True

    def __init__(
        self,
        plain: sa.types.TypeEngine[Any],
        write: Callable[[Any], Any],
        read: Callable[[Any], Any],
    ) -> None:
        super().__init__()
        self.plain = plain
        self.write = write
        self.read = read

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(self.plain)

    def process_bind_param(self, value: Any | None, _dialect: sa.Dialect) -> Any | None:
        return None if value is None else self.write(value)

    def process_result_value(self, value: Any | None, _dialect: sa.Dialect) -> Any | None:
        return None if value is None else self.read(value)


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def _sorted_list(names: frozenset[str]) -> str:
    return json.dumps(sorted(names))


def _set_of(text: str) -> frozenset[str]:
    return frozenset(json.loads(text))


def _word(words: type[StrEnum]) -> Kept:
    return Kept(sa.String(), str, words)


MOMENT: Final = Kept(sa.BigInteger(), _microseconds, _moment)
DIGEST: Final = Kept(sa.LargeBinary(), bytes.fromhex, bytes.hex)
NAMES: Final = Kept(sa.String(), _sorted_list, _set_of)
STATE: Final = _word(JobState)


metadata: Final = sa.MetaData()

jobs: Final = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("site", sa.String, nullable=False),
    sa.Column("submitter", sa.String, nullable=False),
    sa.Column("created_at", MOMENT, nullable=False),
    sa.Column("expires_at", MOMENT, nullable=False),
    sa.Column("request_digest", sa.String, nullable=False),
    sa.Column("state", STATE, nullable=False),
    sa.Column("changed_at", MOMENT),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("instance", sa.String),
    sa.Column("offer_until", MOMENT),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("attention", _word(Attention)),
    sa.Column("result_tree", sa.String),
    sa.Column("lost_by", sa.String),
    sa.Column("snapshots", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("received_at", MOMENT),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("stored_bytes", sa.BigInteger, nullable=False, server_default="0"),
)


def among(*states: JobState) -> sa.ColumnElement[bool]:
    """Return "the job is in one of these states", in constants: partial indexes need them."""
    return jobs.c.state.in_([sa.literal_column(f"'{state.value}'") for state in states])


sa.Index("jobs_site", jobs.c.site, jobs.c.id)
sa.Index("jobs_submitter", jobs.c.submitter, jobs.c.id)

QUEUED: Final = among(JobState.QUEUED)
WAITING: Final = among(JobState.DRAFT, JobState.QUEUED)
OFFERED: Final = among(JobState.OFFERED)
LIVE: Final = among(*TRANSITIONS)
ENDED: Final = among(*(state for state in JobState if state.terminal))


def _partial(name: str, where: sa.ColumnElement[bool], *columns: sa.Column[Any]) -> None:
    sa.Index(name, *columns, sqlite_where=where, postgresql_where=where)


_partial("jobs_queue", QUEUED, jobs.c.site, jobs.c.created_at, jobs.c.id)
_partial("jobs_waiting_end", WAITING, jobs.c.expires_at)
_partial("jobs_offer_end", OFFERED, jobs.c.offer_until)
_partial("jobs_live", LIVE, jobs.c.id)
_partial("jobs_ended", ENDED, jobs.c.changed_at)
_partial("jobs_received", jobs.c.received_at.is_not(None), jobs.c.received_at)


def _job_id() -> sa.Column[str]:
    return sa.Column(
        "job_id", sa.String, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )


#: Apart from the jobs, so that a change of state does not write them again.
envelopes: Final = sa.Table(
    "envelopes",
    metadata,
    _job_id(),
    sa.Column("request", sa.LargeBinary, nullable=False),
    sa.Column("result", sa.LargeBinary),
)

snapshots: Final = sa.Table(
    "snapshots",
    metadata,
    _job_id(),
    sa.Column("snapshot", sa.LargeBinary, nullable=False),
)

history: Final = sa.Table(
    "history",
    metadata,
    _job_id(),
    sa.Column("version", sa.BigInteger, primary_key=True),
    sa.Column("at", MOMENT, nullable=False),
    sa.Column("state", STATE, nullable=False),
    sqlite_with_rowid=False,
)

pins: Final = sa.Table(
    "pins",
    metadata,
    _job_id(),
    sa.Column("digest", DIGEST, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
sa.Index("pins_digest", pins.c.digest)

#: What `usage` answers, kept up by every writer: adding it up would read every job.
holdings: Final = sa.Table(
    "holdings",
    metadata,
    sa.Column("site", sa.String, primary_key=True),
    sa.Column("submitter", sa.String, primary_key=True),
    sa.Column("live_jobs", sa.BigInteger, nullable=False),
    sa.Column("stored_bytes", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
sa.Index("holdings_submitter", holdings.c.submitter)

#: Ids of jobs that were purged: they must not run a second time.
forgotten: Final = sa.Table(
    "forgotten",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sqlite_with_rowid=False,
)

sites: Final = sa.Table(
    "sites",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("submitters", NAMES, nullable=False),
    sa.Column("created_at", MOMENT, nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False),
    sa.Column("disabled_commands", NAMES, nullable=False),
    sa.Column("last_seen_at", MOMENT),
    sa.Column("agent_version", sa.String),
    sa.Column("instance", sa.String),
)

tokens: Final = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("hash", DIGEST, nullable=False, unique=True),
    sa.Column("role", _word(Role), nullable=False),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("created_at", MOMENT, nullable=False),
    sa.Column("expires_at", MOMENT),
    sa.Column("revoked_at", MOMENT),
    sa.Column("note", sa.String, nullable=False),
    sa.Column("redeemed_for", DIGEST),  #: the hash of the token that an invitation was used for
)
sa.Index("tokens_name", tokens.c.role, tokens.c.name)

#: What the old MInt paths remember of a job; opaque here.
mint_notes: Final = sa.Table(
    "mint_notes",
    metadata,
    _job_id(),
    sa.Column("note", sa.LargeBinary, nullable=False),
)

mint_uses: Final = sa.Table(
    "mint_uses",
    metadata,
    sa.Column("site", sa.String, primary_key=True),
    sa.Column("side", sa.String, primary_key=True),
    sa.Column("calls", sa.BigInteger, nullable=False),
    sa.Column("last_at", MOMENT, nullable=False),
    sqlite_with_rowid=False,
)
