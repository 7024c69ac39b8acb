"""A site where nothing is installed: what today's users of the SSH mode have, row by row."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sekisho.adapters.bare_files import Quarantine
from sekisho.adapters.hosts import bare
from sekisho.client.client import Client, new_job_id
from sekisho.client.errors import CommandFailed
from sekisho.client.job import Job
from sekisho.client.spec import JobSpec
from sekisho.domain.errors import Conflict, NotFound, Refused, SekishoError
from sekisho.domain.job import JobState
from tests.bare_site import SITE, BareWorld, bare_world
from tests.sshd import ordinary_user, serving
from tests.waiting import until
from tests.wire import wire

MIB = 1 << 20
SCRIPT = Path(bare.__file__).with_name("bare.sh")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BareWorld]:
    with bare_world(tmp_path_factory.mktemp("bare")) as world:
        world.program("noop", "true")
        world.program("say", 'printf "%s\\n" "$@"; echo aside >&2; echo "$CALC_DIR"', "{a}", "a b")
        world.program("copy", "cat *.inp >out.txt; mkdir -p d; echo 1 >d/one.csv; echo 2 >d/.two")
        world.program("fail", "echo why; exit 3")
        world.program("hold", "echo up >up; while [ ! -e go ]; do sleep 0.05; done; echo done >out")
        world.program("stray", "sleep 600 & setsid sleep 601 & echo left >out")
        world.program("links", "ln -s /etc/passwd out; mkfifo pipe; echo x >good; ln good second")
        world.program("count", f'echo started >>"{world.place}/starts"')
        old = "head -c 3145728 /dev/urandom >large; echo run >tool; chmod 755 tool"
        world.program("old", f"{old}; touch -d @1000000000 large tool")
        yield world


@pytest.fixture
def client(shared: BareWorld) -> Iterator[Client]:
    with shared.client() as here:
        yield here


def spec(command: str, **words: object) -> JobSpec:
    return JobSpec(site=SITE, command=command, **words)  # type: ignore[arg-type]


def seen_running(world: BareWorld, job: Job) -> None:
    while not (world.job_directory(job.id) / "work" / "up").exists():
        job.refresh()


def test_the_work_directory_is_private_and_named_by_the_job(
    shared: BareWorld, client: Client
) -> None:
    job = client.submit(spec("noop"))
    job.wait()
    place = shared.job_directory(job.id)
    assert [oct(p.stat().st_mode & 0o777) for p in (place, place / "work")] == ["0o700"] * 2


def test_arguments_arrive_as_they_were_given(client: Client, tmp_path: Path) -> None:
    text = 'it\'s $HOME `id` "*" ; | & \\ 日本語 %s'
    client.submit(spec("say", parameters={"a": text})).result(tmp_path)
    log = (tmp_path / "remote_program_exec.log").read_text().splitlines()
    assert log[:3] == [text, "a b", "aside"]


@pytest.mark.parametrize(
    ("command", "parameters", "code"),
    [
        ("rm", {}, "bare.no_program"),
        ("say", {}, "parameter.missing"),
        ("noop", {"a": "1"}, "parameter.unknown"),
        ("say", {"a": "x\0y"}, "parameter.invalid"),
        ("say", {"a": "x\ny"}, "parameter.invalid"),
    ],
)
def test_only_what_was_agreed_is_run(
    client: Client, command: str, parameters: dict[str, str], code: str
) -> None:
    with pytest.raises(Refused) as refused:
        client.submit(spec(command, parameters=parameters))
    assert refused.value.code == code


def test_inputs_follow_links_and_come_under_their_names(client: Client, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "real").write_text("content\n")
    (tmp_path / "link.inp").symlink_to(tmp_path / "far" / "real")
    job = client.submit(spec("copy", inputs={"x.inp": tmp_path / "link.inp"}))
    result = job.result(tmp_path / "back")
    assert (tmp_path / "back" / "out.txt").read_text() == "content\n"
    assert sorted(f.name for f in result.files) == [".two", "one.csv", "out.txt"]


def test_only_the_files_asked_for_come_back(client: Client, tmp_path: Path) -> None:
    (tmp_path / "a.inp").write_text("1")
    inputs = [tmp_path / "a.inp"]
    job = client.submit(spec("copy", inputs=inputs, outputs=["d/*.csv", "out.txt"]))
    names = {str(f.relative_to(tmp_path / "r")) for f in job.result(tmp_path / "r").files}
    assert names == {"d/one.csv", "out.txt"}


def test_a_file_asked_for_that_is_not_there_fails_the_job(client: Client, tmp_path: Path) -> None:
    job = client.submit(spec("noop", outputs=["stress.csv"]))
    with pytest.raises(CommandFailed) as failed:
        job.result(tmp_path)
    assert (failed.value.result.code, failed.value.result.exit_code) == ("output.missing", 0)


def test_a_failure_tells_its_exit_code_and_brings_the_log(client: Client, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed) as failed:
        client.submit(spec("fail")).result(tmp_path)
    assert failed.value.result.exit_code == 3
    assert (tmp_path / "remote_program_exec.log").read_text() == "why\n"


def test_a_long_log_comes_back_whole(shared: BareWorld, tmp_path: Path) -> None:
    shared.program("chatter", "yes sekisho | head -c 3000000")
    with shared.client() as client:
        client.submit(spec("chatter")).result(tmp_path)
    log = (tmp_path / "remote_program_exec.log").read_bytes()
    assert log == (b"sekisho\n" * 375_000)


def test_links_pipes_and_second_names_stay_there(client: Client, tmp_path: Path) -> None:
    result = client.submit(spec("links")).result(tmp_path / "r")
    assert sorted(f.name for f in result.files) == ["good", "second"]
    assert not any(f.is_symlink() for f in (tmp_path / "r").iterdir())


def test_nothing_that_the_program_left_running_lives_on(shared: BareWorld, client: Client) -> None:
    job = client.submit(spec("stray"))
    job.wait()
    mark = f"CALC_DIR={shared.job_directory(job.id)}/work".encode()
    assert [pid for pid, words in _environments().items() if mark in words] == []


def _environments() -> dict[str, bytes]:
    found = {}
    for place in Path("/proc").iterdir():
        try:
            found[place.name] = (place / "environ").read_bytes() if place.name.isdigit() else b""
        except OSError:
            continue
    return found


def test_the_same_id_is_the_same_job_and_another_request_is_a_conflict(client: Client) -> None:
    job_id = new_job_id()
    first = client.submit(spec("noop"), job_id=job_id)
    assert client.submit(spec("noop"), job_id=job_id).id == first.id
    with pytest.raises(Conflict) as conflict:
        client.submit(spec("fail"), job_id=job_id)
    assert conflict.value.code == "job.different_request"


def test_however_often_and_from_wherever_it_is_started_it_runs_once(shared: BareWorld) -> None:
    job_id = new_job_id()
    (shared.place / "starts").unlink(missing_ok=True)

    def submit(n: int) -> str:
        return job.submit(spec("count"), job_id=job_id).wait().state if n >= 0 else ""

    with shared.client() as job, ThreadPoolExecutor(8) as pool:
        states = set(pool.map(submit, range(16)))
    assert states == {JobState.SUCCEEDED}
    assert (shared.place / "starts").read_text() == "started\n"


def test_a_running_job_that_is_cancelled_is_seen_dead(shared: BareWorld, client: Client) -> None:
    job = client.submit(spec("hold"))
    seen_running(shared, job)
    job.cancel()
    assert job.wait(60).state == JobState.CANCELLED


def test_a_job_that_ignores_the_asking_is_ended_and_said_so(shared: BareWorld) -> None:
    shared.program("stubborn", 'trap "" TERM; echo up >up; while :; do sleep 0.1; done')
    with shared.client() as client:
        job = client.submit(spec("stubborn"))
        seen_running(shared, job)
        job.cancel()
        assert job.wait(60).state == JobState.CANCELLED


def test_a_base_below_the_home_is_the_same_for_every_step(tmp_path: Path) -> None:
    """Kills: a `~` that is a folder's name; a deaf job that nobody ends below a relative base."""
    home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    base = home / f".sekisho-trial-{os.getpid()}"
    given = tmp_path / "in.dat"
    given.write_text("x")
    with bare_world(tmp_path) as world:
        world.program("stubborn", 'trap "" TERM; echo up >up; while :; do sleep 0.1; done')
        world.program("copy", "cat in.dat >out")
        world.base_text = f"~/{base.name}"
        try:
            with world.client() as client:
                done = client.submit(spec("copy", inputs=[given])).result(tmp_path / "r")
                assert done.exit_code == 0
                held = client.submit(spec("stubborn"))
                until((base / held.id / "work" / "up").exists)
                held.cancel()
                assert held.wait(60).state == JobState.CANCELLED
        finally:
            shutil.rmtree(base, ignore_errors=True)


