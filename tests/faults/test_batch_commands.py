"""Batch commands that misbehave, and an agent that dies around them: at most one start, always.

P2, P3: whatever `sbatch` does, whatever moment the agent dies at, the witness file counts one start
at most, and the job ends in a state that says what happened.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from sekisho.adapters.hosts.host_local import LocalHost
from sekisho.adapters.schedulers import control
from sekisho.adapters.schedulers.batch import BatchScheduler
from sekisho.adapters.schedulers.dialects import DIALECTS
from sekisho.domain.egress import STDOUT_NAME
from sekisho.domain.resources import Array, BatchSystem, ResourceRule, Venue
from sekisho.site.host import Answer
from sekisho.site.scheduler import LaunchSpec, NotStarted, Ticket
from tests.fake_batch import install, submitted, working
from tests.launching import a_launch, until
from tests.site_world import RESULT, Crash, Effects, World, a_command, a_manifest

pytestmark = pytest.mark.anyio
WITHIN_S = 120.0
ELEMENTS = 3
BEHAVIOURS = (
    "good",
    "hangs, then submits",
    "submits, then hangs",
    "submits long after it was killed",
    "submits, exits 1",
    "submits, exits 1, slurmctld away",
    "submits twice",
    "submits, prints garbage",
    "submits, prints nothing",
    "submits, another language",
    "submits, says too much",
    "submits, another job's id",
    "says an id, submits nothing",
    "says an id, submits later",
    "is killed",
    "submits, is killed",
    "away",
    "full",
)
#: With these another job turns up when the first is long over.
LATE = frozenset({"submits long after it was killed", "says an id, submits later"})


class DyingHost(LocalHost):
    """A machine whose agent dies while `sbatch` is at work, which goes on without it."""

    dying = False

    async def run(
        self,
        argv: tuple[str, ...],
        *,
        stdin: bytes = b"",
        cwd: str = "/",
        env: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> Answer:
        if not (self.dying and "sbatch" in argv):
            return await super().run(argv, stdin=stdin, cwd=cwd, env=env, timeout_s=timeout_s)
        await anyio.to_thread.run_sync(_left, argv, cwd)
        await until((Path(argv[4]) / "called").exists)
        raise Crash


def _left(argv: tuple[str, ...], cwd: str) -> None:
    """Start a command that nobody waits for."""
    null = subprocess.DEVNULL
    with subprocess.Popen(argv, cwd=cwd, stdin=null, stdout=null, stderr=null) as left:
        left.returncode = 0


class DyingScheduler(BatchScheduler):
    """A scheduler whose agent dies before or after a submission."""

    dies = ""

    async def submit(self, spec: LaunchSpec) -> Ticket:
        if self.dies == "before":
            raise Crash
        try:
            return await super().submit(spec)
        finally:
            if self.dies == "after":
                raise Crash


class BatchWorld(World):
    """A site whose one command is started by the fake batch system."""

    def __init__(
        self,
        base: Path,
        *behaviour: str,
        pause: str = ":",
        dialect: str = "slurm",
        elements: int | None = None,
    ) -> None:
        program = base / "solve"
        program.write_text(
            f"#!/bin/sh\necho ran$SEKISHO_ELEMENT >>{base}/witness\n{pause}\n"
            f"printf '{RESULT.decode().strip()}\\n' >result.txt\necho done\n"
        )
        program.chmod(0o755)
        command = a_command(
            argv=(str(program), "{n}"),
            venue=Venue(scheduler="trial"),
            resources=ResourceRule(array=Array(elements=elements) if elements else None),
        )
        super().__init__(base, a_manifest(command))
        self.fake = base / "fake"
        made = install(self.fake, *behaviour, dialect=dialect)
        keys = {key: tuple(words) for key, words in made.items()}
        self.system = BatchSystem(
            name="trial",
            dialect=dialect,
            poll_s=0.1,
            poll_max_s=0.5,
            settle_s=0.5,
            timeout_s=1.5,
            **keys,  # type: ignore[arg-type]
        )
        self.witness = base / "witness"
        self.restart()

    def restart(self, moment: str = "") -> None:
        """Forget everything that an agent's process knows; the next one dies at ``moment``."""
        self.effects = Effects()
        host = DyingHost()
        host.dying = moment == "during"
        scheduler = DyingScheduler(host, DIALECTS[self.system.dialect], self.system)
        scheduler.dies = moment
        self.scheduler = scheduler  # type: ignore[assignment]

    def called(self, command: str) -> int:
        return (self.fake / "called").read_text().split().count(command)

    def elements(self) -> Counter[str]:
        """Return how often each element of an array was started."""
        return Counter(self.witness.read_text().split() if self.witness.exists() else ())

    def starts(self) -> int:
        return len(self.witness.read_text().splitlines()) if self.witness.exists() else 0


