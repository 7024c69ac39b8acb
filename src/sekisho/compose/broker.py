"""The parts of a broker, put together: for serving, and for the operator's commands beside it.

How it is served is in `broker_serve`.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog

from sekisho.adapters import migrations
from sekisho.adapters.blobs_directory import BlobDirectory
from sekisho.adapters.clock_system import SystemClock
from sekisho.adapters.sql.engine import Database
from sekisho.adapters.store_sql import open_store, sqlite_url
from sekisho.adapters.wakeups_memory import MemoryWakeups
from sekisho.broker.backup import Copied, copy_chunks, verify
from sekisho.broker.desk import Desk, Ports
from sekisho.broker.policy import CurrentPolicy, Gateway, MintPolicy, MintSite, Policy, Quota
from sekisho.broker.ports import Store
from sekisho.config.broker import (
    BrokerFiles,
    BrokerSettings,
    GatewaySettings,
    MintSettings,
    networks,
)
from sekisho.domain.errors import Conflict, NotFound

DATABASE_FILE: Final = "broker.sqlite3"
CHUNK_DIR: Final = "chunks"
#: How often the service manager hears that the loop turns; the unit waits much longer.
_ALIVE_SECONDS: Final = 5.0
#: How often it is written down which agents have polled.
_SEEN_SECONDS: Final = 5.0

log = structlog.get_logger()


def policy(settings: BrokerSettings) -> Policy:
    """Return what the settings say that may change while the broker runs."""
    quota, retention = settings.quota, settings.retention
    return Policy(
        site=Quota(live_jobs=quota.site_jobs, stored_bytes=quota.site_bytes),
        submitter=Quota(live_jobs=quota.user_jobs, stored_bytes=quota.user_bytes),
        job_bytes=quota.job_bytes,
        free_floor_bytes=quota.free_floor_bytes,
        queue_time=timedelta(days=quota.max_queue_days),
        keep_received=timedelta(days=retention.received_days),
        keep_unreceived=timedelta(days=retention.unreceived_days),
        unreachable_after=timedelta(minutes=retention.unreachable_minutes),
        mint=mint_policy(settings.mint),
        gateway=gateway_policy(settings.gateway),
    )


def gateway_policy(settings: GatewaySettings) -> Gateway | None:
    """Return whose word on the user counts."""
    if settings.user_header is None:
        return None
    return Gateway(user_header=settings.user_header, addresses=networks(settings))


def mint_policy(settings: MintSettings) -> MintPolicy:
    """Return what the settings say of the old MInt paths."""
    return MintPolicy(
        enabled=settings.enabled,
        sites={
            name: MintSite(commands=site.commands, unguarded=site.unguarded, known_as=site.known_as)
            for name, site in settings.site.items()
        },
        queue_time=timedelta(minutes=settings.queue_minutes),
        max_body_bytes=settings.max_body_bytes,
    )


@contextmanager
def database(files: BrokerFiles) -> Iterator[Database]:
    """Give the broker's database, whatever its version."""
    url = files.database_url
    opened = Database(sqlite_url(files.data / DATABASE_FILE) if url is None else url)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def desk(files: BrokerFiles) -> Iterator[Desk]:
    """Give the services over the broker's data; another process may be serving it."""
    with database(files) as opened:
        yield desk_of(files, open_store(opened))


def desk_of(files: BrokerFiles, store: Store) -> Desk:
    ports = Ports(
        store=store,
        blobs=BlobDirectory(files.data / CHUNK_DIR),
        wakeups=MemoryWakeups(),
        clock=SystemClock(),
    )
    return Desk(
        ports,
        CurrentPolicy(policy(files.settings)),
        spool=lambda: tempfile.TemporaryFile(dir=files.data),
    )


def prepare(files: BrokerFiles) -> None:
    """Make what the broker keeps things in, and bring its database to this program's version."""
    for place in (files.data, files.data / CHUNK_DIR):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with database(files) as opened:
        migrations.upgrade(opened)


def back_up(files: BrokerFiles, target: Path) -> Copied:
    """Copy all that the broker keeps into the new directory ``target``; verify the copy."""
    try:
        target.mkdir(mode=0o700)
    except OSError as error:
        raise Conflict("backup.target", directory=str(target), why=error.strerror) from error
    (target / CHUNK_DIR).mkdir(mode=0o700)
    with desk(files) as source, database(files) as opened:
        opened.copy_to(target / DATABASE_FILE)
        blobs = BlobDirectory(target / CHUNK_DIR)
        now = source.ports.clock.now()
        number, size = copy_chunks(source.ports.blobs, blobs, now)
    copy = Database(sqlite_url(target / DATABASE_FILE))
    try:
        return Copied(jobs=verify(open_store(copy), blobs), chunks=number, chunk_bytes=size)
    finally:
        copy.close()


@contextmanager
def alone(files: BrokerFiles) -> Iterator[None]:
    """Be the only broker that serves this data; others see our process id meanwhile."""
    descriptor = os.open(files.pid, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Conflict("broker.running", directory=str(files.data)) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def serving_pid(files: BrokerFiles) -> int:
    """Return the process that serves this data; raise NotFound(`broker.not_running`)."""
    try:
        descriptor = os.open(files.pid, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound("broker.not_running", directory=str(files.data)) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return int(os.pread(descriptor, 20, 0))
    finally:
        os.close(descriptor)
    raise NotFound("broker.not_running", directory=str(files.data))
