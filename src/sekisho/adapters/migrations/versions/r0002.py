"""What the old MInt paths remember: a note beside a job, and how often they are used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add two tables; nothing that is there changes."""
    owner = sa.ForeignKey("jobs.id", ondelete="CASCADE")
    op.create_table(
        "mint_notes",
        sa.Column("job_id", sa.String, owner, primary_key=True),
        sa.Column("note", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "mint_uses",
        sa.Column("site", sa.String, primary_key=True),
        sa.Column("side", sa.String, primary_key=True),
        sa.Column("calls", sa.BigInteger, nullable=False),
        sa.Column("last_at", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