def test_a_job_that_ended_before_it_was_cancelled_has_its_own_outcome(
    shared: BareWorld, client: Client
) -> None:
    job = client.submit(spec("hold"))
    seen_running(shared, job)
    (shared.job_directory(job.id) / "work" / "go").touch()
    while not (shared.job_directory(job.id) / "control" / "exit").exists():
        pass
    job.cancel()
    assert job.wait(60).state == JobState.SUCCEEDED


def test_a_job_whose_inputs_never_came_is_cancelled_without_a_start(
    shared: BareWorld, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "x.inp").write_text("1")
    known: list[str] = []

    def stop(job_id: str) -> None:
        known.append(job_id)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.submit(spec("copy", inputs=[tmp_path / "x.inp"]), on_known=stop)
    job = client.job(known[0])
    assert job.view.state == JobState.DRAFT
    assert job.cancel().state == JobState.CANCELLED
    assert not (shared.job_directory(job.id) / "control" / "latch" / "start").exists()
    assert job.wait().state == JobState.CANCELLED


def test_a_job_of_which_nothing_is_left_is_lost_and_never_run_again(
    shared: BareWorld, client: Client
) -> None:
    job = client.submit(spec("hold"))
    seen_running(shared, job)
    mark = f"CALC_DIR={shared.job_directory(job.id)}/work".encode()
    for pid, words in _environments().items():
        if mark in words.split(b"\0"):
            with suppress(ProcessLookupError):  # its parent was before it
                os.kill(int(pid), 9)
    assert job.wait(60).state == JobState.LOST
    assert client.job(job.id).wait().state == JobState.LOST


