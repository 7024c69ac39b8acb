"""What sites and submitters hold, in a database: kept as totals beside the jobs."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from sekisho.adapters.sql.engine import Database
from sekisho.adapters.sql.tables import holdings
from sekisho.broker.holding import Usage


def holding(database: Database) -> sa.Executable:
    """Return the statement that adds to what a site and a submitter hold."""
    new = database.insert(holdings)
    return new.on_conflict_do_update(
        index_elements=[holdings.c.site, holdings.c.submitter],
        set_={
            "live_jobs": holdings.c.live_jobs + new.excluded.live_jobs,
            "stored_bytes": holdings.c.stored_bytes + new.excluded.stored_bytes,
        },
    )


def used(tx: sa.Connection, *, site: str | None = None, submitter: str | None = None) -> Usage:
    """Return what the jobs of the site, the submitter, or both, hold together."""
    statement = _usage(site=site is not None, submitter=submitter is not None)
    live_jobs, stored_bytes = tx.execute(statement, {"site": site, "submitter": submitter}).one()
    return Usage(live_jobs=int(live_jobs or 0), stored_bytes=int(stored_bytes or 0))


def used_alone(
    database: Database, tx: sa.Connection, *, site: str, submitter: str
) -> tuple[Usage, Usage]:
    """Return what a site and a submitter hold now; until ``tx`` ends nobody else asks this way.

    Whoever asks has added to it before, always: those locks are taken in one order.
    """
    for name in (f"{site}/", f"/{submitter}"):  # no space is called so
        database.hold_space(tx, name, alone=True)
    return used(tx, site=site), used(tx, submitter=submitter)


@lru_cache
def _usage(*, site: bool, submitter: bool) -> sa.Select[Any]:
    total = sa.select(sa.func.sum(holdings.c.live_jobs), sa.func.sum(holdings.c.stored_bytes))
    if site:
        total = total.where(holdings.c.site == sa.bindparam("site"))
    if submitter:
        total = total.where(holdings.c.submitter == sa.bindparam("submitter"))
    return total
