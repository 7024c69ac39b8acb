"""Sparse files: their holes are neither read nor sent nor written, and are holes again."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from sekisho.adapters.chunks_memory import MemoryChunks
from sekisho.domain.errors import StorageFull, TooLarge, UsageError
from sekisho.domain.limits import MIB
from sekisho.transfer.cut import cut
from sekisho.transfer.fetch import Caps, fetch_files, fetch_tree
from sekisho.transfer.send import send_tree
from sekisho.transfer.source import LocalTree, scan
from sekisho.transfer.tree import read_tree
from sekisho.wire.envelope import TreeRef

GIB = 1 << 30


def sparse(place: Path, size: int, *extents: tuple[int, int]) -> Path:
    with place.open("wb") as file:
        for start, length in extents:
            file.seek(start)
            file.write(os.urandom(length))
        file.truncate(size)
    return place


def there_and_back(file: Path, into: Path) -> tuple[Path, MemoryChunks]:
    local, port = LocalTree(scan([("file", file)])), MemoryChunks()
    ref = send_tree(local.tree, local.read, port)
    assert read_tree(local.tree.text, ref) == local.tree
    fetch_files(local.tree, port, into)
    return into / "file", port


def test_a_file_of_a_terabyte_that_is_nearly_empty_costs_what_it_holds(tmp_path: Path) -> None:
    file = sparse(tmp_path / "file", 1024 * GIB, (0, 5000), (700 * GIB, 300_000))
    made, port = there_and_back(file, tmp_path / "there")
    assert sum(map(len, port.held.values())) < MIB
    assert (made.stat().st_size, made.stat().st_blocks) == (1024 * GIB, file.stat().st_blocks)
    for place in (file, made):
        with place.open("rb") as opened:
            opened.seek(700 * GIB)
            data = opened.read(300_000)
            assert data == port_bytes(port, data)


def port_bytes(port: MemoryChunks, data: bytes) -> bytes:
    """Return ``data`` if the port holds it somewhere."""
    return data if any(data[:1000] in held for held in port.held.values()) else b""


@pytest.mark.parametrize(
    "extents",
    [
        [],
        [(0, 1)],
        [(5 * MIB - 1, 1)],
        [(MIB, MIB), (3 * MIB, 10)],
        [(n * 8192, 100) for n in range(600)],  # holes that are not worth it
    ],
)
def test_a_sparse_file_arrives_with_every_byte(
    tmp_path: Path, extents: list[tuple[int, int]]
) -> None:
    file = sparse(tmp_path / "file", 5 * MIB, *extents)
    made, _ = there_and_back(file, tmp_path / "there")
    assert made.read_bytes() == file.read_bytes()


def test_damage_in_a_hole_of_a_part_is_put_right(tmp_path: Path) -> None:
    file = sparse(tmp_path / "file", 8 * MIB, (0, MIB))
    local, port = LocalTree(scan([("file", file)])), MemoryChunks()
    send_tree(local.tree, local.read, port)
    part = tmp_path / "there" / f".sekisho-{local.tree.digest[:16]}.part"
    part.mkdir(mode=0o700, parents=True)
    (part / "0").write_bytes(os.urandom(8 * MIB))
    fetch_files(local.tree, port, tmp_path / "there")
    assert (tmp_path / "there" / "file").read_bytes() == file.read_bytes()


def test_what_a_file_with_a_hole_says_to_be_long_counts_against_the_caps(tmp_path: Path) -> None:
    local = LocalTree(scan([("file", sparse(tmp_path / "file", 64 * GIB))]))
    port = MemoryChunks()
    ref = send_tree(local.tree, local.read, port)
    with pytest.raises(TooLarge, match=r"tree\.too_large"):
        fetch_tree(ref, port, tmp_path / "there", caps=Caps(max_bytes=63 * GIB))
    with pytest.raises(UsageError, match=r"tree\.invalid"):
        fetch_tree(_smaller(ref, 1), port, tmp_path / "there", caps=Caps(max_bytes=63 * GIB))
    assert not (tmp_path / "there").exists()


def _smaller(ref: TreeRef, size: int) -> TreeRef:
    return replace(ref, size=size)


@pytest.mark.parametrize("error", [22, 95])
def test_a_file_system_without_holes_has_data_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    file = sparse(tmp_path / "file", 3 * MIB, (MIB, 5))
    plain: Callable[..., int] = os.lseek

    def seek(fd: int, start: int, what: int) -> int:
        if what in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(error, "")
        return plain(fd, start, what)

    monkeypatch.setattr(os, "lseek", seek)
    with file.open("rb") as opened:
        found = list(cut(opened.fileno(), 0, 3 * MIB))
    assert b"".join(bytes(piece) for piece in found) == file.read_bytes()
    assert all(isinstance(piece, memoryview) for piece in found)


def test_a_hole_beyond_what_the_disk_can_name_is_an_end_not_an_endless_trial(
    tmp_path: Path,
) -> None:
    local = LocalTree(scan([("file", sparse(tmp_path / "file", 64 * GIB))]))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (GIB, hard))
    try:
        with pytest.raises(StorageFull, match=r"fetch\.disk_full"):
            fetch_files(local.tree, MemoryChunks(), tmp_path / "there")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "there" / "file").exists()
