"""The first version: jobs with what they hold, sites, tokens."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_LIVE: Final = "state IN ('draft', 'queued', 'offered', 'accepted', 'running', 'returning')"
_ENDED: Final = "state IN ('succeeded', 'failed', 'refused', 'cancelled', 'expired', 'lost')"


def upgrade() -> None:
    """Make every table."""
    _make_jobs()
    _make_parts_of_jobs()
    _make_totals()
    _make_directory()


def _make_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("site", sa.String, nullable=False),
        sa.Column("submitter", sa.String, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("request_digest", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("changed_at", sa.BigInteger),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("instance", sa.String),
        sa.Column("offer_until", sa.BigInteger),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("attention", sa.String),
        sa.Column("result_tree", sa.String),
        sa.Column("lost_by", sa.String),
        sa.Column("received_at", sa.BigInteger),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("stored_bytes", sa.BigInteger, nullable=False, server_default="0"),
    )
    op.create_index("jobs_site", "jobs", ["site", "id"])
    op.create_index("jobs_submitter", "jobs", ["submitter", "id"])
    _partial("jobs_queue", ["site", "created_at", "id"], "state IN ('queued')")
    _partial("jobs_waiting_end", ["expires_at"], "state IN ('draft', 'queued')")
    _partial("jobs_offer_end", ["offer_until"], "state IN ('offered')")
    _partial("jobs_live", ["id"], _LIVE)
    _partial("jobs_ended", ["changed_at"], _ENDED)
    _partial("jobs_received", ["received_at"], "received_at IS NOT NULL")


def _partial(name: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, "jobs", columns, sqlite_where=condition, postgresql_where=condition)


def _job_id() -> sa.Column[str]:
    owner = sa.ForeignKey("jobs.id", ondelete="CASCADE")
    return sa.Column("job_id", sa.String, owner, primary_key=True)


def _make_parts_of_jobs() -> None:
    op.create_table(
        "envelopes",
        _job_id(),
        sa.Column("request", sa.LargeBinary, nullable=False),
        sa.Column("result", sa.LargeBinary),
    )
    op.create_table(
        "history",
        _job_id(),
        sa.Column("version", sa.BigInteger, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "pins",
        _job_id(),
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("pins_digest", "pins", ["digest"])


def _make_totals() -> None:
    op.create_table(
        "holdings",
        sa.Column("site", sa.String, primary_key=True),
        sa.Column("submitter", sa.String, primary_key=True),
        sa.Column("live_jobs", sa.BigInteger, nullable=False),
        sa.Column("stored_bytes", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("holdings_submitter", "holdings", ["submitter"])
    op.create_table(
        "forgotten", sa.Column("id", sa.String, primary_key=True), sqlite_with_rowid=False
    )


def _make_directory() -> None:
    op.create_table(
        "sites",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("submitters", sa.String, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("disabled_commands", sa.String, nullable=False),
        sa.Column("last_seen_at", sa.BigInteger),
        sa.Column("agent_version", sa.String),
        sa.Column("instance", sa.String),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("hash", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("note", sa.String, nullable=False),
        sa.Column("redeemed_for", sa.LargeBinary),
    )
    op.create_index("tokens_name", "tokens", ["role", "name"])
