"""A sealed copy is not hashed again, and whoever writes to it all the same is found out."""

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from sekisho.adapters import seal, staging
from sekisho.adapters.seal import Sealing, Seals
from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.domain.errors import Corrupt
from sekisho.domain.run import Run
from sekisho.site.workplace import Staged
from sekisho.transfer.cut import LEAST_BYTES
from sekisho.transfer.mount import kind_of
from sekisho.transfer.pack import SMALL_BYTES
from sekisho.transfer.remembered import Look
from sekisho.wire.frames import digest_of
from tests.hostile.yard import JOB, Yard

CONTENT = os.urandom(4 * SMALL_BYTES)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk: in memory (tmpfs) nothing is sealed."""
    fd = os.open(tmp_path, os.O_RDONLY)
    in_memory = kind_of(fd) == "tmpfs"
    os.close(fd)
    with TemporaryDirectory(dir="/var/tmp" if in_memory else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture
def yard(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Yard:
    monkeypatch.setattr(seal, "kind_of", lambda _: "ext4")
    return Yard(disk)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How long the contents were that were hashed when they were read."""
    seen: list[int] = []

    def digest(data: bytes) -> str:
        seen.extend([len(data)] if len(data) >= LEAST_BYTES // 2 else [])
        return digest_of(data)

    monkeypatch.setattr(staging, "digest_of", digest)
    return seen


def staged(yard: Yard) -> Staged:
    """Stage one large file; return its copy as another process finds it."""
    (yard.work / "big").write_bytes(CONTENT)
    made = yard.workplace.stage(yard.place, yard.collect().found, None)
    again = LocalWorkplace(yard.outside.parent / "base").staged(yard.place)
    assert again.seal == made.seal
    return again


def copy_of(yard: Yard) -> Path:
    files = Path(yard.place.staging_dir).iterdir()
    return next(file for file in files if file.stat().st_size == len(CONTENT))


def content(copy: Staged) -> bytes:
    return b"".join(map(copy.read, copy.tree.chunks()))


def test_what_is_sealed_is_read_without_hashing_it(yard: Yard, hashed: list[int]) -> None:
    copy = staged(yard)
    assert (content(copy), hashed) == (CONTENT, [])


def other(byte: int) -> bytes:
    return bytes([byte ^ 1])


def write(file: Path) -> None:
    with file.open("r+b", buffering=0) as opened:
        opened.write(other(CONTENT[0]))


def write_through_a_mapping(file: Path) -> None:
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
        assert mapped[:1] == CONTENT[:1]
        mapped[:1] = other(CONTENT[0])


def rename_over(file: Path) -> None:
    new = file.with_name("new")
    new.write_bytes(other(CONTENT[0]) + CONTENT[1:])
    new.replace(file)


def truncate_and_write(file: Path) -> None:
    os.truncate(file, 0)
    file.write_bytes(other(CONTENT[0]) + CONTENT[1:])


ATTACKS = (write, write_through_a_mapping, rename_over, truncate_and_write)
attacks = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)


