"""The parts of a site, put together."""

from __future__ import annotations

import random
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from sekisho.adapters.clock_system import SystemClock
from sekisho.adapters.desires_directory import DirectoryDesires
from sekisho.adapters.hosts.spawn_local import LocalSpawner
from sekisho.adapters.http_client import Address
from sekisho.adapters.journal_directory import DirectoryJournal
from sekisho.adapters.mailbox_https import HttpsMailbox
from sekisho.adapters.schedulers.local import LocalScheduler
from sekisho.adapters.token_file import read_token
from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.config.manifest import load_manifest
from sekisho.config.site import SiteFiles
from sekisho.domain.errors import ConfigError
from sekisho.site.agent import Agent
from sekisho.site.desk import Desk

_DICE: Final = random.SystemRandom()


def address(files: SiteFiles) -> Address:
    """Return where the site's broker is, with the site's own credential."""
    broker = files.settings.broker
    token = read_token(files.token)
    return Address(url=broker.url, token=token, ca_file=files.ca, proxy=broker.proxy)


def instance(files: SiteFiles) -> str:
    """Return the name of this very agent, made when the site joined."""
    try:
        return files.instance.read_text("ascii").strip()
    except FileNotFoundError as error:
        raise ConfigError("site.not_joined", file=str(files.instance)) from error


@asynccontextmanager
async def agent(
    files: SiteFiles, *, alive: Callable[[], None] = lambda: None
) -> AsyncIterator[Agent]:
    """Give the one agent of this site; raise Conflict(`agent.running`) when there is another."""
    manifest = load_manifest(files.manifest)
    journal = DirectoryJournal(files.state)
    journal.lock()
    try:
        desires = DirectoryDesires(files, manifest)
        spawner = LocalSpawner()
        async with HttpsMailbox(address(files), instance(files)) as mailbox:
            desk = Desk(
                mailbox=mailbox,
                journal=journal,
                scheduler=LocalScheduler(spawner),
                workplace=LocalWorkplace(files.work_base),
                clock=SystemClock(),
                word=desires.word,
                roll=_DICE.random,
                token=lambda: secrets.token_hex(16),
            )
            try:
                yield Agent(desk, desires, capacity=desires.capacity, alive=alive)
            finally:
                await spawner.aclose()
    finally:
        journal.unlock()
