"""The parts of a broker, put together: for serving, and for the operator's commands beside it."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import anyio
import structlog
from anyio import to_thread
from starlette.applications import Starlette

from sekisho.adapters import migrations
from sekisho.adapters.blobs_directory import BlobDirectory
from sekisho.adapters.clock_system import SystemClock
from sekisho.adapters.directory_deferred import DeferredDirectory
from sekisho.adapters.heap import share_heap
from sekisho.adapters.http_server import Listening, TlsFiles, serve
from sekisho.adapters.logging_setup import set_up_logging
from sekisho.adapters.mint_uses_deferred import DeferredMintUses
from sekisho.adapters.notify_systemd import ServiceManager
from sekisho.adapters.sql.engine import Database
from sekisho.adapters.store_sql import open_store, sqlite_url
from sekisho.adapters.wakeups_memory import MemoryWakeups
from sekisho.broker.backup import Copied, copy_chunks, verify
from sekisho.broker.desk import Desk, Ports
from sekisho.broker.policy import CurrentPolicy, Gateway, MintPolicy, MintSite, Policy, Quota
from sekisho.broker.ports import Store
from sekisho.broker.reaper import PASS_SECONDS, Reaper
from sekisho.config.broker import (
    BrokerFiles,
    BrokerSettings,
    GatewaySettings,
    MintSettings,
    load_broker,
    networks,
)
from sekisho.domain.errors import Conflict, NotFound, SekishoError, StorageFull, SyncFailed
from sekisho.http.app import Face, Lifespan, application
from sekisho.http.longpoll import LongPoll

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
    opened = Database(files.database_url or sqlite_url(files.data / DATABASE_FILE))
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def desk(files: BrokerFiles) -> Iterator[Desk]:
    """Give the services over the broker's data; another process may be serving it."""
    with database(files) as opened:
        yield _desk(files, open_store(opened))


def _desk(files: BrokerFiles, store: Store) -> Desk:
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


# --- serving -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Running:
    """A broker that serves: what a reload changes, and what its loops need."""

    files: BrokerFiles
    desk: Desk
    polls: LongPoll
    tls: TlsFiles | None

    def reload(self) -> None:
        """Read the settings again; raise ConfigError and keep the old ones when they are wrong."""
        settings = load_broker(self.files.config).settings
        before = self.files.settings
        if self.tls is not None:
            self.tls.read()
        self.desk.policy.value = policy(settings)
        set_up_logging(settings.log.level)
        if (settings.http, settings.store) != (before.http, before.store):
            log.warning("restart_needed", sections=["http", "store"])
        log.info("settings_reread")

    def hang_up(self) -> None:
        """Reload on SIGHUP: a fault is logged, since nobody waits for the answer."""
        try:
            self.reload()
        except SekishoError as error:
            log.error("reload_failed", code=error.code, params=error.params)  # noqa: TRY400


def run(config: Path) -> None:
    """Serve until a signal says stop; raise Conflict when another broker has the data."""
    files = load_broker(config)
    set_up_logging(files.settings.log.level)
    share_heap()
    http = files.settings.http
    manager = ServiceManager()
    tls = TlsFiles(files.tls_cert, files.tls_key) if files.tls_cert and files.tls_key else None
    with alone(files), database(files) as opened:
        store = open_store(opened)
        directory, mint = DeferredDirectory(store.directory), DeferredMintUses(store.mint)
        made = _desk(files, replace(store, directory=directory, mint=mint))
        polls = LongPoll(made.ports.wakeups, made.ports.clock)
        running = Running(files, made, polls, tls)
        face = Face(
            reload=running.reload, fatal=_die, checks=_checks(made, opened), prefix=http.prefix
        )
        serve(
            application(made, polls, face, _lifespan(made.reaper, (directory, mint), manager)),
            Listening(
                host=http.host,
                port=http.port,
                tls=tls,
                trusted_proxies=tuple(http.trusted_proxies),
                on_ready=lambda host, port: _ready(manager, host, port),
                on_stopping=lambda: _stopping(manager, polls),
                on_reload=running.hang_up,
            ),
        )


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


def _checks(made: Desk, opened: Database) -> dict[str, Callable[[], None]]:
    def writable() -> None:
        with opened.writing():
            pass

    def disk() -> None:
        if made.ports.blobs.free_bytes() <= made.policy.value.free_floor_bytes:
            raise StorageFull

    return {"database": writable, "migrations": lambda: migrations.check(opened), "disk": disk}


Deferred = tuple[DeferredDirectory, DeferredMintUses]


def _lifespan(reaper: Reaper, deferred: Deferred, manager: ServiceManager) -> Lifespan:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_reap, reaper)
            tasks.start_soon(_write_down, deferred)
            tasks.start_soon(_say_alive, manager)
            yield
            tasks.cancel_scope.cancel()
        await to_thread.run_sync(_flush, deferred)

    return lifespan


async def _reap(reaper: Reaper) -> None:
    while True:
        try:
            await to_thread.run_sync(reaper.tick)
        except SyncFailed as error:
            _die(error)
        await anyio.sleep(PASS_SECONDS)


async def _write_down(deferred: Deferred) -> None:
    while True:
        await anyio.sleep(_SEEN_SECONDS)
        await to_thread.run_sync(_flush, deferred)


def _flush(deferred: Deferred) -> None:
    try:
        for one in deferred:
            one.flush()
    except SyncFailed as error:
        _die(error)
    except SekishoError as error:  # nothing is lost: they are written with the next ones
        log.warning("sightings_not_written", code=error.code)


async def _say_alive(manager: ServiceManager) -> None:
    while True:
        manager.alive()
        await anyio.sleep(_ALIVE_SECONDS)


def _ready(manager: ServiceManager, host: str, port: int) -> None:
    log.info("broker_ready", host=host, port=port)
    manager.ready(f"{host}:{port}")


def _stopping(manager: ServiceManager, polls: LongPoll) -> None:
    manager.stopping()
    log.info("broker_stopping")
    polls.drain()


def _die(error: SyncFailed) -> None:
    """End at once: after a failed sync nothing that we say can be trusted."""
    log.critical("sync_failed", code=error.code)
    os._exit(error.exit_status)