def tamper(yard: Yard, attack: Callable[[Path], None]) -> None:
    """Change one byte of the copy, and put the time back."""
    file = copy_of(yard)
    before = file.stat()
    attack(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@attacks
def test_a_sealed_copy_that_was_written_to_is_found_out(
    yard: Yard, attack: Callable[[Path], None]
) -> None:
    copy = staged(yard)
    tamper(yard, attack)
    with pytest.raises(Corrupt, match=r"site\.staging_changed"):
        content(copy)


@attacks
def test_without_looking_at_the_seal_it_would_come_out(
    yard: Yard, attack: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The positive control: what the attacks change is what is read."""
    copy = staged(yard)
    monkeypatch.setattr(Seals, "hold", lambda *_: True)
    monkeypatch.setattr(staging, "leased", lambda _: True)
    assert content(copy) == CONTENT
    tamper(yard, attack)
    assert content(copy) == other(CONTENT[0]) + CONTENT[1:]


def test_a_mapping_that_outlives_its_descriptor_is_found_out(yard: Yard) -> None:
    copy = staged(yard)
    with copy_of(yard).open("r+b") as opened:
        mapped = mmap.mmap(opened.fileno(), 0)
    mapped[:1] = other(CONTENT[0])
    with pytest.raises(Corrupt, match=r"site\.staging_changed"):
        content(copy)
    mapped.close()


def test_while_somebody_has_it_open_for_writing_it_is_hashed(yard: Yard, hashed: list[int]) -> None:
    copy = staged(yard)
    with copy_of(yard).open("r+b"):
        assert content(copy) == CONTENT
    assert sum(hashed) == len(CONTENT)


def test_who_opens_it_for_writing_while_it_is_read_has_it_hashed(
    yard: Yard, hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = staged(yard)
    read = os.pread
    turned_away = []

    def disturbed(fd: int, length: int, offset: int) -> bytes:
        try:
            os.close(os.open(copy_of(yard), os.O_WRONLY | os.O_NONBLOCK))
        except BlockingIOError as error:  # but for that flag it would wait until we are through
            turned_away.append(error)
        return read(fd, length, offset)

    monkeypatch.setattr(os, "pread", disturbed)
    assert content(copy) == CONTENT
    assert turned_away
    assert sum(hashed) == len(CONTENT)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, None])
def test_who_opens_a_copy_in_the_making_keeps_it_from_being_sealed(
    yard: Yard, flags: int | None
) -> None:
    folder = os.open(yard.outside, os.O_RDONLY)
    file = yard.outside / "copy"
    sealing = Sealing(folder, 0.01)
    with file.open("wb") as made:
        sealing.watch("copy", made.fileno())
        made.write(CONTENT)
    if flags is not None:
        with pytest.raises(BlockingIOError):
            os.open(file, flags | os.O_NONBLOCK)
    assert set(sealing.seals().looks) == ({"copy"} if flags is None else set())
    os.close(folder)


def test_a_seal_that_was_made_up_belongs_to_no_recorded_copy(yard: Yard) -> None:
    copy = staged(yard)
    now = datetime.now(UTC)
    run = Run(job=JOB, epoch=1, submitter="alice", request=b"{}", taken_at=now)
    run = replace(run, tree=copy.tree.digest, seal=copy.seal)
    assert copy.recorded(run)
    tamper(yard, write)
    fd = os.open(copy_of(yard), os.O_RDONLY)
    forged = Seals({copy_of(yard).name: Look.at(fd)})
    os.close(fd)
    Path(yard.place.staging_dir, staging.SEALS_NAME).write_bytes(forged.text)
    again = yard.workplace.staged(yard.place)
    assert content(again)[1:] == CONTENT[1:]  # it is believed, by whoever does not compare
    assert not again.recorded(run)


def test_seals_that_make_no_sense_are_none(yard: Yard, hashed: list[int]) -> None:
    staged(yard)
    for text in (b"", b"[1]", b'{"a":[1]}', b"\xff"):
        Path(yard.place.staging_dir, staging.SEALS_NAME).write_bytes(text)
        again = yard.workplace.staged(yard.place)
        assert again.seal is None
        hashed.clear()
        assert content(again) == CONTENT
        assert sum(hashed) == len(CONTENT)


@pytest.mark.parametrize("age_s", [-1.0, 3601.0])
def test_an_old_seal_and_one_of_the_future_are_not_believed(
    yard: Yard, hashed: list[int], monkeypatch: pytest.MonkeyPatch, age_s: float
) -> None:
    copy = staged(yard)
    monkeypatch.setattr(Look, "age_s", property(lambda _: age_s))
    assert content(copy) == CONTENT
    assert sum(hashed) == len(CONTENT)


@pytest.mark.parametrize("kind", ["nfs4", "tmpfs", "fuse.sshfs", "overlay", ""])
def test_where_a_write_may_not_show_nothing_is_sealed(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(seal, "kind_of", lambda _: kind)
    assert staged(yard).seal is None


def test_nobody_waits_for_a_copy_that_is_made_or_was_read(yard: Yard) -> None:
    copy = staged(yard)
    os.close(os.open(copy_of(yard), os.O_RDWR | os.O_NONBLOCK))
    copy.read(copy.tree.chunks()[0])
    os.close(os.open(copy_of(yard), os.O_RDWR | os.O_NONBLOCK))


def test_nobody_waits_for_a_copy_that_failed(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(staging, "_chunks", fail)
    with suppress(KeyboardInterrupt):
        staged(yard)
    for file in Path(yard.place.staging_dir).iterdir():
        os.close(os.open(file, os.O_RDWR | os.O_NONBLOCK))


def test_any_number_of_copies_is_sealed_with_few_of_them_open(yard: Yard) -> None:
    open_files = []
    real = Look.at

    def counted(fd: int) -> Look:
        open_files.append(len(list(Path("/proc/self/fd").iterdir())))
        return real(fd)

    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(100):
        (yard.work / str(number)).write_bytes(CONTENT[: SMALL_BYTES + number])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Look, "at", counted)
        copy = yard.workplace.stage(yard.place, yard.collect().found, None)
    seals = Seals.read(Path(yard.place.staging_dir, staging.SEALS_NAME).read_bytes())
    assert (len(seals.looks), seals.digest) == (100, copy.seal)
    assert max(open_files) - before < 80
