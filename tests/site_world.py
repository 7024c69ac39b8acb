"""One site and its broker in one process: what survives an agent, and wrappers that watch ports."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import anyio

from sekisho.adapters.blobs_memory import MemoryBlobs
from sekisho.adapters.journal_memory import MemoryJournal
from sekisho.adapters.mailbox_memory import BrokerChunks, MemoryMailbox
from sekisho.adapters.sandbox_memory import MemorySandbox
from sekisho.adapters.scheduler_memory import MemoryScheduler, Play
from sekisho.adapters.slots_memory import MemorySlots
from sekisho.adapters.store_memory import memory_store
from sekisho.adapters.wakeups_memory import MemoryWakeups
from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.broker import desk as broker_desk
from sekisho.broker.chunks import Claim
from sekisho.broker.ports import EVERYONE, Tenant
from sekisho.domain.access import Submitters
from sekisho.domain.egress import LogRule, OutputRule
from sekisho.domain.errors import SekishoError, Unreachable
from sekisho.domain.files import Pattern, RelPath
from sekisho.domain.job import Job
from sekisho.domain.manifest import Command, InputRule, Manifest
from sekisho.domain.parameter import Integer
from sekisho.domain.run import Run
from sekisho.domain.sitelog import Kind, Record
from sekisho.site.agent import Agent
from sekisho.site.desk import Desk, Word, together
from sekisho.site.scheduler import LaunchSpec
from sekisho.site.slots import Slots
from sekisho.transfer.fetch import fetch_index
from sekisho.transfer.send import send_tree
from sekisho.transfer.tree import Tree, TreeFile
from sekisho.wire.envelope import Outcome, Request, open_outcome, seal
from sekisho.wire.frames import Chunk, digest_of
from sekisho.wire.v1 import SubmitJob
from tests.virtual_time import VirtualClock
from tests.world import a_site, an_id

SITE: Final = "one"
USER: Final = "alice"
INSTANCE: Final = "ins_" + "0" * 26
RESULT: Final = b"stress 42\n"
MINUTE: Final = 60.0
DAY: Final = 86_400.0


def a_command(name: str = "solve", **changes: Any) -> Command:
    """Return a command with a parameter, optional inputs, two output rules and a released log."""
    usual: dict[str, Any] = {
        "argv": (f"/opt/{name}", "{n}"),
        "parameters": {"n": Integer(minimum=1, maximum=10, default=3)},
        "inputs": (
            InputRule(path=Pattern("*.dat"), max_bytes=1000, max_files=100, required=False),
        ),
        "outputs": (
            OutputRule(path=Pattern("result.txt"), max_bytes=1000),
            OutputRule(path=Pattern("*.csv"), max_bytes=1000, max_files=3),
        ),
        "stdout": LogRule(release=True),
        "time_limit": timedelta(hours=1),
    }
    return Command(name=name, **(usual | changes))


def a_manifest(*commands: Command, **changes: Any) -> Manifest:
    usual: dict[str, Any] = {"site": SITE, "submitters": Submitters(frozenset({USER}))}
    table = {command.name: command for command in commands or (a_command(),)}
    return Manifest(commands=table, **(usual | changes))


def leaves(**files: bytes) -> Callable[[Path], None]:
    """Return what writes ``files`` (with ``_`` for a dot) into a work directory."""

    def write(work: Path) -> None:
        for name, data in files.items():
            (work / name.replace("_", ".")).write_bytes(data)

    return write


GOOD: Final = Play(seconds=10, leave=leaves(result_txt=RESULT), stdout="done\n")


class Crash(BaseException):
    """The agent's process ended here."""


@dataclass(slots=True)
class Effects:
    """Every call of a port, in its order; and what is to go wrong."""

    calls: list[str] = field(default_factory=list)
    crash_at: tuple[int, str] = (0, "before")  #: the number of a call, and "before" or "after"
    fault: Callable[[str], BaseException | None] = lambda _: None
    lost_reply: Callable[[str], BaseException | None] = lambda _: None
    dead: bool = False

    def before(self, label: str) -> int:
        self._alive()
        self.calls.append(label)
        number = len(self.calls)
        self._crash(number, "before")
        if (error := self.fault(label)) is not None:
            raise error
        return number

    def after(self, label: str, number: int) -> None:
        self._alive()
        self._crash(number, "after")
        if (error := self.lost_reply(label)) is not None:
            raise error

    def _crash(self, number: int, when: str) -> None:
        if self.crash_at == (number, when):
            self.dead = True
            raise Crash

    def _alive(self) -> None:
        if self.dead:
            raise Crash


