"""A bare site with other tools than this machine's: shells of the sh family, and an older rsync."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.client.errors import CommandFailed
from sekisho.client.spec import JobSpec
from sekisho.domain.errors import UsageError
from sekisho.domain.job import JobState
from tests.bare_site import SITE, BareWorld, bare_world

SHELLS = {
    "dash": 'exec /usr/bin/dash "$@"',
    "bash": 'exec -a sh /bin/bash "$@"',
    "bash --posix": 'exec /bin/bash --posix "$@"',
    "busybox": 'exec /usr/bin/busybox sh "$@"',
}
PROGRAM = """\
cat mesh.inp mesh.inp >out.txt; echo printed; echo aside >&2
echo "$CALC_DIR" >where; mkdir -p "a b"; echo 1 >"a b/it's"
sleep 600 & setsid sleep 601 &
[ ! -e fail ] || exit 3
"""


def tool(world: BareWorld, name: str, text: str) -> None:
    """Put a program where the site's login looks first, and note each time it is run."""
    file = world.place / "tools" / name
    file.write_text(f"#!/bin/bash\necho x >>{world.place}/ran-{name}\n{text}\n")
    file.chmod(0o755)


def ran(world: BareWorld, name: str) -> int:
    return len((world.place / f"ran-{name}").read_text().splitlines())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[BareWorld]:
    tools = tmp_path / "tools"
    tools.mkdir()
    path = f"{tools}:/usr/local/bin:/usr/bin:/bin"
    with bare_world(tmp_path, lines=[f"SetEnv PATH={path}"]) as made:
        made.program("work", PROGRAM)
        made.program("hold", "echo up >up; while [ ! -e go ]; do sleep 0.05; done")
        yield made


def course(world: BareWorld, place: Path) -> None:
    """Take jobs through all that a bare site's scripts do."""
    mesh = place / "mesh.inp"
    mesh.write_bytes(os.urandom(200_000))
    (place / "fail").touch()
    with world.client() as client:
        job = client.submit(JobSpec(site=SITE, command="work", inputs=[mesh]))
        result = job.result(place / "r")
        assert {str(f.relative_to(place / "r")) for f in result.files} == {
            "out.txt",
            "where",
            "a b/it's",
            "remote_program_exec.log",
        }
        assert (place / "r" / "out.txt").read_bytes() == mesh.read_bytes() * 2
        log = (place / "r" / "remote_program_exec.log").read_text()
        assert sorted(log.split()) == ["aside", "printed"]
        assert alive(f"{world.job_directory(job.id)}/work") == []
        failing = client.submit(JobSpec(site=SITE, command="work", inputs=[mesh, place / "fail"]))
        with pytest.raises(CommandFailed) as failed:
            failing.result(place / "f")
        assert failed.value.result.exit_code == 3
        held = client.submit(JobSpec(site=SITE, command="hold"))
        while not (world.job_directory(held.id) / "work" / "up").exists():
            held.refresh()
        held.cancel()
        assert held.wait(60).state == JobState.CANCELLED
        assert alive(f"{world.job_directory(held.id)}/work") == []


def alive(work: str) -> list[str]:
    """Return the processes that have the job's directory in their first environment."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            words = (place / "environ").read_bytes() if place.name.isdigit() else b""
        except OSError:
            continue
        if f"CALC_DIR={work}".encode() in words.split(b"\0"):
            found.append(place.name)
    return found


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_of_the_family_runs_the_scripts(
    world: BareWorld, tmp_path: Path, shell: str
) -> None:
    tool(world, "sh", SHELLS[shell])
    course(world, tmp_path)
    assert ran(world, "sh") > 10


@pytest.mark.parametrize("protocol", [30, 31])
def test_an_older_protocol_of_rsync_is_enough(
    world: BareWorld, tmp_path: Path, protocol: int
) -> None:
    """Protocol 31 is that of rsync 3.1, of the days of CentOS 7; 30 is older still."""
    real = shutil.which("rsync")
    tool(world, "rsync", f'exec {real} --protocol={protocol} "$@"')
    course(world, tmp_path)
    assert ran(world, "rsync") >= 3


OF_2006 = """\
[ "$1" = --version ] && { echo "rsync  version 2.6.9  protocol version 29"; exit; }
echo "rsync: -s: unknown option" >&2
echo "rsync error: syntax or usage error (code 1) at main.c(1231) [Receiver=2.6.9]" >&2
exit 1
"""


def test_an_rsync_of_other_days_is_told_at_once(world: BareWorld, tmp_path: Path) -> None:
    """Kills: a host that "cannot be reached" for ever."""
    tool(world, "rsync", OF_2006)
    mesh = tmp_path / "mesh.inp"
    mesh.write_text("x")
    with world.client() as client, pytest.raises(UsageError) as told:
        client.submit(JobSpec(site=SITE, command="work", inputs=[mesh]))
    assert told.value.code == "bare.rsync_old"


ONLY = (
    *("sh", "cat", "date", "env", "find", "grep", "ln", "mkdir", "mv", "nohup"),
    *("rm", "rsync", "sleep", "sync", "tail", "wc"),
)


def test_a_site_without_setsid_runs_jobs_that_outlive_the_line_too(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ONLY:
        (tools / name).symlink_to(shutil.which(name) or name)
    with bare_world(tmp_path, lines=[f"SetEnv PATH={tools}"]) as world:
        world.program("work", "command -v setsid >found; while [ ! -e go ]; do sleep 0.05; done")
        with world.client() as client:
            job = client.submit(JobSpec(site=SITE, command="work"))
            work = world.job_directory(job.id) / "work"
            while not (work / "found").exists():
                job.refresh()
            world.server.cut()
            (work / "go").touch()
            assert job.result(tmp_path / "r").state == JobState.SUCCEEDED
    assert (tmp_path / "r" / "found").read_text() == ""
