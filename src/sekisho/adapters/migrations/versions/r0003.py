"""What running jobs publish: the last snapshot of each, and how often there was one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add a column with a default and a table; nothing that is there changes."""
    op.add_column("jobs", sa.Column("snapshots", sa.BigInteger, nullable=False, server_default="0"))
    owner = sa.ForeignKey("jobs.id", ondelete="CASCADE")
    op.create_table(
        "snapshots",
        sa.Column("job_id", sa.String, owner, primary_key=True),
        sa.Column("snapshot", sa.LargeBinary, nullable=False),
    )
