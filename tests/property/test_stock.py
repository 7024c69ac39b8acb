"""Whatever jobs, agents and time do to shared inputs: each job is given what was sent."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sekisho.transfer.pack import SMALL_BYTES
from tests.cloning import let_clone
from tests.modes import obeyed
from tests.stock_yard import Job, Yard

USERS = st.sampled_from(["alice", "bob"])
CONTENTS = st.integers(0, 3)
JOBS = st.integers(0, 30)
SIZE = SMALL_BYTES + 4096
OTHER = 5 * SMALL_BYTES


class AnySweep(RuleBasedStateMachine):
    """Kills: a lease that is believed when it is broken; a look that is not taken after a restart
    or an hour; a folder for all submitters; a bound that is passed; a file that is lent by name."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self._stack.enter_context(obeyed())
        patch = self._stack.enter_context(pytest.MonkeyPatch.context())
        home = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        let_clone(patch, home)
        self.yard = Yard(home, max_bytes=4 * SIZE)
        self.jobs: list[tuple[str, Job]] = []

    def teardown(self) -> None:
        self.yard.stock.close()
        self._stack.close()

    def _job(self, number: int) -> Job | None:
        there = [job for _, job in self.jobs if job.mesh.exists()]
        return there[number % len(there)] if there else None

    @rule(user=USERS, content=CONTENTS, executable=st.booleans(), writable=st.booleans())
    def run(self, user: str, content: int, *, executable: bool, writable: bool) -> None:
        data = bytes([content]) * SMALL_BYTES + b"end"
        job = self.yard.job(data, user, executable=executable, writable=writable)
        assert job.mesh.read_bytes() == data
        mode = (0o111 if executable else 0) | (0o644 if writable else 0o444)
        assert job.mesh.stat().st_mode & 0o777 == mode
        assert not writable or job.mesh.stat().st_nlink == 1
        self.jobs.append((user, job))

    @rule(number=JOBS, at=st.integers(0, SMALL_BYTES))
    def write(self, number: int, at: int) -> None:
        if job := self._job(number):
            job.tamper(b"\xff", at)

    @rule(number=JOBS)
    def remove(self, number: int) -> None:
        if job := self._job(number):
            job.mesh.unlink()

    @rule(number=JOBS, mode=st.sampled_from([0, 0o444, 0o777]))
    def change_mode(self, number: int, mode: int) -> None:
        if job := self._job(number):
            job.mesh.chmod(mode)

    @rule()
    def replace_in_stock(self) -> None:
        for path in self.yard.kept()[:1]:
            other = path.with_name("other")
            other.write_bytes(bytes(OTHER))
            other.replace(path)

    @rule()
    def restart(self) -> None:
        self.yard.restart()

    @rule(seconds=st.sampled_from([1.0, 4000.0]))
    def wait(self, seconds: float) -> None:
        self.yard.now += seconds

    @invariant()
    def nothing_is_shared_between_submitters(self) -> None:
        inodes: dict[int, str] = {}
        for user, job in self.jobs:
            if job.mesh.exists():
                assert inodes.setdefault(job.inode, user) == user

    @invariant()
    def it_keeps_to_its_bound(self) -> None:
        seen = [path.stat() for path in self.yard.kept()]
        ours = [each for each in seen if each.st_size != OTHER]  # nor put there behind its back
        assert sum(each.st_blocks * 512 for each in ours) <= 4 * SIZE


TestAnySweep = AnySweep.TestCase
TestAnySweep.settings = settings(max_examples=60, stateful_step_count=30)
