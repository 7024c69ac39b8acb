"""The contract of `Workplace`: directories that are private, durable, and removed whole."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.domain.egress import Found
from sekisho.domain.errors import (
    Conflict,
    StorageFull,
    Unavailable,
    UsageError,
)
from sekisho.domain.files import RelPath
from sekisho.site.workplace import CollectCaps, Place, Workplace
from tests.contract.placing import (
    ALL,
    JOB,
    OTHER,
    Maker,
    leave,
    names_in,
    staged_content,
    staged_in,
)


@pytest.fixture
def workplace(maker: Maker) -> Workplace:
    return maker()


@pytest.fixture
def place(workplace: Workplace) -> Place:
    return workplace.prepare(JOB, 1)


@pytest.fixture
def _open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_place_is_known_before_it_is_made(workplace: Workplace) -> None:
    assert workplace.place(JOB, 3) == workplace.prepare(JOB, 3)


@pytest.mark.parametrize("job", ["", "..", "job_../../x", "job_" + "0" * 25, "/etc", JOB + "\n"])
def test_only_a_job_id_becomes_a_directory(workplace: Workplace, job: str) -> None:
    with pytest.raises(UsageError):
        workplace.place(job, 1)
    with pytest.raises(UsageError):
        workplace.purge(job)


@pytest.mark.usefixtures("_open_umask")
def test_directories_are_private_whatever_the_umask(workplace: Workplace) -> None:
    place = workplace.prepare(JOB, 1)
    staged_in(workplace, place)
    for directory in (place.work_dir, place.control_dir, place.staging_dir):
        for level in (Path(directory), *list(Path(directory).parents)[:3]):
            assert stat.S_IMODE(level.stat().st_mode) == 0o700, level


def test_of_a_running_job_small_plain_files_are_read_as_they_stand(
    adapter: str, workplace: Workplace, place: Place
) -> None:
    """A shell alone cannot hold on to a file that is being changed: through one nothing is seen."""
    leave(place, plain=b"abc", other=b"d", empty=b"")
    found = {str(file.path): file for file in workplace.collect(place).found}
    work = Path(place.work_dir)
    changed = Found(found["other"].path, 7)
    gone = Found(RelPath.parse("gone"), 1)
    (work / "linked").symlink_to("plain")
    linked = Found(RelPath.parse("linked"), 3)
    asked = [found["plain"], changed, gone, linked, found["empty"]]
    seen = {str(path): data for path, data in workplace.glimpse(place, asked)}
    holds = adapter in ("local", "ssh")
    assert seen == ({"plain": b"abc", "empty": b""} if holds else {})


def test_a_file_is_counted_without_being_read(maker: Maker) -> None:
    """Of a file with holes, nothing else would be over in our time."""
    workplace = maker(caps=CollectCaps(max_file_bytes=1 << 42))
    place = workplace.prepare(JOB, 1)
    leave(place, **{"a b": b"12", "holes": b""})
    os.truncate(Path(place.work_dir, "holes"), 1 << 40)
    found = {str(file.path): file.size for file in workplace.collect(place).found}
    assert found == {"a b": 2, "holes": 1 << 40}


def test_attempts_and_jobs_do_not_share_directories(workplace: Workplace) -> None:
    places = [workplace.prepare(job, n) for job in (JOB, OTHER) for n in (1, 2)]
    assert len({p.work_dir for p in places} | {p.control_dir for p in places}) == 8


def test_staging_is_outside_of_the_work_directory(place: Place) -> None:
    assert not Path(place.staging_dir).is_relative_to(place.work_dir)
    assert not Path(place.control_dir).is_relative_to(place.work_dir)


def test_preparing_again_keeps_what_a_fetch_has_begun_and_empties_control(
    workplace: Workplace, place: Place
) -> None:
    leave(place, part=b"half")
    (Path(place.control_dir) / "stdout").write_bytes(b"old")
    assert workplace.prepare(JOB, 1) == place
    assert names_in(place.work_dir) == ["part"]
    assert names_in(place.control_dir) == []


@pytest.mark.parametrize("whose", [".", "0", "17"])
@pytest.mark.parametrize("kind", ["directory", "file", "dangling link"])
def test_an_attempt_whose_latch_was_taken_is_never_prepared_again(
    workplace: Workplace, place: Place, kind: str, whose: str
) -> None:
    """Kills: the latches of an array's elements swept away with what else is in the directory."""
    latch = Path(place.control_dir, whose, "latch")
    latch.parent.mkdir(exist_ok=True)
    takers: dict[str, Callable[[], None]] = {
        "directory": latch.mkdir,
        "file": latch.touch,
        "dangling link": lambda: latch.symlink_to("nowhere"),
    }
    takers[kind]()
    (Path(place.control_dir) / "stdout").write_bytes(b"kept")
    with pytest.raises(Conflict) as refusal:
        workplace.prepare(JOB, 1)
    assert refusal.value.code == "site.attempt_started"
    assert (Path(place.control_dir) / "stdout").read_bytes() == b"kept"
    workplace.prepare(JOB, 2)