def test_another_host_of_the_workflow_side_can_wait_for_it(
    shared: BareWorld, client: Client, tmp_path: Path
) -> None:
    job = client.submit(spec("hold"))
    seen_running(shared, job)
    with shared.client("other-state") as other:
        there = other.job(job.id)
        assert there.view.state == JobState.RUNNING
        (shared.job_directory(job.id) / "work" / "go").touch()
        files = there.result(tmp_path / "other").files
    mine = job.result(tmp_path / "mine").files
    assert [f.read_text() for f in files] == [f.read_text() for f in mine]
    assert {f.name for f in mine} == {"up", "go", "out"}


def test_a_result_can_be_fetched_again_and_is_the_same(client: Client, tmp_path: Path) -> None:
    job = client.submit(spec("say", parameters={"a": "x"}))
    job.result(tmp_path / "one")
    client.job(job.id).result(tmp_path / "two")
    name = "remote_program_exec.log"
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_what_ended_while_nobody_looked_is_not_waited_for(
    shared: BareWorld, client: Client, tmp_path: Path
) -> None:
    """Killed by: a look that waits 25 s for news of a job whose end was seen at submission."""
    job_id = new_job_id()
    client.submit(spec("noop"), job_id=job_id)
    while not (shared.job_directory(job_id) / "control" / "exit").exists():
        pass
    began = time.monotonic()
    client.submit(spec("noop"), job_id=job_id).result(tmp_path)
    assert time.monotonic() - began < 20


def test_a_job_that_nobody_knows_is_not_found(client: Client) -> None:
    with pytest.raises(NotFound):
        client.job(new_job_id())


@pytest.mark.parametrize("in_its_place", ["nothing", "an empty directory"])
def test_a_job_whose_file_system_is_away_is_waited_for_and_goes_on(
    tmp_path: Path, in_its_place: str
) -> None:
    """Kills: a base that is not mounted taken for a job that is not there, or started again."""
    paused = threading.Event()
    codes: list[str] = []

    def on_pause(error: SekishoError | None, _seconds: float) -> None:
        if error is not None:
            codes.append(error.code)
            paused.set()

    with bare_world(tmp_path) as world:
        wait = "while [ ! -e go ]; do sleep 0.05; done; echo done >out"
        world.program("hold", f"echo >>{world.place}/starts; echo up >up; {wait}")
        with world.client(on_pause=on_pause) as client, ThreadPoolExecutor(1) as pool:
            job = client.submit(spec("hold"))
            seen_running(world, job)
            away = world.base.rename(world.place / "unmounted")
            if in_its_place != "nothing":
                world.base.mkdir(0o700)
            again = world.sekisho("run", SITE, "hold", "--id", job.id, "--into", "again")
            try:
                (listed,) = client.jobs()
                waiting = pool.submit(job.result, tmp_path / "back")
                assert paused.wait(120)
                assert again.stderr
                told = iter(again.stderr.readline, "")
                assert any(str(world.base) in line for line in told)
            finally:
                (away / job.id / "work" / "go").touch()
                shutil.rmtree(world.base, ignore_errors=True)
                away.rename(world.base)
            assert waiting.result(120).exit_code == 0
            again.communicate(timeout=120)
        assert again.returncode == 0
        assert (world.place / "starts").read_text() == "\n"
    assert (listed.state, listed.attention) == ("running", "site_unreachable")
    assert set(codes) == {"bare.away"}


