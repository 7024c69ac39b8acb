"""Jobs that may write to an input that came before: each has its own, and nothing of it is copied.

The site's work base is on a disk that clones files, in a file, which the agent alone sees mounted.
An ordinary account cannot mount: there it is whatever disk the tests are on, with clones or not.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from sekisho.adapters.reflink import can_clone
from sekisho.api import JobError, JobSpec, Result, connect
from tests.disks import MAY_MOUNT, a_disk, mounted
from tests.faults.trio import MANIFEST, SITE, Trio, private, typed
from tests.modes import ORDINARY
from tests.proxy import HOST, Proxy

MIB: Final = 1 << 20
MESH: Final = 8 * MIB
DISK: Final = 4096 * MIB  #: with less than a GiB of room nothing is kept
DOWN: Final = "POST /v1/site/jobs/{id}/chunks/fetch"
#: A command that does what it likes to its input.
OTHER: Final = """
[[command]]
name = "other"
argv = ["/bin/sh", "-c", "{script}"]
time_limit_s = 300
[[command.input]]
path = "in/**"
"""
#: Takes all the room that there is, and gives it back behind what is done meanwhile.
FULL: Final = (
    "fallocate -l $(($(df --output=avail -B1M . | tail -n 1) - 4))M full || exit 7; "
    "{then}; code=$?; rm full; exit $code"
)
REWRITE: Final = "dd if=/dev/zero of=in/given bs=1M count=8 conv=notrunc,fsync"


@dataclass
class Disk:
    """A trio whose agent works on a disk of its own."""

    trio: Trio
    mesh: Path
    before: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        work = self.trio.site / "work"
        if MAY_MOUNT:
            self.before = mounted(a_disk("xfs", self.trio.home / "disk", DISK), work)
        self.clones = MAY_MOUNT or can_clone(work)

    def serve(self, script: str = "", *more: str, who: Sequence[str] = ORDINARY) -> None:
        manifest = MANIFEST.format(home=self.trio.home)
        if script:
            manifest += OTHER.replace("{script}", script)
        (self.trio.site / "manifest.toml").write_text(manifest)
        self.trio.start_agent(*self.before, *who, *more)

    def run(self, key: str, command: str = "work") -> Result:
        """Carry one job to its end; return how it ended."""
        parameters = {"key": key, "pause": "0"} if command == "work" else {}
        outputs = ["out/**"] if command == "work" else []
        given = {"inputs": {"in/given": self.mesh}, "outputs": outputs, "parameters": parameters}
        spec = JobSpec(site=SITE, command=command, **given)  # type: ignore[arg-type]
        with self.trio.connect() as client:
            try:
                return client.submit(spec).result(self.trio.home / f"got-{key}", timeout=120)
            except JobError as error:
                return error.result

    def right(self, key: str) -> Result:
        """Carry a job that gives its input back, and see that this is what was sent."""
        result = self.run(key)
        assert result.exit_code == 0
        assert self.trio.home.joinpath(f"got-{key}/out/in/given").read_bytes() == (
            self.mesh.read_bytes()
        )
        return result

    @property
    def work(self) -> Path:
        """The work base, as the agent sees it."""
        return Path(f"/proc/{self.trio.agent.pid}/root{self.trio.site}/work")

    def placed(self, job: str) -> os.stat_result:
        """Return what the job was given, which is kept for a while."""
        return (self.work / job / "1" / "work" / "in" / "given").stat()

    def stocked(self) -> list[Path]:
        return list((self.work / ".stock").glob("*/*"))


@pytest.fixture
def disk(still: Trio) -> Disk:
    still.start_broker()
    return Disk(still, still.some_input(MESH))


def bytes_down(proxy: Proxy) -> int:
    return sum(len(r.bytes) + len(answer) for r, answer in proxy.seen if r.route == DOWN)


def test_the_second_job_gets_its_own_file_without_a_byte_of_it_fetched(disk: Disk) -> None:
    disk.serve()
    first = disk.right("a")
    disk.trio.proxy.seen.clear()
    second = disk.right("b")
    seen = [disk.placed(first.job), disk.placed(second.job), *(p.stat() for p in disk.stocked())]
    assert len(seen) == 2 + disk.clones
    assert len({each.st_ino for each in seen}) == len(seen)
    assert {each.st_nlink for each in seen} == {1}
    assert stat.S_IMODE(seen[0].st_mode) == stat.S_IMODE(seen[1].st_mode)
    assert bytes_down(disk.trio.proxy) < 0.05 * MESH


def test_a_command_that_rewrites_its_input_changes_nobody_elses(disk: Disk) -> None:
    """Nor does it wait for anybody, or cost a look."""
    disk.serve(REWRITE)
    first = disk.right("a")
    spoilt = disk.run("w", "other")
    assert spoilt.exit_code == 0
    given = disk.work / spoilt.job / "1" / "work" / "in" / "given"
    assert given.read_bytes() == bytes(MESH)  # it really wrote
    second = disk.right("b")
    assert disk.trio.agent.find("stock_file_dropped") is None
    kept = (disk.work / first.job / "1" / "work" / "in" / "given").read_bytes()
    assert kept == disk.mesh.read_bytes()
    assert disk.placed(second.job).st_ino != disk.placed(first.job).st_ino


def test_a_job_that_finds_no_room_for_its_changes_fails_by_itself(disk: Disk) -> None:
    """Kills: a clone for which no room is left, and that is told as a fault of the site."""
    if not MAY_MOUNT:  # nobody fills the disk of others
        assert disk.before == []
        return
    disk.serve(FULL.replace("{then}", REWRITE))
    disk.right("a")
    spoilt = disk.run("w", "other")
    assert spoilt.exit_code == 1
    assert spoilt.state == "failed"
    again = disk.right("b")
    assert disk.placed(again.job).st_nlink == 1
    assert disk.trio.agent.find("stock_file_dropped") is None


def test_a_stock_that_is_damaged_while_no_agent_runs_reaches_no_job(disk: Disk) -> None:
    disk.serve()
    disk.right("a")
    for file in disk.stocked():
        with file.open("r+b") as opened:
            opened.seek(MESH // 2)
            byte = opened.read(1)[0]
            opened.seek(MESH // 2)
            opened.write(bytes([byte ^ 1]))
    damaged = len(disk.stocked())
    disk.trio.agent.stop()
    disk.serve()
    disk.right("b")
    dropped = [e for e in disk.trio.agent.lines if e.get("event") == "stock_file_dropped"]
    assert len(dropped) == damaged == disk.clones


def test_another_submitter_gets_another_file(disk: Disk) -> None:
    trio = disk.trio
    config = ("-c", trio.broker_config)
    typed("broker", "site", "users", SITE, "--user", "alice", "--user", "bob", *config)
    who = ("--role", "submitter", "--user", "bob")
    typed("broker", "token", "create", *who, "--to", trio.home / "bobs", *config)
    settings = trio.client_config.with_name("bob.toml")
    text = trio.client_config.read_text()
    private(settings, text.replace(str(trio.home / "token"), str(trio.home / "bobs")))
    disk.serve()
    manifest = trio.site / "manifest.toml"
    manifest.write_text(manifest.read_text().replace('["alice"]', '["alice", "bob"]'))
    disk.right("a")
    with connect(settings) as client:
        client.submit(trio.spec("b", source=disk.mesh)).result(trio.home / "bob", timeout=120)
    kept = disk.stocked()
    assert len({file.parent for file in kept}) == len(kept) == 2 * disk.clones


def test_root_gets_clones_of_what_its_commands_only_read(disk: Disk) -> None:
    disk.serve(who=())
    manifest = disk.trio.site / "manifest.toml"
    manifest.write_text(manifest.read_text().replace('"in/**"', '"in/**"\nread_only = true', 1))
    first, second = (disk.placed(disk.right(key).job) for key in "ab")
    assert stat.S_IMODE(first.st_mode) == stat.S_IMODE(second.st_mode) == 0o444
    if os.geteuid() == 0:
        assert first.st_ino != second.st_ino
    assert len(disk.stocked()) == 1


@pytest.mark.parametrize("jobs", [0, 1])
def test_an_agent_that_is_killed_as_it_names_a_clone_leaves_nothing_by_half(
    disk: Disk, tmp_path: Path, jobs: int
) -> None:
    """Of the first job as it is kept, of the second as it is lent: nothing else makes links."""
    trio = disk.trio
    trio.point_at(f"http://{HOST}:{trio.proxy.upstream}")  # it notices at once who is gone
    disk.serve()
    for number in range(jobs):
        disk.right(f"before-{number}")
    trio.agent.stop()
    kill = ("-e", "trace=linkat", "-e", "inject=linkat:signal=KILL:when=1")
    trace = ("strace", "-f", "-qq", "-o", str(tmp_path / "trace"), *kill)
    disk.serve("", *trace)
    with trio.connect() as client:
        job = client.submit(trio.spec("killed", source=disk.mesh))
        if disk.clones:
            trio.agent.ended(60)
            trio.let_offers_end()
            disk.serve()
        result = job.result(trio.home / "got", timeout=120)
    assert result.exit_code == 0
    assert (trio.home / "got/out/in/given").read_bytes() == disk.mesh.read_bytes()
    assert trio.starts()["killed"] == 1
    disk.right("after")
    assert len(disk.stocked()) == disk.clones
