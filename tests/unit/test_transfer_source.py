"""Reading local files: what is sent, and what is not."""

from __future__ import annotations

import os
import random
import resource
from collections.abc import Sequence
from pathlib import Path

import pytest

from sekisho.adapters.chunks_memory import MemoryChunks
from sekisho.domain.errors import IntegrityError, UsageError
from sekisho.domain.limits import MAX_CHUNK_BYTES, MIB
from sekisho.transfer.remembered import Look
from sekisho.transfer.send import send_tree
from sekisho.transfer.source import LocalTree, _whole_of, scan
from sekisho.wire.frames import Chunk


def names(*entries: tuple[str, Path]) -> list[str]:
    return [str(source.path) for source in scan(entries)]


def test_a_folder_travels_under_the_name_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").touch()
    assert names(("x/y", tmp_path / "a")) == ["x/y/b/c"]
    assert names(("", tmp_path / "a")) == ["b/c"]


def test_links_are_followed_on_the_side_that_sends(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("text")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert names(("in", tmp_path / "link")) == ["in/file"]


def test_a_folder_that_contains_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to(tmp_path)
    with pytest.raises(UsageError, match=r"input\.loop"):
        names(("in", tmp_path))


@pytest.mark.parametrize("make", [os.mkfifo, lambda p: os.mknod(p, 0o600 | 0o140000)])
def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path, make: object) -> None:
    make(tmp_path / "special")  # type: ignore[operator]
    with pytest.raises(UsageError, match=r"input\.not_a_file"):
        names(("in", tmp_path))


def test_what_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"input\.not_found"):
        names(("in", tmp_path / "absent"))


def test_a_name_that_may_not_travel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad\nname").touch()
    with pytest.raises(UsageError, match=r"path\.invalid"):
        names(("in", tmp_path))


def test_a_file_changed_after_its_digest_was_taken_is_not_sent(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("before")
    local = LocalTree(scan([("file", file)]))
    file.write_text("after!")
    port = MemoryChunks()
    with pytest.raises(IntegrityError, match=r"input\.changed"):
        send_tree(local.tree, local.read, port)
    assert local.tree.chunks()[0].digest not in port.held


@pytest.mark.parametrize("size", [300_000, 5 * MIB])
def test_a_file_that_changes_while_it_is_read_is_not_listed(tmp_path: Path, size: int) -> None:
    """Kills: a list of half the old and half the new content, which nobody has ever had."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(size))
    os.utime(file, ns=(1, 1))

    def change(*_: object) -> None:
        file.write_bytes(os.urandom(size))

    with pytest.raises(IntegrityError) as caught:
        LocalTree(scan([("file", file)]), found=change)
    assert (caught.value.code, caught.value.params["input"]) == ("input.changed", "file")


def test_a_small_file_that_changed_since_it_was_opened_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"before")
    (source,) = scan([("file", tmp_path / "file")])
    with (tmp_path / "file").open("r+b") as file:
        before = os.fstat(file.fileno())
        assert _whole_of(file.fileno(), source, before) == b"before"
        os.utime(file.fileno(), ns=(1, 1))
        (tmp_path / "file").write_bytes(b"behind")
        with pytest.raises(IntegrityError, match=r"input\.changed"):
            _whole_of(file.fileno(), source, before)


def test_a_file_that_shrank_is_not_sent(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("before")
    local = LocalTree(scan([("file", file)]))
    file.write_text("")
    with pytest.raises(IntegrityError, match=r"input\.changed"):
        local.read(local.tree.chunks()[0])


def test_only_what_is_missing_is_read_and_sent(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(MAX_CHUNK_BYTES) + b"tail")
    local = LocalTree(scan([("file", file), ("copy", file)]))
    port = MemoryChunks()
    *others, tail = local.tree.chunks()
    port.held.update({chunk.digest: local.read(chunk) for chunk in others})
    read: list[Chunk] = []

    def reading(chunk: Chunk) -> bytes:
        read.append(chunk)
        return local.read(chunk)

    send_tree(local.tree, reading, port)
    assert read == [tail]


def test_progress_of_sending_ends_at_the_total(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    local = LocalTree(scan([("file", tmp_path / "file")]))
    seen: list[tuple[int, int]] = []
    send_tree(local.tree, local.read, MemoryChunks(), lambda d, t: seen.append((d, t)))
    assert seen[-1][0] == seen[-1][1] > 7


class Knowing:
    """Knows the chunks of the one large file."""

    chunks: Sequence[Chunk] | None = None

    def recall(self, _: Look) -> Sequence[Chunk] | None:
        return self.chunks

    def keep(self, look: Look, chunks: Sequence[Chunk]) -> None:
        pass

    def forget(self, look: Look) -> None:
        pass


def test_progress_of_reading_ends_at_the_total_whether_read_packed_or_remembered(
    tmp_path: Path,
) -> None:
    (tmp_path / "large").write_bytes(random.Random(1).randbytes(3 << 20))
    for name in ("one", "two", "none"):
        (tmp_path / name).write_bytes(name.encode() * 100 if name != "none" else b"")
    known = Knowing()
    for _ in range(2):
        seen: list[tuple[int, int]] = []
        local = LocalTree(scan([("in", tmp_path)]), known, lambda d, t: seen.append((d, t)))  # noqa: B023
        known.chunks = max(local.tree.files, key=lambda file: file.size).chunks
        done = [each for each, _ in seen]
        assert done == sorted(done)
        assert seen[0] == (0, (3 << 20) + 600)
        assert seen[-1] == ((3 << 20) + 600,) * 2
        assert len(seen) > 2


def test_a_file_in_a_closed_folder_is_not_called_missing(tmp_path: Path) -> None:
    """Kills: "There is no …" of a file that is there, below a folder that may not be entered."""
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "file").write_text("x")
    closed.chmod(0)
    before = os.geteuid()
    os.seteuid(before or 65534)  # root enters anything
    try:
        with pytest.raises(UsageError) as refused:
            scan([("in", closed / "file")])
    finally:
        os.seteuid(before)
        closed.chmod(0o700)
    assert refused.value.code == "input.not_readable"


def test_a_folder_that_cannot_be_listed_is_refused_by_name(tmp_path: Path) -> None:
    """Kills: an error of the machine that escapes while a folder is looked at."""
    (tmp_path / "folder").mkdir()
    free = os.dup(0)
    os.close(free)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        with pytest.raises(UsageError) as refused:
            scan([("in", tmp_path)])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (refused.value.code, refused.value.params["input"]) == (
        "input.not_readable",
        str(tmp_path),
    )
