"""The parts of a site, put together."""

from __future__ import annotations

import os
import random
import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from sekisho.adapters.chunk_cache import ChunkCache
from sekisho.adapters.clock_system import SystemClock
from sekisho.adapters.credentials_directory import DirectoryCredentials
from sekisho.adapters.desires_directory import DirectoryDesires
from sekisho.adapters.hosts.spawn_local import LocalSpawner
from sekisho.adapters.http_client import Address, sender
from sekisho.adapters.http_line import HttpLine, message
from sekisho.adapters.journal_directory import DirectoryJournal
from sekisho.adapters.lease import heed
from sekisho.adapters.mailbox_https import HttpsMailbox
from sekisho.adapters.mailbox_mint import POLL_SECONDS, MintMailbox, MintPlace
from sekisho.adapters.mailbox_noted import NotedMailbox, write_note
from sekisho.adapters.mint_line import MintLine
from sekisho.adapters.mint_shelf import MintShelf
from sekisho.adapters.patience import Patience
from sekisho.adapters.sandboxes.landlock import LandlockSandbox
from sekisho.adapters.slots_directory import DirectorySlots
from sekisho.adapters.stock_directory import DirectoryStock
from sekisho.adapters.token_file import read_token
from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.compose.hosts import Hosts
from sekisho.compose.schedulers import schedulers
from sekisho.config.manifest import load_manifest
from sekisho.config.site import SiteFiles
from sekisho.domain.errors import ConfigError, Unauthenticated
from sekisho.domain.ids import INSTANCE_PATTERN
from sekisho.domain.manifest import Manifest
from sekisho.domain.token import Secret, hash_token
from sekisho.site.agent import Agent
from sekisho.site.desk import Desk
from sekisho.wire.v1 import Joined, JoinSite

#: How long `join` repeats its one question: the answer may be lost, the invitation is not.
JOIN_SECONDS: Final = 15.0
_DICE: Final = random.SystemRandom()


def address(files: SiteFiles) -> Address:
    """Return where the site's broker is, with the site's own credential."""
    broker = files.settings.broker
    if not files.token.exists():
        raise ConfigError("site.not_joined", file=str(files.token))
    token = read_token(files.token)
    return Address(
        url=broker.url,
        token=token,
        token_again=lambda: read_token(files.token),
        ca_file=files.ca,
        proxy=broker.proxy,
        max_mbit_s=broker.max_mbit_s,
    )


def instance(files: SiteFiles) -> str:
    """Return the name of this very agent, made when the site joined."""
    try:
        name = files.instance.read_text("ascii", "replace").strip()
    except FileNotFoundError as error:
        raise ConfigError("site.not_joined", file=str(files.instance)) from error
    if re.fullmatch(INSTANCE_PATTERN, name) is None:
        raise ConfigError("site.instance", file=str(files.instance))
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class MintWay:
    """That the broker is an old one, at ``url``. All of its jobs come in ``submitter``'s name."""

    url: str
    submitter: str | None = None  #: None: the only one that the manifest lists
    token: Secret | None = None  #: None: what is in ``token_file``
    token_file: Path | None = None  #: None: the site's own; read anew when the broker refuses it
    interval_s: float = POLL_SECONDS
    heard: Callable[[str], None] = lambda _: None  #: told of each call
    site: str | None = None  #: what the old broker calls this site, if that is another name


def _mailbox(
    files: SiteFiles,
    manifest: Manifest,
    way: MintWay | None,
    shelter: LocalWorkplace,
    cache: ChunkCache,
) -> HttpsMailbox | MintMailbox:
    if way is None:
        return HttpsMailbox(address(files), instance(files), cache=cache, shelter=shelter)
    listed = sorted(manifest.submitters.users)
    if way.submitter is None and len(listed) != 1:
        raise ConfigError("mint.submitter", count=len(listed))
    place = MintPlace(
        site=way.site or manifest.site,
        submitter=way.submitter or listed[0],
        interval_s=way.interval_s,
    )
    line = MintLine(_mint_address(files, way), way.heard)
    return MintMailbox(line, place, MintShelf(files.state / "mint"), SystemClock())


def _mint_address(files: SiteFiles, way: MintWay) -> Address:
    read = partial(read_token, way.token_file or files.token, foreign=True)
    return Address(
        url=way.url,
        token=way.token or read(),
        token_again=None if way.token else read,
        ca_file=files.ca,
        proxy=files.settings.broker.proxy,
    )


@asynccontextmanager
async def agent(
    files: SiteFiles,
    *,
    alive: Callable[[], None] = lambda: None,
    mint: MintWay | None = None,
) -> AsyncIterator[Agent]:
    """Give the one agent of this site; raise Conflict(`agent.running`) when there is another."""
    manifest = load_manifest(files.manifest)
    journal = DirectoryJournal(files.state)
    journal.lock()
    slots = DirectorySlots(files.slots)
    try:
        desires = DirectoryDesires(files, manifest)
        spawner = LocalSpawner()
        local = LocalWorkplace(files.work_base)
        hosts = Hosts(files, local)
        kept = files.settings.site.cache_bytes
        cache = ChunkCache(files.cache, kept)
        async with _mailbox(files, manifest, mint, local, cache) as line:
            clock = SystemClock()
            stock = DirectoryStock(files.work_base, kept, grown=cache.leave)
            heed(stock.give_way)
            desk = Desk(
                mailbox=NotedMailbox(
                    line, clock, os.getpid(), lambda note: write_note(files.line, note)
                ),
                journal=journal,
                early=line.early if isinstance(line, HttpsMailbox) else None,
                scheduler=schedulers(spawner, lambda: desires.word().manifest, hosts.host),
                hosts=hosts.host,
                workplaces=hosts.workplace,
                sandbox=LandlockSandbox(),
                slots=slots,
                stock=stock,
                clock=clock,
                word=desires.word,
                roll=_DICE.random,
                token=lambda: secrets.token_hex(16),
            )
            try:
                yield Agent(desk, desires, capacity=desires.capacity, alive=alive)
            finally:
                stock.close()
                await spawner.aclose()
    finally:
        slots.close()
        journal.unlock()


def join(files: SiteFiles, invitation: Secret) -> Joined:
    """Use ``invitation`` up: from now on the site's own token, in its own file, is its credential.

    Repeated with the same invitation it is answered the same.
    """
    credentials = DirectoryCredentials(files)
    asking = JoinSite(
        instance=credentials.instance(),
        token_hash=hash_token(credentials.begin(invitation).reveal()),
    )
    broker = files.settings.broker
    where = Address(url=broker.url, token=invitation, ca_file=files.ca, proxy=broker.proxy)
    patience = Patience(limit_s=JOIN_SECONDS)
    with closing(HttpLine(sender(where), patience)) as line:
        try:
            joined = line.ask(message("POST", "v1/site/join", asking), Joined)
        except Unauthenticated as error:
            credentials.give_up(invitation)
            raise Unauthenticated("site.invitation_refused") from error
    credentials.finish(invitation)
    return joined
