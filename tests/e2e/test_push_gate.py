"""A gated site over a real sshd: jobs go through, survive every cut, and start once."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sekisho.adapters.reflink import can_clone
from sekisho.client.client import Client, new_job_id
from sekisho.client.errors import JobExpired, JobRefused
from sekisho.client.spec import JobSpec
from sekisho.domain.errors import NotFound
from tests.disks import MAY_MOUNT, a_disk, mounted
from tests.forked import run
from tests.gated import GatedHouse, gate_client, gate_line, gated_house
from tests.modes import ORDINARY
from tests.waiting import until


@pytest.fixture
def house(tmp_path: Path) -> Iterator[GatedHouse]:
    with gated_house(tmp_path) as made:
        yield made


@pytest.fixture
def client(house: GatedHouse, tmp_path: Path) -> Iterator[Client]:
    with gate_client(house, tmp_path) as made:
        yield made


def a_double(place: Path, size: int, outputs: tuple[str, ...] = ("out.txt",)) -> JobSpec:
    source = place / "in.txt"
    source.write_bytes(random.Random(size).randbytes(size))
    return JobSpec(site="kobe", command="double", inputs={"in.txt": source}, outputs=list(outputs))


def test_files_go_in_and_only_permitted_ones_come_back(client: Client, tmp_path: Path) -> None:
    job = client.submit(a_double(tmp_path, 3_000_000, ("*",)))
    result = job.result(tmp_path / "back")
    assert [f.name for f in result.files] == ["out.txt"]
    sent = (tmp_path / "in.txt").read_bytes()
    assert (tmp_path / "back" / "out.txt").read_bytes() == sent + sent


@pytest.mark.parametrize("word", ["", "\nread_only = true"])
def test_jobs_share_an_input_if_the_manifest_says_so(
    house: GatedHouse, tmp_path: Path, word: str
) -> None:
    """In the carrier of an ordinary account: modes hold it back."""
    line = gate_line(house.site, house.key.with_suffix(".pub").read_text())
    house.server.authorize(line.replace('command="', f'command="{" ".join(ORDINARY)} '))
    manifest = house.site.home / "manifest.toml"
    manifest.write_text(manifest.read_text().replace('path = "in.txt"', f'path = "in.txt"{word}'))
    inodes = set()
    with gate_client(house, tmp_path) as client:
        for number in range(2):
            back = tmp_path / f"back-{number}"
            result = client.submit(a_double(tmp_path, 3_000_000)).result(back)
            sent = (tmp_path / "in.txt").read_bytes()
            assert (back / "out.txt").read_bytes() == sent + sent
            placed = house.site.home / "work" / "push" / result.job / "1" / "work" / "in.txt"
            inodes.add(placed.stat().st_ino)
    assert len(inodes) == (1 if word else 2)


def test_where_the_disk_clones_a_carrier_gives_each_job_its_own_of_one_that_it_keeps(
    tmp_path: Path,
) -> None:
    """Kills: a carrier without a stock, and jobs that could change each other's input."""
    base = tmp_path / "cloning"
    base.mkdir(mode=0o700)
    before = mounted(a_disk("xfs", tmp_path / "disk", 4 << 30), base) if MAY_MOUNT else []
    clones = MAY_MOUNT or can_clone(base)
    placed = []
    with gated_house(tmp_path, within=before) as house:
        settings = house.site.home / "agent.toml"
        settings.write_text(f'{settings.read_text()}[site]\nwork_base = "{base}"\n')
        with gate_client(house, tmp_path) as client:
            spec = a_double(tmp_path, 3_000_000)
            for number in range(2):
                back = tmp_path / f"back-{number}"
                placed.append(Path("push") / client.submit(spec).result(back).job / "1/work/in.txt")
        assert house.server.process is not None
        there = Path(f"/proc/{house.server.process.pid}/root{base}")
        first, second = (there / name for name in placed)
        kept = list(there.glob("push/.stock/*/*"))
        assert len(kept) == clones
        assert len({file.stat().st_ino for file in (first, second, *kept)}) == 2 + clones
        assert {shares_its_blocks(file) for file in (first, second, *kept)} == {clones}
        sent = (tmp_path / "in.txt").read_bytes()
        with second.open("r+b") as changed:
            changed.write(bytes(len(sent)))
            os.fsync(changed.fileno())
        assert {file.read_bytes() for file in (first, *kept)} == {sent}
        assert not shares_its_blocks(second)


