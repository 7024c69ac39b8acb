"""What every BlobStore does, and what only a directory can do wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sekisho.adapters.blobs_directory import BlobDirectory
from sekisho.adapters.blobs_memory import MemoryBlobs
from sekisho.adapters.durable import TEMPORARY
from sekisho.broker.ports import BlobStore
from sekisho.domain.errors import Corrupt, IntegrityError, NotFound, StorageFull, Unavailable
from sekisho.wire.frames import PACKED_MAGIC, Chunk, Frame, digest_of, packed
from tests.world import DAY, a_chunk

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SPACE = "one/alice"
NEVER = digest_of(b"never stored")


def put(blobs: BlobStore, text: str = "a chunk", *, space: str = SPACE) -> str:
    chunk, data = a_chunk(text)
    blobs.put(space, [Frame(chunk.digest, data)])
    return chunk.digest


def now() -> datetime:
    return datetime.now(UTC)


@pytest.mark.parametrize("data", [b"", b"x", bytes(960 << 10), os.urandom(4096)])
def test_bytes_come_back_as_they_were_put(blobs: BlobStore, data: bytes) -> None:
    digest = digest_of(data)
    blobs.put(SPACE, [Frame(digest, data)])
    assert blobs.read(SPACE, digest).payload == data


def test_putting_again_is_no_error(blobs: BlobStore) -> None:
    assert put(blobs) == put(blobs)
    assert list(blobs.older(now() + DAY)) == [(SPACE, put(blobs))]


def test_many_threads_may_put_the_same_chunk(blobs: BlobStore) -> None:
    with ThreadPoolExecutor(8) as threads:
        digests = set(threads.map(lambda n: put(blobs, f"chunk {n % 5}"), range(80)))
    assert len(digests) == 5
    assert blobs.missing(SPACE, sorted(digests)) == []


def test_bytes_under_a_wrong_name_are_refused(blobs: BlobStore) -> None:
    with pytest.raises(IntegrityError):
        blobs.put(SPACE, [Frame(NEVER, b"other bytes")])
    assert blobs.missing(SPACE, [NEVER]) == [NEVER]


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "a" * 63, "/" + "a" * 63])
def test_a_name_that_is_no_digest_leads_nowhere(blobs: BlobStore, name: str) -> None:
    with pytest.raises(IntegrityError):
        blobs.put(SPACE, [Frame(name, b"")])
    with pytest.raises((IntegrityError, NotFound)):
        blobs.read(SPACE, name)


def test_what_is_missing_is_told_in_the_order_of_the_question(blobs: BlobStore) -> None:
    there = put(blobs)
    others = [digest_of(bytes([n])) for n in range(5)]
    asked = [*others[:2], there, *others[2:]]
    assert blobs.missing(SPACE, asked) == others
    assert blobs.missing(SPACE, []) == []


@pytest.mark.parametrize("other", ["one/bob", "two/alice", "", "../alice", "one/alice/"])
def test_no_space_learns_what_another_holds(blobs: BlobStore, other: str) -> None:
    digest = put(blobs)
    assert blobs.missing(other, [digest]) == [digest]
    with pytest.raises(NotFound):
        blobs.read(other, digest)
    blobs.delete(other, [digest])
    assert blobs.missing(SPACE, [digest]) == []


def test_what_was_never_put_is_not_found(blobs: BlobStore) -> None:
    with pytest.raises(NotFound):
        blobs.read(SPACE, NEVER)


def test_what_was_deleted_is_gone_and_may_be_deleted_again(blobs: BlobStore) -> None:
    digest, other = put(blobs), put(blobs, "other")
    blobs.delete(SPACE, [digest, NEVER])
    blobs.delete(SPACE, [digest])
    assert blobs.missing(SPACE, [digest, other]) == [digest]
    assert put(blobs) == digest
    assert blobs.missing(SPACE, [digest]) == []


def test_a_listing_names_what_is_older_in_every_space(blobs: BlobStore) -> None:
    stored = {
        (space, put(blobs, text, space=space)) for space in (SPACE, "日/本") for text in "abc"
    }
    assert set(blobs.older(now() + DAY)) == stored
    assert list(blobs.older(now() - DAY)) == []


def test_an_empty_store_lists_nothing(blobs: BlobStore) -> None:
    assert list(blobs.older(now() + DAY)) == []


def test_there_is_room(blobs: BlobStore) -> None:
    assert blobs.free_bytes() > 1 << 20


def test_a_full_memory_says_so_and_has_room_again_after_a_deletion() -> None:
    blobs = MemoryBlobs(capacity=10)
    first = put(blobs, "12345678")
    with pytest.raises(StorageFull):
        put(blobs, "123")
    assert blobs.free_bytes() == 2
    blobs.delete(SPACE, [first, first])
    put(blobs, "1234567890")
    assert blobs.free_bytes() == 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "chunks"
    path.mkdir()
    return path


def file_of(root: Path, digest: str) -> Path:
    (found,) = root.rglob(digest)
    return found


@pytest.mark.parametrize("damage", [b"", b"a chunk and more", b"b chunk"])
def test_damage_is_never_read_and_is_healed_by_putting_again(root: Path, damage: bytes) -> None:
    blobs = BlobDirectory(root)
    digest = put(blobs)
    file_of(root, digest).write_bytes(damage)
    with pytest.raises(IntegrityError) as caught:
        blobs.read(SPACE, digest)
    assert caught.value.code == "chunk.damaged"
    put(blobs)
    assert blobs.read(SPACE, digest).payload == b"a chunk"


def test_who_set_a_chunk_aside_that_was_mended_meanwhile_puts_it_back(root: Path) -> None:
    """Kills: a sound chunk, which somebody was told is there, taken away as damage."""
    blobs = BlobDirectory(root)
    digest = put(blobs)
    blobs._set_aside(file_of(root, digest))  # noqa: SLF001 - as after a look at what it was before
    assert blobs.missing(SPACE, [digest]) == []
    assert blobs.read(SPACE, digest).payload == b"a chunk"
    file_of(root, digest).write_bytes(b"damage")
    blobs._set_aside(file_of(root, digest))  # noqa: SLF001 - the control
    assert blobs.missing(SPACE, [digest]) == [digest]


PUTS = """
import os, sys
from pathlib import Path
from sekisho.adapters.blobs_directory import BlobDirectory
from sekisho.wire.frames import Frame, digest_of
blobs = BlobDirectory(Path(sys.argv[1]))
for data in (b"another", b"a chunk", b"a chunk"):
    blobs.put("one/alice", [Frame(digest_of(data), data)])
    os.write(1, b"put")
