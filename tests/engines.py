"""The batch systems that tests run: what each is told and says, so that a test serves them all."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.batch import through
from tests.faults.trio import Trio
from tests.gridengine import PROGRAMS, GridEngine, a_gridengine
from tests.slurm import Slurm, a_slurm
from tests.waiting import until

SECONDS: Final = 240.0
Words = tuple[str, ...]


@dataclass(frozen=True)
class Engine:
    """One kind of batch system. Commands that mean jobs take their numbers as last words."""

    name: str
    dialect: str
    start: Callable[..., AbstractContextManager[Any]]
    #: As a manifest names them.
    commands: Mapping[str, Words]
    #: What lists the jobs, the pattern of a number and its state there, and who counts as what.
    listing: Words
    listed: str
    waiting: str
    held: str
    running: str
    #: What is still listed of a job that was cancelled.
    cancelled: frozenset[str]
    #: The daemon that decides, the one that looks after a node, and how each is started again.
    master: str
    node: str
    start_master: Callable[[Any], None]
    start_node: Callable[[Any], None]
    #: Returns when the master will know the job of this number after it was killed.
    remember: Callable[[Any, str], None]
    close: Words
    open: Words
    hold: Words
    release: Words
    #: Start a job again; what is said when that was forbidden; what allows it; how it ends then.
    restart: Words
    not_restartable: str
    allow_restart: Words
    restarted: frozenset[str]
    #: What our check says that it submits, and what the engine says of a queue that is not there.
    submits: str
    no_queue: str
    #: How many jobs a full engine lets through in a test, how many it holds, and its settings.
    crowd: int
    room: int
    crowded: Mapping[str, int] = field(default_factory=dict)

    def manifest_commands(self) -> str:
        """Return the manifest's lines that name the commands."""
        return "\n".join(f"{key} = {list(words)}" for key, words in self.commands.items())


def _written_down(slurm: Slurm, number: str) -> None:
    """Slurm writes what it knows some seconds late: see a mark that is younger than the start."""
    mark = f"seen-{number}"
    slurm.told("scontrol", "update", f"JobId={number}", f"Comment={mark}")
    state = slurm.base / "state/job_state"
    until(lambda: mark.encode() in state.read_bytes(), "what Slurm wrote down")


SLURM: Final = Engine(
    name="slurm",
    dialect="slurm",
    start=a_slurm,
    commands={},
    listing=("squeue", "-h", "-t", "all", "-o", "%A|%T-%r|"),
    listed=r"(\d+)\|(\w+(?:-JobHeld)?)",
    waiting="PENDING",
    held="PENDING-JobHeld",
    running="RUNNING",
    cancelled=frozenset({"CANCELLED"}),
    master="slurmctld",
    node="slurmd",
    start_master=Slurm.start_controller,
    start_node=Slurm.start_node,
    remember=_written_down,
    close=("scontrol", "update", "PartitionName=main", "State=DOWN"),
    open=("scontrol", "update", "PartitionName=main", "State=UP"),
    hold=("scontrol", "hold"),
    release=("scontrol", "release"),
    restart=("scontrol", "requeue"),
    not_restartable="disabled",  # we said --no-requeue
    allow_restart=("scontrol", "update", "Requeue=1", "JobId={}"),
    restarted=frozenset({"failed 143"}),  # Slurm ended its one run by TERM
    submits="sbatch --time=1 --parsable --no-requeue --export=NIL",
    no_queue="invalid partition specified: nope",
    crowd=60,
    room=10,
    crowded={"most_jobs": 10, "forget_s": 2},
)
GRID_ENGINE: Final = Engine(
    name="gridengine",
    dialect="sge",
    start=a_gridengine,
    commands={
        "submit": (f"{PROGRAMS}/qsub",),
        "status": (f"{PROGRAMS}/qstat",),
        "cancel": (f"{PROGRAMS}/qdel",),
    },
    listing=("qstat", "-xml", "-u", "*"),
    listed=r"(?s)<JB_job_number>(\d+)<.*?<state>(\w+)<",
    waiting="qw",
    held="hqw",
    running="r",
    cancelled=frozenset(),
    master="sge_qmaster",
    node="sge_execd",
    start_master=GridEngine.start_master,
    start_node=GridEngine.start_node,
    remember=lambda _it, _number: None,  # it writes first
    close=("qmod", "-d", "main.q"),
    open=("qmod", "-e", "main.q"),
    hold=("qhold",),
    release=("qrls",),
    restart=("qmod", "-rj"),
    not_restartable="not restartable",  # we said -r n
    allow_restart=("qalter", "-r", "y", "{}"),
    restarted=frozenset({"failed 137", "lost None"}),
    submits=f"{PROGRAMS}/qsub -l h_rt=00:01:00 -terse -r n",
    no_queue="nope",
    crowd=30,
    room=5,
    crowded={"most_jobs": 5},
)
ENGINES: Final = {engine.name: engine for engine in (SLURM, GRID_ENGINE)}


def only(engine: Engine) -> pytest.MarkDecorator:
    """Let the fixture `batch` be this one alone."""
    return pytest.mark.parametrize("batch", [engine.name], indirect=True)


@dataclass(frozen=True)
class Batch:
    """A batch system that runs: ``it`` of the kind ``engine``."""

    engine: Engine
    it: Any

    def told(self, *argv: str) -> str:
        said: str = self.it.told(*argv)
        return said

    def queue(self) -> dict[str, str]:
        """Return state by number of all jobs that it still knows."""
        return dict(re.findall(self.engine.listed, self.told(*self.engine.listing)))

    def close(self) -> None:
        """Let no job start."""
        self.told(*self.engine.close)

    def open(self) -> None:
        self.told(*self.engine.open)

    def hold(self) -> None:
        """Hold every job."""
        self.told(*self.engine.hold, *self.queue())

    def release(self) -> None:
        self.told(*self.engine.release, *self.queue())

    def kill_master(self) -> None:
        self.it.kill(self.engine.master)

    def start_master(self) -> None:
        self.engine.start_master(self.it)

    def kill_node(self) -> None:
        self.it.kill(self.engine.node)

    def start_node(self) -> None:
        self.engine.start_node(self.it)

    def through(self, trio: Trio, command: str = "", running: int = 16) -> None:
        """Write a manifest whose command runs through this; ``command``: more keys of it."""
        through(
            trio,
            self.it.environment,
            dialect=self.engine.dialect,
            commands=self.engine.manifest_commands(),
            command=command,
            running=running,
        )

    def queued(self) -> dict[str, str]:
        """Return the queue when there is a job in it."""
        until(self.queue, "a job")
        return self.queue()

    def running(self, trio: Trio, key: str = "one") -> str:
        """Return the number of the job that runs, when its command has started."""
        until(lambda: trio.starts()[key], "a start")
        runs = self.engine.running
        until(lambda: runs in self.queue().values(), "a job that runs")  # told a moment later
        return next(number for number, state in self.queue().items() if state == runs)


@contextmanager
def a_batch(engine: Engine, *words: Any, **settings: int) -> Iterator[Batch]:
    """Give a batch system that runs; the rest is its own way of saying what it is to be like."""
    with (
        tempfile.TemporaryDirectory(prefix="batch-") as base,
        engine.start(Path(base) / "s", *words, **settings) as it,
    ):
        yield Batch(engine, it)
