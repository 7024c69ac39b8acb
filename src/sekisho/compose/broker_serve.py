"""A broker that serves: its parts, its loops, and how it ends."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import anyio
import structlog
from anyio import to_thread
from starlette.applications import Starlette

from sekisho.adapters import migrations
from sekisho.adapters.directory_deferred import DeferredDirectory
from sekisho.adapters.heap import share_heap
from sekisho.adapters.http_server import Listening, TlsFiles, serve
from sekisho.adapters.logging_setup import set_up_logging
from sekisho.adapters.mint_uses_deferred import DeferredMintUses
from sekisho.adapters.notify_systemd import ServiceManager
from sekisho.adapters.sql.engine import Database
from sekisho.adapters.store_sql import open_store
from sekisho.broker.desk import Desk
from sekisho.broker.reaper import PASS_SECONDS, Reaper
from sekisho.compose.broker import alone, database, desk_of, policy
from sekisho.config.broker import BrokerFiles, load_broker
from sekisho.domain.errors import SekishoError, StorageFull, SyncFailed
from sekisho.http.app import Face, Lifespan, application
from sekisho.http.longpoll import LongPoll

#: How often the service manager hears that the loop turns; the unit waits much longer.
_ALIVE_SECONDS: Final = 5.0
#: How often it is written down which agents have polled.
_SEEN_SECONDS: Final = 5.0

log = structlog.get_logger()


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
    with alone(files), database(files) as opened, opened.alone():
        store = open_store(opened)
        directory, mint = DeferredDirectory(store.directory), DeferredMintUses(store.mint)
        made = desk_of(files, replace(store, directory=directory, mint=mint))
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