@pytest.mark.parametrize("elements", [None, ELEMENTS])
@pytest.mark.parametrize("moment", ["", "before", "during", "after"])
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
async def test_each_element_starts_once_whatever_sbatch_does_and_the_agent_suffers(
    tmp_path: Path, behaviour: str, moment: str, elements: int | None
) -> None:
    """A command that is no array is one element without a number."""
    world = BatchWorld(tmp_path, behaviour, elements=elements)
    world.restart(moment)
    job = world.submit()
    if moment:
        with pytest.raises(Crash), anyio.fail_after(WITHIN_S):
            async with world.serving():
                await anyio.sleep_forever()
        world.restart()
    async with world.serving():
        assert await ended(world, job) == "succeeded"
        assert world.outputs(job)["result.txt"] == RESULT
    if behaviour in LATE and moment != "before":
        await until(lambda: submitted(world.fake) >= 2 * (elements or 1))
    await until(lambda: not working(world.fake))
    names = ["ran"] if elements is None else [f"ran{n}" for n in range(elements)]
    assert world.elements() == dict.fromkeys(names, 1)


async def test_elements_without_their_latches_start_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above: the same, with the one defence taken away."""
    take_the_latch_away(monkeypatch)
    world = BatchWorld(tmp_path, "submits twice", elements=ELEMENTS)
    async with world.serving():
        await ended(world, world.submit())
    await until(lambda: not working(world.fake))
    assert max(world.elements().values()) > 1


@pytest.mark.parametrize("elements", [1, 3])
@pytest.mark.parametrize("dialect", ["slurm", "pbs", "torque", "sge", "pjsub"])
async def test_an_array_of_any_size_goes_through_every_dialect(
    tmp_path: Path, dialect: str, elements: int
) -> None:
    world = BatchWorld(tmp_path, dialect=dialect, elements=elements)
    async with world.serving():
        job = world.submit()
        assert await ended(world, job) == "succeeded"
    assert world.elements() == {f"ran{n}": 1 for n in range(elements)}
    told = "".join(f"==> element {n} <==\ndone\n" for n in range(elements))
    assert world.outputs(job)[STDOUT_NAME] == told.encode()


async def test_an_array_that_is_refused_for_good_can_never_start(tmp_path: Path) -> None:
    world = BatchWorld(tmp_path, *["refuses"] * 9, elements=ELEMENTS)
    async with world.serving():
        job = world.submit()
        assert await ended(world, job) == "failed"
    assert world.outcome(job).code == "scheduler.refused"
    latches = [world.base / job / "1/control" / str(n) / "latch" for n in range(ELEMENTS)]
    assert all(latch.is_symlink() for latch in latches)
    assert world.elements() == {}


ROOM = "QOS Records\n\nQOS=normal(1)\n    User Limits\n      0\n        MaxSubmitJobsPU={}(0)\n"


async def test_an_array_for_which_there_is_never_room_is_refused_before_anything_runs(
    tmp_path: Path,
) -> None:
    world = BatchWorld(tmp_path, *["full"] * 9, elements=ELEMENTS)
    (world.fake / "limits").write_text(ROOM.format(ELEMENTS - 1))
    async with world.serving():
        job = world.submit()
        assert await ended(world, job) == "failed"
    assert world.outcome(job).code == "scheduler.too_many"
    assert (submitted(world.fake), world.elements()) == (0, {})
    latches = [world.base / job / "1/control" / str(n) / "latch" for n in range(ELEMENTS)]
    assert all(latch.is_symlink() for latch in latches)


@pytest.mark.parametrize("told", [ROOM.format(ELEMENTS), ROOM.format(0), "nothing of the kind"])
async def test_an_array_for_which_there_may_be_room_later_waits(tmp_path: Path, told: str) -> None:
    world = BatchWorld(tmp_path, "full", elements=ELEMENTS)
    (world.fake / "limits").write_text(told)
    async with world.serving():
        assert await ended(world, world.submit()) == "succeeded"
    assert world.called("sbatch") == 2


async def test_without_the_latch_the_witness_sees_two_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the tests above: the same, with the one defence taken away."""
    take_the_latch_away(monkeypatch)
    world = BatchWorld(tmp_path, "submits twice")
    async with world.serving():
        await ended(world, world.submit())
    await until(lambda: not working(world.fake))
    assert world.starts() > 1