def test_preparing_without_room_is_storage_full(maker: Maker) -> None:
    with pytest.raises(StorageFull) as fault:
        maker(spare_bytes=1 << 62).prepare(JOB, 1)
    assert fault.value.code == "site.disk_full"


@pytest.mark.parametrize(
    "ruin",
    [
        pytest.param(lambda base: base.write_text(""), id="a file"),
        pytest.param(lambda base: base.symlink_to("nowhere"), id="a dangling link"),
        pytest.param(lambda base: (base.mkdir(), base.chmod(0o777)), id="open to all"),
        pytest.param(lambda base: (base.mkdir(), base.chmod(0o770)), id="open to a group"),
    ],
)
def test_a_base_that_is_not_ours_alone_is_refused(
    maker: Maker, base: Path, ruin: Callable[[Path], object]
) -> None:
    ruin(base)
    with pytest.raises(Unavailable) as fault:
        maker().prepare(JOB, 1)
    assert fault.value.code == "site.work_base"
    assert str(base.parent) not in str(fault.value)


def test_a_base_whose_parent_is_missing_is_not_invented(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as fault:
        LocalWorkplace(tmp_path / "not" / "mounted").prepare(JOB, 1)
    assert fault.value.params == {"why": errno.errorcode[errno.ENOENT]}


def test_purging_removes_every_attempt_and_no_other_job(workplace: Workplace) -> None:
    for job, attempt in ((JOB, 1), (JOB, 2), (OTHER, 1)):
        leave(workplace.prepare(job, attempt), a=b"1")
    assert workplace.purge(JOB)
    assert not Path(workplace.place(JOB, 1).work_dir).parents[1].exists()
    assert names_in(workplace.place(OTHER, 1).work_dir) == ["a"]


def test_purging_what_is_not_there_is_done(workplace: Workplace) -> None:
    assert workplace.purge(JOB)
    assert workplace.purge(JOB)


def test_the_jobs_that_have_directories_are_listed(tmp_path: Path) -> None:
    workplace = LocalWorkplace(tmp_path / "base")
    assert workplace.jobs() == []
    for job in (OTHER, JOB):
        workplace.prepare(job, 1)
    (tmp_path / "base" / "notes.txt").touch()
    assert workplace.jobs() == [JOB, OTHER]
    workplace.purge(JOB)
    assert workplace.jobs() == [OTHER]


def test_free_room_is_what_the_disk_has_but_the_spare(tmp_path: Path) -> None:
    plenty = LocalWorkplace(tmp_path / "base", spare_bytes=0).free_bytes()
    assert 0 < plenty <= os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize
    assert LocalWorkplace(tmp_path / "base", spare_bytes=1 << 62).free_bytes() == 0


def test_no_descriptor_stays_open(workplace: Workplace, place: Place) -> None:
    def cycle() -> None:
        leave(place, a=b"1")
        (Path(place.work_dir) / "link").unlink(missing_ok=True)
        (Path(place.work_dir) / "link").symlink_to("a")
        staged = workplace.stage(place, workplace.collect(place).found, (ALL, ALL))
        staged_content(workplace.staged(place))
        staged_content(staged)
        workplace.purge(OTHER)

    cycle()
    before = names_in("/proc/self/fd")
    cycle()
    assert names_in("/proc/self/fd") == before