@pytest.mark.parametrize(
    ("mode", "number", "word"),
    [
        (None, "", "away"),
        (0o500, "", "away"),
        (0o700, "", "absent"),
        (0o700, "@{}", "absent"),
        (0o700, "@{}1", "away"),
    ],
)
def test_what_could_not_have_held_a_job_does_not_say_that_there_is_none(
    mode: int | None, number: str, word: str
) -> None:
    """An empty mount point is root's, as a rule; its reader is an ordinary user here."""
    account = pwd.getpwnam(ordinary_user())
    place = Path(tempfile.mkdtemp(prefix="sk-"))
    try:
        place.chmod(0o755)
        base = place / "base"
        if mode is not None:
            base.mkdir(mode)
            os.chown(base, account.pw_uid, account.pw_gid)
        job = new_job_id() + number.format(base.stat().st_ino if number else "")
        for verb, rest in (("look", ["0", f"{job}=running"]), ("record", [job])):
            done = subprocess.run(
                ["sh", "-c", SCRIPT.read_text(), "sekisho", verb, str(base), *rest],
                user=account.pw_uid if os.geteuid() == 0 else None,
                cwd="/",
                capture_output=True,
                text=True,
                check=True,
            )
            assert word in done.stdout.split(), done
    finally:
        shutil.rmtree(place)


def test_what_an_earlier_job_has_there_is_not_sent_again(
    shared: BareWorld, client: Client, tmp_path: Path
) -> None:
    big = tmp_path / "mesh.inp"
    big.write_bytes(os.urandom(8 * MIB))
    sent = []
    for name in ("a", "b", "c"):
        before = shared.line.out
        client.submit(spec("noop", inputs=[big])).wait()
        sent.append(shared.line.out - before)
        if name == "b":
            data = bytearray(big.read_bytes())
            data[MIB : MIB + 80_000] = os.urandom(80_000)
            big.write_bytes(data)
    whole, again, changed = sent
    assert whole > 8 * MIB
    assert again < whole // 50
    assert changed < whole // 20


def test_what_another_submitter_has_there_is_never_a_cache(
    shared: BareWorld, client: Client, tmp_path: Path
) -> None:
    """Two submitters with one account at the site: whoever has the same file sends it whole."""
    big = tmp_path / "mesh.inp"
    big.write_bytes(os.urandom(4 * MIB))
    client.submit(spec("noop", inputs=[big])).wait()
    sent = []
    with shared.client("another-submitter") as other:
        for _ in range(2):
            before = shared.line.out
            other.submit(spec("noop", inputs=[big])).wait()
            sent.append(shared.line.out - before)
    whole, again = sent
    assert whole > 4 * MIB
    assert again < MIB // 2  # its own, from then on


def test_old_jobs_are_removed_and_others_stay(shared: BareWorld, client: Client) -> None:
    """Kills: removing what has run for longer than ended jobs are kept."""
    old, fresh, held = (client.submit(spec(c)) for c in ("noop", "noop", "hold"))
    old.wait()
    fresh.wait()
    seen_running(shared, held)
    record = shared.job_directory(old.id) / "control" / "exit"
    for place in (record, shared.job_directory(held.id)):
        os.utime(place, (0, 0))
    for mark in (shared.place / "state" / "sekisho" / "jobs").glob(".cleaned-*"):
        mark.unlink()
    fresh.fetch(shared.place / "fresh")
    assert not shared.job_directory(old.id).exists()
    assert shared.job_directory(fresh.id).exists()
    assert shared.job_directory(held.id).exists()
    held.cancel()


def test_a_hundred_small_jobs_take_one_login(tmp_path: Path) -> None:
    with bare_world(tmp_path) as world:
        world.program("noop", "echo $1", "{n}")
        with world.client() as client, ThreadPoolExecutor(12) as pool:
            jobs = pool.map(
                lambda n: client.submit(spec("noop", parameters={"n": str(n)})).wait().state,
                range(100),
            )
            assert list(jobs) == [JobState.SUCCEEDED] * 100
            listed = list(client.jobs())
        assert len(listed) == 100
        assert world.server.logins == 1