def take_the_latch_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every wrapper a directory of its own, where no other looks."""
    one = "sekisho_control=$1\n"
    assert one in control.SCRIPT_TEXT
    loose = control.SCRIPT_TEXT.replace(one, 'sekisho_control=$1/$$; command -p mkdir "$1/$$"\n')
    monkeypatch.setattr(control, "SCRIPT_TEXT", loose)


async def test_what_is_refused_for_good_fails_and_can_never_start(tmp_path: Path) -> None:
    world = BatchWorld(tmp_path, *["refuses"] * 9)
    async with world.serving():
        job = world.submit()
        assert await ended(world, job) == "failed"
    assert world.outcome(job).code == "scheduler.refused"
    assert world.outcome(job).params == {}  # what the batch system said stays at the site
    assert (submitted(world.fake), world.starts()) == (0, 0)
    run = world.run(job)
    assert run is not None
    revoked = world.base / job / "1" / "control" / "latch"
    assert revoked.is_symlink()


async def test_a_busy_site_asks_once_in_an_interval_for_all_its_jobs(tmp_path: Path) -> None:
    world = BatchWorld(tmp_path, pause="sleep 3")
    world.manifest = replace(world.manifest, max_running=20)
    world.edit(max_running=20)
    async with world.serving():
        jobs = [world.submit() for _ in range(20)]
        assert [await ended(world, job) for job in jobs] == ["succeeded"] * 20
    asked = world.called("squeue")
    assert world.starts() == world.called("sbatch") == 20
    assert asked < 60  # each of 20 jobs asking by itself, every 0.5 s at best, would be over 120


@pytest.mark.parametrize("dialect", ["pbs", "torque", "sge", "pjsub"])
async def test_a_job_goes_through_every_dialect_and_can_be_cancelled(
    tmp_path: Path, dialect: str
) -> None:
    """Fake commands that answer as the manuals say; no site has confirmed them yet."""
    world = BatchWorld(tmp_path, pause='[ "$1" = 1 ] || sleep 60', dialect=dialect)
    async with world.serving():
        short = world.submit(n=1)
        assert await ended(world, short) == "succeeded"
        assert world.outputs(short)["result.txt"] == RESULT
        long = world.submit(n=2)
        await until(lambda: world.starts() == 2)
        world.cancel(long)
        assert await ended(world, long) == "cancelled"
    assert (world.starts(), submitted(world.fake)) == (2, 2)


async def test_a_number_that_is_somebody_elses_by_now_is_neither_believed_nor_cancelled(
    tmp_path: Path,
) -> None:
    world = BatchWorld(tmp_path, pause="sleep 60")
    async with world.serving():
        job = world.submit()
        await until(lambda: world.starts() == 1)
        (other,) = (file.name for file in (world.fake / "jobs").iterdir())
        spec = a_launch(tmp_path, "/bin/true")
        ticket = Ticket(
            token=spec.token,
            work_dir=spec.work_dir,
            control_dir=spec.control_dir,
            reference=other,
        )
        await world.scheduler.cancel(ticket, force=True)
        assert await world.scheduler.observe([ticket]) == {ticket: NotStarted()}
        assert working(world.fake)  # the control: by its own ticket it is ended
        world.cancel(job)
        assert await ended(world, job) == "cancelled"
        assert not working(world.fake)


async def ended(world: World, job: str) -> str:
    """Return the state in which ``job`` ends, in real time."""
    with anyio.fail_after(WITHIN_S):
        while not world.job(job).state.terminal:  # noqa: ASYNC110 processes make no events
            await anyio.sleep(0.05)
    return world.state(job)
