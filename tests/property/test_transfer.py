"""Trees and their transfer, over all shapes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.adapters.chunks_memory import MemoryChunks
from sekisho.domain.errors import SekishoError
from sekisho.domain.files import RelPath
from sekisho.domain.limits import CHUNK_BYTES
from sekisho.transfer.fetch import fetch_index, fetch_tree
from sekisho.transfer.send import send_tree
from sekisho.transfer.source import LocalTree, Source, scan
from sekisho.transfer.tree import read_tree
from sekisho.wire.envelope import ChunkRef, TreeRef
from sekisho.wire.frames import Chunk, digest_of

NAMES = st.sampled_from(["a", "b", "c.txt", "名前", "x y", ".hidden", "Ω"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
SIZES = st.sampled_from([0, 1, 2, 100, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1])
CONTENTS = st.tuples(SIZES, st.integers(0, 3)).map(lambda p: bytes([p[1]]) * p[0])


def _compatible(files: dict[str, bytes]) -> bool:
    """No file lies inside of another one."""
    return not any(a != b and b.startswith(a + "/") for a in files for b in files)


FILES = st.dictionaries(PATHS, st.tuples(CONTENTS, st.booleans()), max_size=6).filter(
    lambda files: _compatible({k: v[0] for k, v in files.items()})
)


def _write(directory: Path, files: dict[str, tuple[bytes, bool]]) -> None:
    for name, (data, executable) in files.items():
        place = directory / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        place.chmod(0o755 if executable else 0o644)


def _read(directory: Path) -> dict[str, tuple[bytes, bool]]:
    return {
        str(p.relative_to(directory)): (p.read_bytes(), bool(p.stat().st_mode & 0o100))
        for p in directory.rglob("*")
        if p.is_file()
    }


@settings(max_examples=60, deadline=None)
@given(FILES)
def test_what_is_sent_is_what_arrives(files: dict[str, tuple[bytes, bool]]) -> None:
    """Kills: a lost executable bit, a chunk at a wrong offset, an empty file forgotten."""
    with tempfile.TemporaryDirectory() as home:
        here, there = Path(home, "here"), Path(home, "there")
        here.mkdir()
        _write(here, files)
        local = LocalTree(scan([("", here)]))
        port = MemoryChunks()
        ref = send_tree(local.tree, local.read, port)
        assert fetch_tree(ref, port, there) == local.tree
        assert _read(there) == files


@settings(max_examples=60, deadline=None)
@given(FILES, st.randoms(use_true_random=False))
def test_a_tree_has_one_name_whatever_the_order_of_looking(
    files: dict[str, tuple[bytes, bool]], order: object
) -> None:
    """Kills: a list in the order of the disk."""
    with tempfile.TemporaryDirectory() as home:
        _write(Path(home), files)
        sources = [Source(RelPath.parse(name), str(Path(home, name))) for name in files]
        digest = LocalTree(sources).tree.digest
        order.shuffle(sources)  # type: ignore[attr-defined]
        assert LocalTree(sources).tree.digest == digest


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_list_changed_by_anybody_is_refused(data: st.DataObject) -> None:
    """Kills: a list whose digest, form, order or totals are not checked."""
    lines = [
        '["a",false,1,0,[["' + "0" * 64 + '",3]]]',
        '["b/c",true,0,0,[]]',
        '["d",false,2,1,[["' + "0" * 64 + '",3]]]',
        '["e",false,9,0,[["' + "1" * 64 + '",2],["",7]]]',
    ]
    text = ("sekisho-tree/2\n" + "".join(line + "\n" for line in lines)).encode()
    ref = _ref(text, files=4, size=12)
    assert read_tree(text, ref).digest == ref.digest
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + bytes([data.draw(st.integers(0, 255))]) + text[at + 1 :]
    if changed == text:
        return
    with pytest.raises(SekishoError):
        read_tree(changed, ref)
    try:  # even with a name made for it, only a canonical list with these totals is read
        tree = read_tree(changed, _ref(changed, files=4, size=12))
    except SekishoError:
        return
    assert tree.text == changed


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_make_a_list_fail_otherwise_than_by_an_error_of_ours(text: bytes) -> None:
    """Kills: a decoding error that escapes."""
    port = MemoryChunks()
    chunk = Chunk(digest_of(text), len(text))
    port.missing([chunk])
    port.send([(chunk, text)])
    with pytest.raises(SekishoError):
        fetch_index(_ref(text, files=0, size=1), port)


def _ref(text: bytes, *, files: int, size: int) -> TreeRef:
    digest = digest_of(text)
    return TreeRef(digest=digest, files=files, size=size, index=[ChunkRef(digest, len(text))])