def test_an_ordinary_user_keeps_jobs_below_the_home(tmp_path: Path) -> None:
    user = ordinary_user()
    with bare_world(tmp_path) as world, serving(tmp_path / "b", user=user) as far:
        with wire(far.port) as line:
            world.server, kept, world.line = far, (world.server, world.line), line
            world.programs["whoami"] = ["/usr/bin/id", "-un"]
            world.place.joinpath("client.toml").unlink()
            world.base_text = "sekisho-jobs"
            with world.client() as client:
                client.submit(spec("whoami")).result(tmp_path / "r")
            world.disconnect()
            world.server, world.line = kept
        assert (tmp_path / "r" / "remote_program_exec.log").read_text().strip() == user
        subprocess.run(
            ["rm", "-rf", os.path.expanduser(f"~{user}/sekisho-jobs")],  # noqa: PTH111
            check=True,
        )


def test_the_same_commands_serve_every_kind_of_site(shared: BareWorld, tmp_path: Path) -> None:
    words = ("run", SITE, "say", "-p", "a=x", "--into", str(tmp_path), "--quiet")
    with shared.sekisho(*words) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.strip() == str(tmp_path / "remote_program_exec.log")
    with shared.sekisho("run", SITE, "fail", "--into", str(tmp_path)) as process:
        process.communicate(timeout=60)
    assert process.returncode == 3
    with shared.sekisho("jobs") as process:
        listed = process.communicate(timeout=60)[0]
    assert "job_" in listed
    with shared.sekisho("sites") as process:
        assert process.communicate(timeout=60)[0].startswith(SITE)


def test_outputs_are_moved_into_the_result_with_modes_and_times_of_its_own(
    shared: BareWorld, client: Client, tmp_path: Path
) -> None:
    job = client.submit(spec("old"))
    job.wait()
    back = shared.place / "state" / "sekisho" / "jobs" / job.id / "back" / "work"
    inodes = {name: (back / name).stat().st_ino for name in ("large", "tool")}
    began = time.time() - 2
    job.fetch(tmp_path / "r")
    for name, mode in (("large", 0o644), ("tool", 0o755)):
        seen = (tmp_path / "r" / name).stat()
        assert seen.st_ino == inodes[name]
        assert stat.S_IMODE(seen.st_mode) == mode & ~umask()
        assert seen.st_mtime >= began
        assert seen.st_nlink == 1


def test_what_was_moved_away_or_changed_is_brought_again(
    shared: BareWorld, client: Client, tmp_path: Path
) -> None:
    job = client.submit(spec("old"))
    job.wait()
    back = shared.place / "state" / "sekisho" / "jobs" / job.id / "back" / "work"
    (back / "large").rename(tmp_path / "taken")  # as by a call that was killed just then
    (back / "tool").write_bytes(b"forged")
    with shared.client() as other:
        other.job(job.id).fetch(tmp_path / "r")
    assert (tmp_path / "r" / "large").read_bytes() == (tmp_path / "taken").read_bytes()
    assert (tmp_path / "r" / "tool").read_text() == "run\n"


def test_whoever_has_the_result_may_drop_it_at_any_moment_for_others_that_fetch_it(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another process does as soon as nobody holds the files, and as late as it may.

    Killed by: bringing them again under the lock, and reading them after it.
    """
    job = client.submit(spec("old"))
    job.wait()
    held, dropped = Quarantine.held, []

    @contextmanager
    def held_then_dropped(here: Quarantine) -> Iterator[None]:
        with held(here):
            yield
            dropped.append(here.work.exists())
            shutil.rmtree(here.work, ignore_errors=True)

    monkeypatch.setattr(Quarantine, "held", held_then_dropped)
    job.fetch(tmp_path / "r")
    assert (tmp_path / "r" / "large").stat().st_size == 3 * MIB
    assert (tmp_path / "r" / "tool").read_text() == "run\n"
    assert True in dropped


def test_a_forged_file_is_never_taken_for_the_result(
    shared: BareWorld, client: Client, tmp_path: Path
) -> None:
    job = client.submit(spec("old"))
    job.wait()
    back = shared.place / "state" / "sekisho" / "jobs" / job.id / "back" / "work"
    (back / "tool").write_bytes(b"evil")  # of the same size, and behind our own back
    job.fetch(tmp_path / "r")
    assert (tmp_path / "r" / "tool").read_text() == "run\n"


def test_on_another_file_system_outputs_are_copied(client: Client) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        result = client.submit(spec("old")).result(elsewhere)
        assert {file.name for file in result.files} == {"large", "tool"}


def test_files_are_seen_to_come(shared: BareWorld, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with shared.client(on_bring=lambda done, total: seen.append((done, total))) as watched:
        watched.submit(spec("old")).result(tmp_path / "r")
    total = 3 * MIB + len("run\n")
    assert seen[0] == (0, total)
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)
    assert len(seen) > 2


def umask() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("Umask:"))[6:], 8)
