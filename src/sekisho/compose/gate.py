"""A gate and its carrier, put together.

<state>/push/jobs, lock     what gates keep of pushed jobs
<state>/push/chunks         chunks that submitters brought
<state>/push/carrier/       the carrier's journal
<state>/push/carrier.lock   held by the carrier while there is one (`adapters.hosts.carrier`)
<state>/push/*.log          what gate and carrier say, for the site's people alone
<work base>/push/           work directories of pushed jobs: whoever brings a job names it, and must
                            not be able to name one that came from the broker
"""

from __future__ import annotations

import os
import random
import secrets
import select
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import anyio

from sekisho import __version__
from sekisho.adapters.clock_system import SystemClock
from sekisho.adapters.gate_stdio import GateStdio
from sekisho.adapters.hosts.carrier import ForkedCarrier, leave, opened_wake
from sekisho.adapters.journal_directory import DirectoryJournal
from sekisho.adapters.push_directory import DirectoryPushStore
from sekisho.adapters.shelf_directory import DirectoryShelf
from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.config.manifest import load_manifest
from sekisho.config.site import SiteFiles
from sekisho.domain.errors import Conflict
from sekisho.domain.resources import LOCAL
from sekisho.site.gate import Gate
from sekisho.site.workplace import Workplace
from sekisho.wire.stdio import Packets

if TYPE_CHECKING:
    from sekisho.compose.hosts import Hosts

#: How long a carrier stays for another job after its last one, and how often it looks meanwhile.
LINGER_SECONDS: Final = 20.0
_LOOKS: Final = 10


class PushFiles:
    """Where a site keeps what was pushed."""

    def __init__(self, files: SiteFiles) -> None:
        self.site = files
        self.folder = files.state / "push"
        made = (self.folder, self.chunks, self.runs, files.state / "log", files.work_base)
        for folder in (files.state, *made):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def chunks(self) -> Path:
        return self.folder / "chunks"

    @property
    def runs(self) -> Path:
        return self.folder / "carrier"

    @property
    def work_base(self) -> Path:
        return self.site.work_base / "push"

    def workplace(self) -> LocalWorkplace:
        return LocalWorkplace(self.work_base)

    def workplaces(self) -> Callable[[str], Workplace]:
        """Return what finds a host's work directories; ssh is there when a host is asked for."""
        local = self.workplace()

        @cache
        def far() -> Hosts:
            from sekisho.compose.hosts import Hosts  # noqa: PLC0415 (a gate rarely needs it)

            return Hosts(self.site, local)

        return lambda host: local if host == LOCAL else far().workplace(host)

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
        chunks=DirectoryShelf(push.chunks),
        carrier=ForkedCarrier(push.folder, lambda lock: anyio.run(_serve, push, lock)),
        workplaces=push.workplaces(),
        clock=clock,
        pause=lambda seconds: bool(select.select([incoming], [], [], seconds)[0]),
    )
    return the_gate, GateStdio(the_gate, Packets(incoming, outgoing))


async def _serve(push: PushFiles, lock: int) -> None:
    """Be the carrier: run the same agent as in pull mode, over the jobs that gates keep."""
    from sekisho.adapters.desires_directory import DirectoryDesires  # noqa: PLC0415 (a gate that
    from sekisho.adapters.hosts.spawn_local import LocalSpawner  # noqa: PLC0415  only answers
    from sekisho.adapters.lease import heed  # noqa: PLC0415
    from sekisho.adapters.mailbox_gate import GateMailbox  # noqa: PLC0415  needs none of these)
    from sekisho.adapters.sandboxes.landlock import LandlockSandbox  # noqa: PLC0415
    from sekisho.adapters.slots_directory import DirectorySlots  # noqa: PLC0415
    from sekisho.adapters.stock_directory import DirectoryStock  # noqa: PLC0415
    from sekisho.compose.hosts import Hosts  # noqa: PLC0415
    from sekisho.compose.schedulers import schedulers  # noqa: PLC0415
    from sekisho.site.agent import Agent  # noqa: PLC0415
    from sekisho.site.desk import Desk  # noqa: PLC0415

    store = DirectoryPushStore(push.folder)
    journal = push.journal()
    await _lock(journal)
    mailbox = GateMailbox(store, journal, DirectoryShelf(push.chunks), SystemClock())
    desires = DirectoryDesires(push.site, load_manifest(push.site.manifest))
    hosts = Hosts(push.site, push.workplace())
    stock = DirectoryStock(push.work_base, push.site.settings.site.cache_bytes)
    heed(stock.give_way)
    desk = Desk(
        mailbox=mailbox,
        journal=journal,
        scheduler=schedulers(LocalSpawner(), lambda: desires.word().manifest, hosts.host),
        hosts=hosts.host,
        workplaces=hosts.workplace,
        sandbox=LandlockSandbox(),
        slots=DirectorySlots(push.site.slots),
        stock=stock,
        clock=SystemClock(),
        word=desires.word,
        roll=random.SystemRandom().random,
        token=lambda: secrets.token_hex(16),
    )
    agent = Agent(desk, desires, capacity=desires.capacity, alive=lambda: None, tidy=False)

    async def leave_when_idle() -> None:
        quiet = 0
        while True:
            await anyio.sleep(LINGER_SECONDS / _LOOKS)
            with store.locked():  # whoever adds a job now finds our lock free afterwards
                quiet = 0 if mailbox.open() else quiet + 1
                if quiet == _LOOKS:
                    leave(lock)

    async def heed_wakes() -> None:
        pipe = opened_wake(push.folder)
        while True:
            mailbox.wake()  # also at first: whoever came before the pipe was open is seen
            await anyio.wait_readable(pipe)
            os.read(pipe, 4096)

    async with anyio.create_task_group() as group:
        group.start_soon(heed_wakes)
        group.start_soon(leave_when_idle)
        await agent.serve()


async def _lock(journal: DirectoryJournal) -> None:
    """Become the journal's writer. The carrier before us may not have let go of everything yet."""
    for _ in range(100):
        try:
            journal.lock()
        except Conflict:
            await anyio.sleep(0.05)
        else:
            return
    journal.lock()


def ignore_terminal_signals() -> None:
    """Let a cut connection end the conversation by its streams, not by a signal."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would hide how a child ended