def shares_its_blocks(file: Path) -> bool:
    """Say whether other files have blocks of ``file`` on the disk, too."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    program = shutil.which("filefrag", path=path)
    assert program is not None
    said = subprocess.run((program, "-v", str(file)), check=True, capture_output=True, text=True)
    return "shared" in said.stdout


def test_a_result_is_the_same_however_often_it_is_fetched(client: Client, tmp_path: Path) -> None:
    job = client.submit(a_double(tmp_path, 100_000))
    first = job.result(tmp_path / "one")
    second = client.job(job.id).result(tmp_path / "two")
    assert first.files[0].read_bytes() == second.files[0].read_bytes()


def test_what_the_manifest_does_not_permit_is_refused(client: Client, tmp_path: Path) -> None:
    job = client.submit(a_double(tmp_path, 10, ("secret.txt",)))
    with pytest.raises(JobRefused) as caught:
        job.result(tmp_path / "back")
    assert "output.not_permitted" in str(caught.value.params)


def test_a_submission_repeated_is_the_same_job(
    house: GatedHouse, client: Client, tmp_path: Path
) -> None:
    job_id = new_job_id()
    spec = JobSpec(site="kobe", command="wait", outputs=["out.txt"])
    first, second = (client.submit(spec, job_id=job_id) for _ in range(2))
    house.site.go.touch()
    assert first.result(tmp_path / "a").files
    assert second.result(tmp_path / "b").files
    assert house.site.starts() == 1


def test_a_running_job_is_cancelled_and_seen_dead(house: GatedHouse, client: Client) -> None:
    job = client.submit(JobSpec(site="kobe", command="wait"))
    until(lambda: house.site.starts() == 1)
    job.cancel()
    assert job.wait().state == "cancelled"
    workdir = house.site.witness.read_text().strip()
    assert not [pid for pid in _pids() if _cwd(pid) == workdir]


def test_another_submitter_sees_nothing_of_it(
    house: GatedHouse, client: Client, tmp_path: Path
) -> None:
    job = client.submit(a_double(tmp_path, 1000))
    job.wait()
    with gate_client(house, tmp_path, house.others) as stranger:
        with pytest.raises(NotFound):
            stranger.job(job.id)
        assert list(stranger.jobs()) == []


def test_an_unlisted_submitter_is_refused(house: GatedHouse, tmp_path: Path) -> None:
    manifest = house.site.home / "manifest.toml"
    manifest.write_text(manifest.read_text().replace('"alice", "bob"', '"bob"'))
    with gate_client(house, tmp_path) as client:
        job = client.submit(JobSpec(site="kobe", command="noop"))
        assert job.wait().state == "refused"


def test_a_killed_carrier_is_replaced_and_nothing_starts_twice(
    house: GatedHouse, client: Client, tmp_path: Path
) -> None:
    job = client.submit(JobSpec(site="kobe", command="wait", outputs=["out.txt"]))
    until(lambda: house.site.starts() == 1)
    for _ in range(5):
        until(house.site.carrier)
        first = house.site.carrier()
        house.site.kill_carrier()
        gone = (None, first)
        until(lambda gone=gone: visited(client, job.id) and house.site.carrier() not in gone)  # type: ignore[misc]
    house.site.go.touch()
    assert job.result(tmp_path / "back").files
    assert house.site.starts() == 1


def test_a_hundred_jobs_go_through_one_login(house: GatedHouse, client: Client) -> None:
    jobs = [client.submit(JobSpec(site="kobe", command="noop")) for _ in range(100)]
    assert {job.wait().state for job in jobs} == {"succeeded"}
    assert house.server.logins == 1


def test_the_sites_log_tells_of_pushed_jobs_as_of_pulled_ones(
    house: GatedHouse, client: Client, tmp_path: Path
) -> None:
    job = client.submit(a_double(tmp_path, 1000))
    job.result(tmp_path / "back")
    told = run(["site", "log", "--dir", house.site.home, "--job", job.id], timeout=60).stdout
    for word in ("offered", "accepted", "started", "ended", "released", "returned", "alice"):
        assert word in told


def test_no_process_is_left_when_all_is_done(house: GatedHouse, client: Client) -> None:
    client.submit(JobSpec(site="kobe", command="noop")).wait()
    until(lambda: house.site.carrier() is None)


def visited(client: Client, job_id: str) -> bool:
    """Ask the gate for the job: a visit is what heals."""
    return client.job(job_id).id == job_id


def _pids() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208


def _cwd(pid: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/cwd")  # noqa: PTH115 (it names no file)
    except OSError:
        return ""


def test_a_job_that_finds_no_room_in_its_time_ends_expired_and_never_starts(
    house: GatedHouse, client: Client, tmp_path: Path
) -> None:
    """The manifest lets eight run at once; the ninth is willing to wait for a second."""
    held = [client.submit(JobSpec(site="kobe", command="wait")) for _ in range(8)]
    until(lambda: house.site.starts() == len(held))
    spec = JobSpec(site="kobe", command="wait", queue_limit=timedelta(seconds=1))
    with pytest.raises(JobExpired):
        client.submit(spec).result(tmp_path / "late")
    house.site.go.touch()
    assert {job.wait().state for job in held} == {"succeeded"}
    assert house.site.starts() == len(held)


def test_the_sites_people_see_pushed_jobs_beside_those_of_the_broker(
    house: GatedHouse, client: Client
) -> None:
    done = client.submit(JobSpec(site="kobe", command="noop"))
    done.wait()
    job = client.submit(JobSpec(site="kobe", command="wait"))
    until(lambda: house.site.starts() == 1)
    status = at_site(house, "status")
    assert [row["job"] for row in status["open_jobs"]] == [job.id]
    assert status["carrier_pid"] == house.site.carrier()
    assert [row["job"] for row in at_site(house, "jobs")] == [job.id]
    assert [row["job"] for row in at_site(house, "jobs", "--all")] == [done.id, job.id]
    shown = at_site(house, "show", job.id)
    assert shown["run"]["work_dir"] == house.site.witness.read_text().strip()
    assert {entry["kind"] for entry in shown["log"]} >= {"offered", "accepted", "started"}


def at_site(house: GatedHouse, *words: str) -> Any:
    """Return what the site's own command line says."""
    done = run(["site", *words, "--dir", house.site.home, "--json"], timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
