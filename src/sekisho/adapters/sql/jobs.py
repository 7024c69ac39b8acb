"""Jobs in a database. Statements are made once: SQLAlchemy then keeps what it compiled."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from sekisho.adapters.sql.engine import AnyRow, Database
from sekisho.adapters.sql.holding import holding, used_alone
from sekisho.adapters.sql.tables import (
    LIVE,
    OFFERED,
    QUEUED,
    WAITING,
    among,
    envelopes,
    forgotten,
    history,
    jobs,
)
from sekisho.broker.holding import AllowJob, anything
from sekisho.broker.ports import JobFilter, Tenant
from sekisho.domain.errors import Conflict, NotFound
from sekisho.domain.job import TRANSITIONS, Job, JobState, Offered, apply
from sekisho.domain.limits import DRAFT_TIME

_KEPT: Final = tuple(column for column in jobs.c if column.name != "stored_bytes")
_NAMES: Final = tuple(column.name for column in _KEPT)
#: What no event changes; see `sekisho.domain.job.apply`.
_FIXED: Final = frozenset({"id", "site", "submitter", "created_at"})
_CHANGING: Final = tuple(name for name in _NAMES if name not in _FIXED)

#: Every reading of whole jobs begins with this.
WHOLE_JOBS: Final = sa.select(*_KEPT, envelopes.c.request, envelopes.c.result).join_from(
    jobs, envelopes
)
_BY_ID: Final = WHOLE_JOBS.where(jobs.c.id == sa.bindparam("id"))
_LIMIT: Final = sa.bindparam("limit", type_=sa.Integer)

_QUEUE: Final = sa.and_(
    jobs.c.site == sa.bindparam("site"), QUEUED, jobs.c.expires_at > sa.bindparam("now")
)
_OWN: Final = jobs.c.submitter == sa.bindparam("submitter")
_ANY_QUEUED: Final = sa.select(jobs.c.id).where(_QUEUE).limit(1)
_OLDEST_QUEUED: Final = (
    WHOLE_JOBS.where(_QUEUE)
    .order_by(jobs.c.created_at, jobs.c.id)
    .limit(1)
    .with_for_update(skip_locked=True, key_share=True, of=jobs)
)

_DUE: Final = WHOLE_JOBS.where(
    jobs.c.id.in_(
        sa.union(
            sa.select(jobs.c.id).where(OFFERED, jobs.c.offer_until <= sa.bindparam("now")),
            sa.select(jobs.c.id).where(WAITING, jobs.c.expires_at <= sa.bindparam("now")),
            sa.select(jobs.c.id).where(
                among(JobState.DRAFT), jobs.c.created_at <= sa.bindparam("draft_before")
            ),
        )
    )
).limit(_LIMIT)

_LOCKED_STATE: Final = (
    sa.select(jobs.c.state)
    .where(jobs.c.id == sa.bindparam("id"), jobs.c.version == sa.bindparam("expected"))
    .with_for_update(key_share=True)
)
_CHANGE: Final = (
    sa.update(jobs)
    .where(jobs.c.id == sa.bindparam("job"))
    .values({name: sa.bindparam(name) for name in _CHANGING})
)
_RESULT: Final = (
    sa.update(envelopes)
    .where(envelopes.c.job_id == sa.bindparam("job"))
    .values(result=sa.bindparam("result"))
)
_REQUEST: Final = (
    sa.update(envelopes)
    .where(envelopes.c.job_id == sa.bindparam("job"))
    .values(request=sa.bindparam("request"))
)
_HISTORY: Final = sa.insert(history)
_ENVELOPE: Final = sa.insert(envelopes)
_FORGOTTEN: Final = sa.select(forgotten.c.id).where(forgotten.c.id == sa.bindparam("id"))


class SqlJobs:
    """Implements `broker.ports.JobStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._new_job = database.insert(jobs).on_conflict_do_nothing().returning(jobs.c.id)
        self._hold = holding(database)

    def add(self, job: Job, allow: AllowJob = anything) -> Job:
        def work(tx: sa.Connection) -> Job:
            if tx.execute(self._new_job, _values(job)).first() is None:
                return _same_submission(_job(tx.execute(_BY_ID, {"id": job.id}).one()), job)
            # After the insertion, so that it sees a purge for which the insertion waited.
            if tx.execute(_FORGOTTEN, {"id": job.id}).first() is not None:
                raise Conflict("job.forgotten", job=job.id)
            tx.execute(_ENVELOPE, {"job_id": job.id, "request": job.request})
            _remember(tx, [job])
            tx.execute(self._hold, _held(job, live_jobs=not job.state.terminal))
            allow(*used_alone(self._database, tx, site=job.site, submitter=job.submitter))
            return job

        return self._database.write(work)

    def get(self, job_id: str, tenant: Tenant) -> Job:
        statement = _scoped(site=tenant.site is not None, submitter=tenant.submitter is not None)
        with self._database.reading() as tx:
            row = tx.execute(
                statement, {"id": job_id, "site": tenant.site, "submitter": tenant.submitter}
            ).first()
        if row is None:
            raise NotFound("job.not_found", job=job_id)
        return _job(row)

    def save(self, job: Job, *, expected_version: int, passed: Sequence[Job] = ()) -> bool:
        key = {"id": job.id, "expected": expected_version}

        def work(tx: sa.Connection) -> bool:
            before = tx.execute(_LOCKED_STATE, key).scalar()
            if before is None:
                return False
            self._write(tx, before, (*passed, job))
            return True

        return self._database.write(work)

    def offer_next(
        self,
        site: str,
        instance: str,
        *,
        now: datetime,
        until: datetime,
        submitter: str | None = None,
    ) -> Job | None:
        queue: dict[str, Any] = {"site": site, "now": now}
        there, oldest = _ANY_QUEUED, _OLDEST_QUEUED
        if submitter is not None:
            queue["submitter"] = submitter
            there, oldest = there.where(_OWN), oldest.where(_OWN)
        with self._database.reading() as tx:
            if tx.execute(there, queue).first() is None:
                return None

        def work(tx: sa.Connection) -> Job | None:
            row = tx.execute(oldest, queue).first()
            if row is None:
                return None
            offered = apply(_job(row), Offered(at=now, instance=instance, until=until))
            self._write(tx, JobState.QUEUED, (offered,))
            return offered

        return self._database.write(work)

    def page(self, which: JobFilter, *, after: str | None, limit: int) -> list[Job]:
        given = {
            "site": which.site,
            "submitter": which.submitter,
            "states": None if which.states is None else sorted(which.states),
            "ids": None if which.ids is None else sorted(which.ids),
            "after": after,
        }
        values = {name: value for name, value in given.items() if value is not None}
        live = which.states is not None and which.states <= TRANSITIONS.keys()
        statement = _paged(frozenset(values), live=live, cancelling=which.cancelling)
        return read_jobs(self._database, statement, {**values, "limit": limit})

    def due(self, now: datetime, *, limit: int) -> list[Job]:
        times = {"now": now, "draft_before": now - DRAFT_TIME, "limit": limit}
        return read_jobs(self._database, _DUE, times)

    def _write(self, tx: sa.Connection, before: JobState, course: Sequence[Job]) -> None:
        job = course[-1]
        tx.execute(_CHANGE, {"job": job.id, **{name: getattr(job, name) for name in _CHANGING}})
        if before is JobState.DRAFT and job.state is JobState.DRAFT:  # it has its request now
            tx.execute(_REQUEST, {"job": job.id, "request": job.request})
        if job.result is not None:
            tx.execute(_RESULT, {"job": job.id, "result": job.result})
        states = (before, *(one.state for one in course))
        news = [one for one, last in zip(course, states, strict=False) if one.state is not last]
        if not news:
            return
        _remember(tx, news)
        if job.state.terminal:
            tx.execute(self._hold, _held(job, live_jobs=-1))


def read_jobs(
    database: Database, statement: sa.Select[Any], values: dict[str, Any] | None = None
) -> list[Job]:
    """Return the jobs that ``statement``, made of `WHOLE_JOBS`, finds."""
    with database.reading() as tx:
        rows = tx.execute(statement, values).all()
    return [_job(row) for row in rows]


def _values(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in _NAMES}


def _job(row: AnyRow) -> Job:
    return Job(**row._asdict())


def _held(job: Job, *, live_jobs: int) -> dict[str, Any]:
    return {
        "site": job.site,
        "submitter": job.submitter,
        "live_jobs": int(live_jobs),
        "stored_bytes": 0,
    }


def _remember(tx: sa.Connection, states: Sequence[Job]) -> None:
    tx.execute(_HISTORY, [_row(job) for job in states])


def _row(job: Job) -> dict[str, Any]:
    at = job.changed_at or job.created_at
    return {"job_id": job.id, "version": job.version, "at": at, "state": job.state}


def _same_submission(kept: Job, job: Job) -> Job:
    if not kept.resembles(job):
        raise Conflict("job.different_request", job=job.id)
    return kept


#: What a page may be bounded by.
_BOUNDS: Final = {
    "site": jobs.c.site == sa.bindparam("site"),
    "submitter": _OWN,
    "states": jobs.c.state.in_(sa.bindparam("states", expanding=True)),
    "ids": jobs.c.id.in_(sa.bindparam("ids", expanding=True)),
    "after": jobs.c.id < sa.bindparam("after"),
}


@lru_cache
def _paged(bounds: frozenset[str], *, live: bool, cancelling: bool) -> sa.Select[Any]:
    statement = WHOLE_JOBS.where(*(_BOUNDS[name] for name in sorted(bounds)))
    if live:
        statement = statement.where(LIVE)  # redundant, but names the small index
    if cancelling:
        statement = statement.where(jobs.c.cancel_requested)
    return statement.order_by(jobs.c.id.desc()).limit(_LIMIT)


@lru_cache
def _scoped(*, site: bool, submitter: bool) -> sa.Select[Any]:
    statement = _BY_ID
    if site:
        statement = statement.where(jobs.c.site == sa.bindparam("site"))
    if submitter:
        statement = statement.where(jobs.c.submitter == sa.bindparam("submitter"))
    return statement
