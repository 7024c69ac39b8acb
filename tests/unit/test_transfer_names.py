"""Names of the other party: a corpus of hostile ones, none of which may touch anything outside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.adapters.chunks_memory import MemoryChunks
from sekisho.domain.errors import SekishoError
from sekisho.transfer.fetch import fetch_tree
from sekisho.wire.envelope import ChunkRef, TreeRef
from sekisho.wire.frames import Chunk, digest_of

PAYLOAD = b"owned"

#: Absolute names and climbing ones, as archivers met them (zip slip, tar, rsync).
CLIMBING = [
    "/etc/passwd",
    "//etc/passwd",
    "/",
    "//",
    "..",
    "../x",
    "../../x",
    "a/..",
    "a/../../x",
    "a/b/../../../x",
    "./x",
    "a/./b",
    ".",
    "",
    "a//b",
    "a/",
    "/a",
    "a/b/",
    "../outside/victim",
    "sub/../../outside/victim",
    "..//..//x",
    "...//../x",
    "a/.../../../x",
    "~/../x/..",
]
#: Separators of other systems, which the reader of a result may use.
SEPARATORS = [
    "..\\x",
    "a\\..\\..\\x",
    "\\\\server\\share\\x",
    "C:\\x",
    "C:x",
    "c:/x",
    "a/c:x",
    "\\x",
    "a\\b",
    "..\\/x",
    "a/..\\x",
    "\\??\\C:\\x",
    "\\\\.\\pipe\\x",
]
#: Characters that steer terminals, hide, reorder, or end strings early.
CHARACTERS = [
    "a" + chr(code) + "b"
    for code in (
        *range(0x20),
        0x7F,
        0x80,
        0x85,
        0x9B,
        0x9F,
        0xAD,  # soft hyphen
        0x61C,  # Arabic letter mark
        0x180E,
        0x200B,
        0x200C,
        0x200D,
        0x200E,
        0x200F,
        0x2028,
        0x2029,
        0x202A,
        0x202B,
        0x202C,
        0x202D,
        0x202E,  # right to left override: "gpj.exe"
        0x2060,
        0x2066,
        0x2067,
        0x2068,
        0x2069,
        0xFEFF,
        0xE000,  # private use
        0xFFF9,
        0xFFFF,
        0xE0001,
        0x10FFFF,
    )
]
#: One look, two spellings; lone surrogates, which are no text at all.
SPELLINGS = ["cafe\u0301", "\u1112\u1161\u11ab", "\u212b", "\ud800", "a\udcffb", "e\u0301/x"]
#: Names that other systems reserve or change.
RESERVED = [
    "con",
    "CON",
    "con.txt",
    "aux",
    "nul",
    "NUL.tar.gz",
    "prn.x",
    "com1",
    "COM9.log",
    "lpt1",
    "a/con/b",
    "a ",
    " a",
    "a.",
    "a/b. ",
    "a /b",
    "...",
    "x/...",
]
#: Too long, too deep.
SIZES = ["a" * 256, "あ" * 86, "/".join(["d"] * 33), "/".join(["d" * 200] * 6)]
CORPUS = [*CLIMBING, *SEPARATORS, *CHARACTERS, *SPELLINGS, *RESERVED, *SIZES]


def line(name: str) -> bytes:
    chunk = [digest_of(PAYLOAD), len(PAYLOAD)]
    return (
        json.dumps([name, False, len(PAYLOAD), 0, [chunk]], separators=(",", ":")).encode() + b"\n"
    )


def offered(*names: str) -> tuple[TreeRef, MemoryChunks]:
    """A port that offers a list with these very names, whatever they are."""
    text = b"sekisho-tree/2\n" + b"".join(line(name) for name in names)
    port = MemoryChunks()
    pieces = [(Chunk(digest_of(d), len(d)), d) for d in (text, PAYLOAD)]
    port.missing([chunk for chunk, _ in pieces])
    port.send(pieces)
    digest = digest_of(text)
    size = len(PAYLOAD) * len(names)
    index = [ChunkRef(digest, len(text))]
    return TreeRef(digest=digest, files=len(names), size=size, index=index), port


def everything(root: Path) -> Iterator[tuple[str, bytes]]:
    for place in sorted(root.rglob("*")):
        yield str(place.relative_to(root)), place.read_bytes() if place.is_file() else b""


@pytest.fixture
def world(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "victim").write_text("mine")
    (tmp_path / "work" / "into").mkdir(parents=True)
    return tmp_path


def test_the_corpus_is_large_and_a_good_name_gets_through_it(world: Path) -> None:
    """The positive control: refused is the name, not the way it is offered."""
    assert len(set(CORPUS)) >= 120
    fetch_tree(*offered("good name.txt"), world / "work" / "into")
    assert (world / "work" / "into" / "good name.txt").read_bytes() == PAYLOAD


@pytest.mark.parametrize("name", CORPUS, ids=ascii)
def test_a_hostile_name_is_refused_and_nothing_changes(world: Path, name: str) -> None:
    before = list(everything(world))
    with pytest.raises(SekishoError):
        fetch_tree(*offered(name), world / "work" / "into")
    assert list(everything(world)) == before


@pytest.mark.parametrize(
    "names",
    [
        ("a", "a"),
        ("A", "a"),
        ("b", "a"),
        ("a", "a/b"),
        ("A", "a/b"),
        ("straße", "strasse"),
        ("a/x", "A/y", "a/x"),
    ],
    ids=ascii,
)
def test_names_that_collide_are_refused_and_nothing_changes(
    world: Path, names: tuple[str, ...]
) -> None:
    before = list(everything(world))
    with pytest.raises(SekishoError):
        fetch_tree(*offered(*names), world / "work" / "into")
    assert list(everything(world)) == before