class Watched:
    """A port whose calls are told to ``effects`` as ``name.method``."""

    def __init__(self, port: Any, name: str, effects: Effects) -> None:
        self._port = port
        self._name = name
        self._effects = effects

    def __getattr__(self, method: str) -> Any:
        real, label = getattr(self._port, method), f"{self._name}.{method}"
        if not callable(real):  # a property
            return real

        def call(*given: Any, **named: Any) -> Any:
            number = self._effects.before(label)
            answer = real(*given, **named)
            self._effects.after(label, number)
            return answer

        async def call_async(*given: Any, **named: Any) -> Any:
            number = self._effects.before(label)
            answer = await real(*given, **named)
            self._effects.after(label, number)
            return answer

        return call_async if inspect.iscoroutinefunction(real) else call


class Wishes:
    """Implements `site.agent.Desires`."""

    def __init__(self) -> None:
        self.is_paused = False
        self.denied: frozenset[str] = frozenset()

    def paused(self) -> bool:
        return self.is_paused

    def deny(self, commands: frozenset[str]) -> None:
        self.denied = commands


class World:
    """All that outlives an agent: broker, journal, machine, disk, clock, the site's word."""

    def __init__(self, base: Path, manifest: Manifest | None = None) -> None:
        self.clock = VirtualClock()
        self.manifest = manifest or a_manifest()
        self.wishes = Wishes()
        self.effects = Effects()
        self.plays: dict[str, list[Play]] = {}
        self.base = base / "work"
        self.journal: Any = MemoryJournal()
        self.workplace: Any = LocalWorkplace(self.base, spare_bytes=0)
        self.scheduler = MemoryScheduler(self.clock, self._cast)
        self.sandbox = MemorySandbox()
        self.stock: Any = None
        self.make_slots: Callable[[], Slots] = MemorySlots
        self.broker = self._make_broker()
        self.lane: Any = MemoryMailbox(self.broker, SITE, INSTANCE)
        self._tokens = itertools.count(1)

    def _make_broker(self) -> broker_desk.Desk:
        store = memory_store()
        ports = broker_desk.Ports(
            store=store,
            blobs=MemoryBlobs(capacity=1 << 40),
            wakeups=MemoryWakeups(),
            clock=self.clock,
        )
        store.directory.put_site(a_site(SITE))
        return broker_desk.Desk(ports)

    def _cast(self, spec: LaunchSpec) -> Play:
        """Return the next play of the program, the last one again and again."""
        plays = self.plays.get(spec.argv[0].rpartition("/")[2], [GOOD])
        return plays.pop(0) if len(plays) > 1 else plays[0]

    # --- the site ---------------------------------------------------------------------------

    def desk(self) -> Desk:
        """Return the ports of an agent, watched by the present `effects`."""

        def watched(name: str, port: Any) -> Any:
            return Watched(port, name, self.effects)

        return Desk(
            mailbox=watched("mailbox", self.lane),
            journal=watched("journal", self.journal),
            scheduler=watched("scheduler", self.scheduler),
            workplaces=lambda _: watched("workplace", self.workplace),
            sandbox=self.sandbox,
            slots=self.make_slots(),
            stock=None if self.stock is None else watched("stock", self.stock),
            clock=self.clock,
            word=lambda: Word(self.manifest, self.wishes.denied),
            roll=lambda: 0.5,
            token=lambda: f"token-{next(self._tokens):08d}",
        )

    def agent(self) -> Agent:
        return Agent(
            self.desk(),
            self.wishes,
            capacity=lambda: self.manifest.max_running,
            alive=lambda: None,
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Agent]:
        """Give an agent at work; at the end it is gone at once, as by a second signal."""
        agent = self.agent()
        async with together() as group:
            group.start_soon(self._reap)
            group.start_soon(agent.serve)
            yield agent
            group.cancel_scope.cancel()

    async def _reap(self) -> None:
        reaper = self.broker.reaper
        while True:
            reaper.expire()
            await anyio.sleep(20)

    def edit(self, name: str = "solve", **changes: Any) -> None:
        """Change a command of the manifest."""
        commands = dict(self.manifest.commands)
        commands[name] = replace(commands[name], **changes)
        digest = hashlib.sha256(repr(commands).encode()).hexdigest()
        self.manifest = replace(self.manifest, commands=commands, digest=digest)

    def remove(self, name: str = "solve") -> None:
        commands = {n: c for n, c in self.manifest.commands.items() if n != name}
        self.manifest = replace(self.manifest, commands=commands)

    def cut_line(self) -> None:
        """Let every call to the broker fail from now on."""
        cut = Unreachable(why="cut")
        self.effects.fault = lambda label: cut if label.startswith("mailbox.") else None

    def mend_line(self) -> None:
        self.effects.fault = lambda _: None

    def fail(self, label: str, error: BaseException, times: int = 1) -> None:
        """Let the next ``times`` calls named ``label`` fail with ``error``."""
        left = itertools.count()

        def fault(called: str) -> BaseException | None:
            return error if called == label and next(left) < times else None

        self.effects.fault = fault

    def run(self, job: str) -> Run | None:
        return next((run for run in self.journal.runs() if run.job == job), None)

    def logged(self, kind: Kind) -> list[Record]:
        return [record for record in self.journal.records if record.kind is kind]

    # --- the workflow side --------------------------------------------------------------------

    def submit(
        self,
        command: str = "solve",
        *,
        inputs: Mapping[str, bytes] | None = None,
        outputs: Sequence[str] = ("result.txt",),
        **parameters: Any,
    ) -> str:
        """Submit a job, bring its inputs, and return its id."""
        job = an_id("job")
        tree, contents = a_tree(inputs or {})
        request = Request(
            command=command,
            parameters=parameters,
            inputs=tree.ref() if inputs else None,
            outputs=list(outputs),
        )
        message = SubmitJob(id=job, site=SITE, request=seal(request), has_inputs=bool(inputs))
        self.broker.submissions.submit(USER, message)
        if inputs:
            send_tree(tree, contents.__getitem__, self._own_chunks(job))
            self.broker.submissions.start(USER, job)
        return job

    def offer_bytes(self, request: bytes) -> str:
        """Submit an envelope as it is, and return the job's id."""
        job = an_id("job")
        self.broker.submissions.submit(USER, SubmitJob(id=job, site=SITE, request=request))
        return job

    def cancel(self, job: str) -> None:
        self.broker.submissions.cancel(USER, job)

    def job(self, job: str) -> Job:
        return self.broker.ports.store.jobs.get(job, EVERYONE)

    def state(self, job: str) -> str:
        return self.job(job).state.value

    def outcome(self, job: str) -> Outcome:
        return open_outcome(self.job(job).result or b"")

    def outputs(self, job: str) -> dict[str, bytes]:
        """Return the files that came back."""
        ref = self.outcome(job).outputs
        if ref is None:
            return {}
        port = self._own_chunks(job)
        tree = fetch_index(ref, port)
        chunks = dict(port.fetch(tree.chunks()))
        return {str(f.path): b"".join(chunks[c] for c in f.chunks) for f in tree.files}

    async def ended(self, job: str, within_s: float = 1000.0) -> str:
        """Return the state in which ``job`` ends, and not before its site knows that."""
        await self.until(lambda: self.job(job).state.terminal, within_s)
        await self.until(lambda: (run := self.run(job)) is None or run.settled, within_s)
        return self.state(job)

    async def until(self, claim: Callable[[], object], within_s: float = 1000.0) -> None:
        """Return when ``claim`` holds, within so much virtual time."""
        with anyio.fail_after(within_s):
            while not claim():  # noqa: ASYNC110 the time that passes here is virtual
                await anyio.sleep(max(0.25, within_s / 1000))

    def _own_chunks(self, job: str) -> BrokerChunks:
        return BrokerChunks(self.broker, Claim(tenant=Tenant(submitter=USER)), job)

    def work_dirs(self, job: str) -> list[Path]:
        return sorted((self.base / job).glob("*/work"))

    def wipe(self, job: str) -> None:
        shutil.rmtree(self.base / job)


def a_tree(files: Mapping[str, bytes]) -> tuple[Tree, dict[Chunk, bytes]]:
    """Return a tree of small files, and its chunks."""
    listed, contents = [], {}
    for name in sorted(files):
        data = files[name]
        chunk = Chunk(digest_of(data), len(data))
        contents[chunk] = data
        listed.append(TreeFile(RelPath.parse(name), False, len(data), (chunk,)))
    return Tree(tuple(listed)), contents


def code_of(error: SekishoError) -> str:
    return error.code
