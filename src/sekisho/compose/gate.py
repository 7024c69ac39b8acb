"""A gate and its carrier, put together.

<state>/push/jobs, lock     what gates keep of pushed jobs
<state>/push/chunks         chunks that submitters brought
<state>/push/carrier/       the carrier's journal
<state>/push/carrier.lock   held by the carrier while there is one
<state>/push/*.log          what gate and carrier say, for the site's people alone
"""

from __future__ import annotations

import os
import random
import secrets
import select
import signal
from pathlib import Path
from typing import IO, Final

import anyio

from sekisho import __version__
from sekisho.adapters.blobs_directory import BlobDirectory
from sekisho.adapters.clock_system import SystemClock
from sekisho.adapters.gate_stdio import GateStdio
from sekisho.adapters.hosts.carrier import WAKE, ForkedCarrier
from sekisho.adapters.journal_directory import DirectoryJournal
from sekisho.adapters.push_directory import DirectoryPushStore
from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.config.manifest import load_manifest
from sekisho.config.site import SiteFiles
from sekisho.site.gate import Gate
from sekisho.wire.stdio import Packets

LINGER_SECONDS: Final = 20.0


class PushFiles:
    """Where a site keeps what was pushed."""

    def __init__(self, files: SiteFiles) -> None:
        self.site = files
        self.folder = files.state / "push"
        for folder in (files.state, self.folder, self.chunks, self.runs, files.state / "log"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def chunks(self) -> Path:
        return self.folder / "chunks"

    @property
    def runs(self) -> Path:
        return self.folder / "carrier"

    def journal(self) -> DirectoryJournal:
        return DirectoryJournal(self.runs, log=self.site.state / "log")


def gate(
    files: SiteFiles, submitter: str, incoming: IO[bytes], outgoing: IO[bytes]
) -> tuple[Gate, GateStdio]:
    """Return the gate for ``submitter``, and its conversation over two streams."""
    push = PushFiles(files)
    clock = SystemClock()
    manifest = load_manifest(files.manifest)
    the_gate = Gate(
        site=manifest.site,
        submitter=submitter,
        version=__version__,
        store=DirectoryPushStore(push.folder),
        runs=push.journal(),
        chunks=BlobDirectory(push.chunks),
        carrier=ForkedCarrier(
            push.folder / "carrier.lock",
            push.folder / "carrier.log",
            lambda _: _carry(push),
        ),
        workplace=LocalWorkplace(files.work_base),
        clock=clock,
        pause=lambda seconds: bool(select.select([incoming], [], [], seconds)[0]),
    )
    return the_gate, GateStdio(the_gate, Packets(incoming, outgoing))


def _carry(push: PushFiles) -> None:
    """Be the carrier: run the same agent as in pull mode, over the jobs that gates keep."""
    anyio.run(_serve, push)


async def _serve(push: PushFiles) -> None:
    from sekisho.adapters.desires_directory import DirectoryDesires  # noqa: PLC0415 (a gate that
    from sekisho.adapters.hosts.spawn_local import LocalSpawner  # noqa: PLC0415  only answers
    from sekisho.adapters.mailbox_gate import GateMailbox  # noqa: PLC0415  needs none of these)
    from sekisho.adapters.schedulers.local import LocalScheduler  # noqa: PLC0415
    from sekisho.site.agent import Agent  # noqa: PLC0415
    from sekisho.site.desk import Desk  # noqa: PLC0415

    store = DirectoryPushStore(push.folder)
    journal = push.journal()
    journal.lock()
    mailbox = GateMailbox(store, journal, BlobDirectory(push.chunks))
    desires = DirectoryDesires(push.site, load_manifest(push.site.manifest))
    desk = Desk(
        mailbox=mailbox,
        journal=journal,
        scheduler=LocalScheduler(LocalSpawner()),
        workplace=LocalWorkplace(push.site.work_base),
        clock=SystemClock(),
        word=desires.word,
        roll=random.SystemRandom().random,
        token=lambda: secrets.token_hex(16),
    )
    agent = Agent(desk, desires, capacity=desires.capacity, alive=lambda: None, tidy=False)

    async def leave_when_idle() -> None:
        while True:
            await anyio.sleep(LINGER_SECONDS)
            with store.locked():  # whoever adds a job now finds our lock free afterwards
                if not mailbox.open():
                    os._exit(0)

    async def heed_wakes() -> None:
        with anyio.open_signal_receiver(WAKE) as signals:
            mailbox.wake()
            async for _ in signals:
                mailbox.wake()

    async with anyio.create_task_group() as group:
        group.start_soon(heed_wakes)
        group.start_soon(leave_when_idle)
        await agent.serve()


def ignore_terminal_signals() -> None:
    """Let a cut connection end the conversation by its streams, not by a signal."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
