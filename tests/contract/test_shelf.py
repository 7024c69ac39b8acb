"""What every ChunkShelf does, and what only packs on a disk can do wrong."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sekisho.adapters import shelf_directory
from sekisho.adapters.durable import CRASH_STATUS, CRASHPOINTS
from sekisho.adapters.shelf_directory import DirectoryShelf
from sekisho.adapters.shelf_memory import MemoryShelf
from sekisho.domain.errors import (
    Conflict,
    IntegrityError,
    NotFound,
    StorageFull,
    TooLarge,
    Unavailable,
)
from sekisho.site.push import ChunkShelf
from sekisho.wire.frames import Frame, digest_of, packed

SPACE = "alice"
DAY = timedelta(days=1)
#: Its payload says it is far more than a chunk.
BOMB = bytes.fromhex("28b52ffda0000000401500000000") + bytes(64)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "chunks"


@pytest.fixture(params=["memory", "directory"])
def shelf(request: pytest.FixtureRequest, root: Path) -> ChunkShelf:
    return MemoryShelf() if request.param == "memory" else DirectoryShelf(root)


@pytest.fixture
def packs(root: Path) -> DirectoryShelf:
    return DirectoryShelf(root)


def a_frame(text: str = "a chunk") -> Frame:
    return Frame(digest_of(text.encode()), text.encode())


def put(shelf: ChunkShelf, text: str = "a chunk", space: str = SPACE) -> str:
    frame = a_frame(text)
    shelf.put(space, [frame])
    return frame.digest


def content(shelf: ChunkShelf, digest: str, space: str = SPACE) -> bytes:
    return shelf.read(shelf.find(space, [digest])[digest]).opened()[1]


def files(root: Path, kind: str) -> list[Path]:
    return sorted(root.rglob(f"*.{kind}"))


# ---------------------------------------------------------------------------- every shelf


@pytest.mark.parametrize("data", [b"", b"x", bytes(960 << 10), os.urandom(960 << 10)])
@pytest.mark.parametrize("small", [True, False])
def test_bytes_come_back_as_they_were_put(shelf: ChunkShelf, data: bytes, small: bool) -> None:
    digest = digest_of(data)
    shelf.put(SPACE, [packed(digest, data) if small else Frame(digest, data)])
    assert content(shelf, digest) == data


def test_only_what_is_here_is_found(shelf: ChunkShelf) -> None:
    here = [put(shelf, f"number {n}") for n in range(5)]
    assert shelf.find(SPACE, [*here[:3], digest_of(b"never")]).keys() == set(here[:3])
    assert shelf.find(SPACE, []) == {}


def test_putting_again_is_no_error(shelf: ChunkShelf) -> None:
    assert put(shelf) == put(shelf)
    assert content(shelf, put(shelf)) == b"a chunk"


@pytest.mark.parametrize("other", ["bob", "", "../alice", "alice/"])
def test_no_space_learns_what_another_holds(shelf: ChunkShelf, other: str) -> None:
    digest = put(shelf)
    assert shelf.find(other, [digest]) == {}
    shelf.drop(other, datetime.now(UTC) + 9 * DAY)
    assert shelf.find(SPACE, [digest]).keys() == {digest}


def test_what_came_before_an_error_stays(shelf: ChunkShelf) -> None:
    def frames() -> Iterator[Frame]:
        yield a_frame("first")
        raise Conflict("fetch.busy")

    with pytest.raises(Conflict):
        shelf.put(SPACE, frames())
    wrong = Frame(digest_of(b"right"), b"wrong")
    with pytest.raises(IntegrityError):
        shelf.put(SPACE, [a_frame("second"), wrong, a_frame("third")])
    digests = [digest_of(text) for text in (b"first", b"second", b"right", b"third")]
    assert shelf.find(SPACE, digests).keys() == set(digests[:2])


def test_a_payload_that_grows_beyond_a_chunk_is_refused(shelf: ChunkShelf) -> None:
    with pytest.raises((TooLarge, IntegrityError)):
        shelf.put(SPACE, [Frame(digest_of(b""), BOMB, packed=True)])


def test_contents_are_copied_one_behind_the_other(shelf: ChunkShelf, tmp_path: Path) -> None:
    dice = random.Random(1)
    texts = [dice.randbytes(dice.randrange(1, 3000)) for _ in range(40)] + [bytes(9000)]
    for group in (texts[:15], texts[15:30], texts[30:]):
        shelf.put(SPACE, [packed(digest_of(text), text) for text in group])
    here = shelf.find(SPACE, map(digest_of, texts))
    chosen = [*texts[3:9], *texts[25:35], texts[40], *texts[:3], texts[5], texts[5]]
    with (tmp_path / "file").open("w+b") as file:
        assert shelf.copy([here[digest_of(text)] for text in chosen], file.fileno(), 7) is True
        assert file.read() == bytes(7) + b"".join(chosen)


def test_what_is_old_is_dropped_and_what_is_not_is_kept(shelf: ChunkShelf) -> None:
    digest = put(shelf)
    held = shelf.find(SPACE, [digest])[digest]
    shelf.drop(SPACE, datetime.now(UTC) - DAY)
    assert shelf.find(SPACE, [digest])
    shelf.drop(SPACE, datetime.now(UTC) + 2 * DAY)
    assert shelf.find(SPACE, [digest]) == {}
    with pytest.raises(NotFound):
        shelf.read(held)
    with pytest.raises(NotFound):
        shelf.copy([held], 1, 0)
    assert content(shelf, put(shelf)) == b"a chunk"


def test_what_is_wanted_is_kept_however_old(shelf: ChunkShelf) -> None:
    digest = put(shelf)
    shelf.drop(SPACE, datetime.now(UTC) + 9 * DAY, [digest_of(b"never"), digest])
    assert content(shelf, digest) == b"a chunk"
    shelf.drop(SPACE, datetime.now(UTC) + 9 * DAY, [digest_of(b"never")])
    assert shelf.find(SPACE, [digest]) == {}


def test_who_wants_what_is_asked_only_when_something_is_old(shelf: ChunkShelf) -> None:
    def asked() -> Iterator[str]:
        raise AssertionError
        yield

    put(shelf)
    shelf.drop(SPACE, datetime.now(UTC) - DAY, asked())
    with pytest.raises(AssertionError):
        shelf.drop(SPACE, datetime.now(UTC) + 9 * DAY, asked())


def test_there_is_room(shelf: ChunkShelf) -> None:
    assert shelf.free_bytes() > 1 << 20


# --------------------------------------------------------------------------------- packs


def test_another_process_finds_what_was_put(root: Path, packs: DirectoryShelf) -> None:
    digest = put(packs)
    assert content(DirectoryShelf(root), digest) == b"a chunk"


def test_small_jobs_share_a_pack(root: Path) -> None:
    """Killed by: a pack for each call, so that looking for a chunk opens thousands of files."""
    digests = [put(DirectoryShelf(root), f"number {n}") for n in range(20)]
    assert len(files(root, "pack")) == 1
    assert DirectoryShelf(root).find(SPACE, digests).keys() == set(digests)


def test_a_pack_grows_for_a_day_and_to_a_size(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000.0
    shelf = DirectoryShelf(root, now=lambda: now)
    put(shelf, "first")
    now += 90_000
    put(shelf, "second")
    assert len(files(root, "pack")) == 2
    monkeypatch.setattr(shelf_directory, "_PACK_BYTES", 10)
    put(shelf, "third goes where there is room")
    put(shelf, "fourth")
    assert len(files(root, "pack")) == 3
    shelf.drop(SPACE, datetime.fromtimestamp(now, UTC) + timedelta(minutes=1))
    assert len(files(root, "pack")) == len(files(root, "list")) == 2


def test_only_the_packs_that_hold_what_is_wanted_are_kept(root: Path) -> None:
    now = 1_800_000_000.0
    shelf = DirectoryShelf(root, now=lambda: now)
    digests = []
    for text in ("first", "second", "first", "third"):
        digests.append(put(shelf, text))
        now += 90_000
    shelf.drop(SPACE, datetime.fromtimestamp(now, UTC), digests[:1])
    assert len(files(root, "pack")) == len(files(root, "list")) == 1
    assert [content(shelf, digest) for digest in digests[:1]] == [b"first"]
    assert shelf.find(SPACE, digests[1:]).keys() == set(digests[:1])


@pytest.mark.parametrize("kind", ["list", "pack"])
def test_half_of_what_a_crash_left_is_dropped_in_time(
    root: Path, packs: DirectoryShelf, kind: str
) -> None:
    put(packs)
    files(root, kind)[0].unlink()
    packs.drop(SPACE, datetime.now(UTC))
    assert len(files(root, "list")) + len(files(root, "pack")) == 1
    packs.drop(SPACE, datetime.now(UTC) + 2 * DAY)
    assert files(root, "list") == files(root, "pack") == []


def test_many_at_once_put_into_packs_of_their_own(root: Path) -> None:
    def one(n: int) -> str:
        return put(DirectoryShelf(root), f"chunk {n % 50}")

    with ThreadPoolExecutor(8) as threads:
        digests = set(threads.map(one, range(200)))
    shelf = DirectoryShelf(root)
    assert len(digests) == 50
    assert all(digest_of(content(shelf, digest)) == digest for digest in digests)
    assert len(files(root, "pack")) <= 8


def test_all_of_a_long_call_is_listed_in_the_end(
    packs: DirectoryShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf_directory, "_STEP_BYTES", 1000)
    monkeypatch.setattr(shelf_directory, "_RECORDS_AT_ONCE", 7)
    texts = [f"number {n}" * (n % 40) for n in range(300)]
    packs.put(SPACE, map(a_frame, texts))
    for text in texts:
        assert content(packs, digest_of(text.encode())) == text.encode()


@pytest.mark.parametrize("damage", [b"", b"b chunk", b"shorter"[:3]])
def test_damage_is_never_read_and_is_healed_by_putting_again(
    root: Path, packs: DirectoryShelf, damage: bytes
) -> None:
    digest = put(packs)
    (pack,) = files(root, "pack")
    pack.write_bytes(damage)
    with pytest.raises(IntegrityError):
        content(packs, digest)
    assert packs.find(SPACE, [digest]) == {}
    assert content(packs, put(packs)) == b"a chunk"


def test_damage_is_copied_as_it_is_for_whoever_verifies(
    root: Path, packs: DirectoryShelf, tmp_path: Path
) -> None:
    digest = put(packs)
    held = packs.find(SPACE, [digest])[digest]
    (pack,) = files(root, "pack")
    pack.write_bytes(b"b ch")
    _touch(pack, 1)
    with (tmp_path / "file").open("w+b") as file:
        assert packs.copy([held], file.fileno(), 0) is False
        assert file.read() == b"b ch"


def _touch(file: Path, later_s: float) -> None:
    at = file.stat().st_mtime + later_s
    os.utime(file, (at, at))


@pytest.mark.parametrize(("touched_s", "later_s"), [(0.1, 0), (0, 4000), (0, -4000), (-1, 4000)])
def test_only_what_came_lately_and_was_not_touched_passes_for_verified(
    root: Path, tmp_path: Path, touched_s: float, later_s: float
) -> None:
    """Killed by: believing a pack for as long as it is kept, or after somebody has changed it."""
    now = time.time()
    shelf = DirectoryShelf(root, now=lambda: now)
    digest = put(shelf)
    held = shelf.find(SPACE, [digest])[digest]
    with (tmp_path / "file").open("w+b") as file:
        assert shelf.copy([held], file.fileno(), 0) is True
        _touch(files(root, "pack")[0], touched_s)
        now += later_s
        assert shelf.copy([held], file.fileno(), 0) is False


def test_a_system_that_copies_nothing_by_itself_is_helped(
    packs: DirectoryShelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: int) -> int:
        raise OSError(errno.EXDEV, "not between these")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    data = os.urandom(900 << 10)
    packs.put(SPACE, [Frame(digest_of(data), data), a_frame()])
    here = packs.find(SPACE, [digest_of(data), a_frame().digest])
    with (tmp_path / "file").open("w+b") as file:
        packs.copy(list(here.values()), file.fileno(), 0)
        assert file.read() == data + b"a chunk"


def test_a_torn_record_is_none_and_nothing_is_added_behind_it(
    root: Path, packs: DirectoryShelf
) -> None:
    first, second = put(packs, "first"), put(packs, "second")
    (listed,) = files(root, "list")
    listed.write_bytes(listed.read_bytes()[:-1])
    assert packs.find(SPACE, [first, second]).keys() == {first}
    third = put(packs, "third")
    assert len(files(root, "list")) == 2
    assert content(packs, third) == b"third"


def test_nothing_is_added_to_a_pack_that_is_longer_than_its_list_says(
    root: Path, packs: DirectoryShelf
) -> None:
    first = put(packs, "first")
    (pack,) = files(root, "pack")
    pack.write_bytes(b"first, and what a crash left")
    second = put(packs, "second")
    assert len(files(root, "pack")) == 2
    assert (content(packs, first), content(packs, second)) == (b"first", b"second")


def test_whoever_adds_to_a_pack_that_is_dropped_meanwhile_hears_so(
    root: Path, packs: DirectoryShelf
) -> None:
    def frames() -> Iterator[Frame]:
        yield a_frame()
        for file in [*files(root, "list"), *files(root, "pack")]:
            file.unlink()

    with pytest.raises(Unavailable):
        packs.put(SPACE, frames())


def test_a_full_disk_keeps_what_came_and_gives_back_the_rest(
    root: Path, packs: DirectoryShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = put(packs, "first")
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: _full(real, fd, bytes(data)))
    with pytest.raises(StorageFull):
        packs.put(SPACE, [a_frame("second"), a_frame("too much")])
    monkeypatch.undo()
    here = packs.find(SPACE, [first, digest_of(b"second"), put(packs, "third")])
    texts = {packs.read(held).payload for held in here.values()}
    assert texts == {b"first", b"second", b"third"}
    (pack,) = files(root, "pack")
    assert b"too much"[:4] not in pack.read_bytes()


def _full(write: object, fd: int, data: bytes) -> int:
    if data == b"too much":
        assert callable(write)
        write(fd, data[:4])
        raise OSError(errno.ENOSPC, "full")
    assert callable(write)
    return int(write(fd, data))


PUTS = """\
import sys
from pathlib import Path
from sekisho.adapters.shelf_directory import DirectoryShelf
from sekisho.wire.frames import Frame, digest_of
for n in range(4):
    text = b"number %d" % n
    DirectoryShelf(Path(sys.argv[1])).put("alice", [Frame(digest_of(text), text)])
    print(digest_of(text), flush=True)
"""


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize(
    "label", ["file.begun", "file.written", "file.synced", "append.written", "append.kept"]
)
def test_what_was_confirmed_outlives_a_crash_at_any_step(root: Path, label: str, nth: int) -> None:
    assert label in CRASHPOINTS
    ended = subprocess.run(
        [sys.executable, "-c", PUTS, str(root)],
        env=os.environ | {"SEKISHO_CRASHPOINT": f"{label}:{nth}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == (0 if (label, nth) == ("file.begun", 3) else CRASH_STATUS)
    confirmed = ended.stdout.split()
    shelf = DirectoryShelf(root)
    assert shelf.find(SPACE, confirmed).keys() == set(confirmed)
    for n in range(4):
        text = f"number {n}"
        for held in shelf.find(SPACE, [digest_of(text.encode())]).values():
            assert shelf.read(held).opened()[1] == text.encode()
        assert content(shelf, put(shelf, text)) == text.encode()