"""


def test_a_chunk_that_is_there_already_is_told_as_stored_when_its_name_is_synced(
    root: Path, tmp_path: Path
) -> None:
    """Kills: trust in a name that another thread has just made and not synced (P1)."""
    trace = tmp_path / "trace"
    calls = "trace=fsync,fdatasync,write,rename,renameat,renameat2,link,linkat"
    argv = ["strace", "-f", "-qq", "-y", "-o", str(trace), "-e", calls]
    argv += [sys.executable, "-c", PUTS, str(root)]
    subprocess.run(argv, check=True, capture_output=True, timeout=120)
    shard = file_of(root, digest_of(b"a chunk")).parent
    *_, first, again, _ = re.split(r'.*write\(1<.*"put".*\n', trace.read_text())
    assert re.search(r"(rename|link)\w*\(", first)
    assert not re.search(r"(rename|link)\w*\(", again)
    for part in (first, again):
        assert re.search(rf"fsync\(\d+<{re.escape(str(shard))}>\)", part)


NUMBERS = b"1.000000e+00, 2.500000e-01\n" * 2000


@pytest.mark.parametrize(
    ("content", "packs"),
    [
        pytest.param(NUMBERS, True, id="packed"),
        pytest.param(NUMBERS, False, id="as it is"),
        pytest.param(b"a chunk", True, id="packed, and longer by it"),
        pytest.param(zstd.compress(b"a file that was packed before"), False, id="looks packed"),
    ],
)
def test_what_is_taken_unseen_is_told_as_it_came(root: Path, content: bytes, packs: bool) -> None:
    """Kills: the wrong word about a payload, with which nobody could ever unpack it."""
    payload = zstd.compress(content) if packs else content
    chunk = Chunk(digest_of(content), len(content))
    blobs = BlobDirectory(root)
    blobs.put(SPACE, [Frame(chunk.digest, payload, packed=packs)])
    taken = blobs.take(SPACE, chunk)
    assert (taken.payload, taken.packed) == (payload, packs)
    assert taken.opened() == (chunk, content)


def test_a_packed_chunk_as_long_as_its_content_is_told_as_packed(root: Path) -> None:
    content = next(
        data
        for size in range(12, 200)
        for data in [b"\0" * (size - 9) + bytes(range(1, 10))]
        if len(zstd.compress(data)) == len(data)
    )
    blobs, chunk = BlobDirectory(root), Chunk(digest_of(content), len(content))
    blobs.put(SPACE, [Frame(chunk.digest, zstd.compress(content), packed=True)])
    assert blobs.take(SPACE, chunk).opened() == (chunk, content)


@pytest.mark.parametrize("damage", [b"", b"a chunk and more", b"b chunk", PACKED_MAGIC + b"abc"])
def test_damage_that_is_taken_unseen_shows_when_it_is_opened(root: Path, damage: bytes) -> None:
    blobs = BlobDirectory(root)
    digest = put(blobs)
    file_of(root, digest).write_bytes(damage)
    taken = blobs.take(SPACE, Chunk(digest, len(b"a chunk")))
    assert taken.digest == digest
    with pytest.raises(IntegrityError):
        taken.opened()


def test_no_path_tells_the_name_of_a_space(root: Path) -> None:
    blobs = BlobDirectory(root)
    put(blobs, space="../../secret-site/secret-user")
    assert [path for path in root.rglob("*") if "secret" in str(path.relative_to(root))] == []
    assert [path for path in root.parent.rglob("*") if root not in (path, *path.parents)] == []


def test_files_are_for_their_owner_only(root: Path) -> None:
    put(BlobDirectory(root))
    assert {path.stat().st_mode & 0o077 for path in root.rglob("*")} == {0}


def test_another_process_finds_what_was_stored(root: Path) -> None:
    digest = put(BlobDirectory(root))
    assert BlobDirectory(root).read(SPACE, digest).payload == b"a chunk"
    assert list(BlobDirectory(root).older(now() + DAY)) == [(SPACE, digest)]


def test_a_listing_drops_old_leftovers_of_a_crash_and_keeps_new_ones(root: Path) -> None:
    blobs = BlobDirectory(root)
    digest = put(blobs)
    old, new = (file_of(root, digest).with_name(TEMPORARY + name) for name in ("old", "new"))
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert list(blobs.older(now() - DAY)) == []
    assert not old.exists()
    assert new.exists()


def test_a_listing_that_fails_raises(root: Path) -> None:
    blobs = BlobDirectory(root)
    put(blobs)
    root.rename(root.with_name("gone"))
    with pytest.raises(Unavailable):
        list(blobs.older(now() + DAY))
    with pytest.raises(Unavailable):
        blobs.free_bytes()


def test_chunks_of_a_space_that_lost_its_name_are_reported_not_collected(root: Path) -> None:
    blobs = BlobDirectory(root)
    put(blobs)
    (name,) = root.glob("*/space")
    name.unlink()
    with pytest.raises(Corrupt):
        list(blobs.older(now() + DAY))


def test_an_empty_space_without_a_name_is_what_a_crash_may_leave(root: Path) -> None:
    (root / digest_of(b"one/bob")).mkdir()
    digest = put(BlobDirectory(root))
    assert list(BlobDirectory(root).older(now() + DAY)) == [(SPACE, digest)]


def test_many_are_put_at_once(blobs: BlobStore) -> None:
    given = [a_chunk(f"chunk {n}") for n in range(300)]
    blobs.put(SPACE, [Frame(chunk.digest, data) for chunk, data in [*given, *given[:9]]])
    assert blobs.missing(SPACE, [chunk.digest for chunk, _ in given]) == []
    assert [blobs.read(SPACE, chunk.digest).payload for chunk, _ in given] == [
        data for _, data in given
    ]


def test_nothing_of_a_batch_with_a_wrong_name_is_kept(blobs: BlobStore) -> None:
    chunk, data = a_chunk("right")
    with pytest.raises(IntegrityError):
        blobs.put(SPACE, [Frame(chunk.digest, data), Frame(NEVER, b"other bytes")])
    assert blobs.missing(SPACE, [chunk.digest]) == [chunk.digest]


def test_putting_nothing_is_no_error(blobs: BlobStore) -> None:
    blobs.put(SPACE, [])
    assert list(blobs.older(now() + DAY)) == []


def test_a_packed_chunk_stays_packed(blobs: BlobStore) -> None:
    data = b"a line of a mesh\n" * 4000
    given = packed(digest_of(data), data)
    blobs.put(SPACE, [given])
    assert blobs.read(SPACE, given.digest) == given
    assert blobs.size(SPACE, [given.digest]) == len(bytes(given)) < len(data) / 10


@pytest.mark.parametrize("payload", [b"", b"no frame", b"\x28\xb5\x2f\xfd torn"])
def test_a_packed_chunk_that_cannot_be_opened_is_refused(blobs: BlobStore, payload: bytes) -> None:
    with pytest.raises(IntegrityError):
        blobs.put(SPACE, [Frame(NEVER, payload, packed=True)])
    assert blobs.missing(SPACE, [NEVER]) == [NEVER]


def test_the_size_of_many_is_what_reading_gives_and_none_may_lack(blobs: BlobStore) -> None:
    digests = [put(blobs, text) for text in ("a", "bb", "ccc")]
    read = b"".join(bytes(blobs.read(SPACE, digest)) for digest in digests)
    assert blobs.size(SPACE, digests) == len(read)
    with pytest.raises(NotFound):
        blobs.size(SPACE, [*digests, NEVER])


def test_a_stored_file_that_looks_packed_is_what_it_is(root: Path) -> None:
    """A submitter may send a file that is a zstd frame itself; the digest tells."""
    inner = packed(NEVER, b"a line of a mesh\n" * 4000).payload
    frame = Frame(digest_of(inner), inner)
    blobs = BlobDirectory(root)
    blobs.put(SPACE, [frame])
    assert blobs.read(SPACE, frame.digest) == frame
