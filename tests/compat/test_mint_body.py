"""Bodies with files in them: what goes in comes out, however it is cut, and nothing else does."""

from __future__ import annotations

import base64
import io
import json
import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.domain.errors import SekishoError, TooLarge, UsageError
from sekisho.wire.mint_body import MAX_DOCUMENT_BYTES, Content, Lifted, Lifter, Weaver


def lifted(text: bytes, cuts: list[int] | None = None) -> Lifted:
    lifter, at = Lifter(io.BytesIO()), 0
    for size in cuts or [len(text) or 1]:
        lifter.feed(text[at : at + size])
        at += size
    lifter.feed(text[at:])
    return lifter.end()


def files(body: Lifted) -> dict[str, bytes]:
    document: dict[str, str] = body.decoded(dict)
    found = {}
    for name, text in document.items():
        piece = body.content(text)
        body.spool.seek(piece.offset)
        found[name] = body.spool.read(piece.size)
    body.check_all_used()
    return found


@given(
    st.dictionaries(st.text(max_size=20), st.integers(0, 9000), max_size=4),
    st.lists(st.integers(1, 4000), max_size=12),
    st.booleans(),
)
def test_files_come_out_as_they_went_in(
    sizes: dict[str, int], cuts: list[int], escaped: bool
) -> None:
    """Kills: forgetting half an escape, a rest of base64, or the end of a string at a cut."""
    contents = {name: random.Random(size).randbytes(size) for name, size in sizes.items()}
    texts = {name: base64.encodebytes(data).decode() for name, data in contents.items()}
    text = json.dumps(texts, ensure_ascii=escaped).encode()
    if escaped:
        text = text.replace(b"/", b"\\/").replace(b"+", b"\\u002b")
    assert files(lifted(text, cuts)) == contents


@given(st.lists(st.binary(max_size=5000), max_size=4), st.integers(1, 700))
def test_what_is_woven_is_json_of_the_announced_length(data: list[bytes], step: int) -> None:
    """Kills: a wrong length, base64 padding in the middle, a hole filled with another's file."""
    weaver = Weaver()

    def pieces(one: bytes) -> list[bytes]:
        return [one[n : n + step] for n in range(0, len(one), step)]

    holes = [weaver.hole(Content(len(d), lambda d=d: pieces(d))) for d in data]  # type: ignore[misc]
    size, out = weaver.weave({"名": holes})
    body = b"".join(out)
    assert len(body) == size
    assert [base64.b64decode(text) for text in json.loads(body)["名"]] == data


LONG = base64.b64encode(bytes(9000)).decode()


@pytest.mark.parametrize(
    "content",
    [
        LONG + "=",
        LONG + "====",
        LONG[:3000] + "=" + LONG[3001:],
        LONG + "A",
        LONG + "*AAA",
        LONG + "\u3042AA",
        "A",
        "AA=A",
        "!!!!",
        "%" * 9000,
    ],
)
def test_what_is_no_base64_is_refused(content: str) -> None:
    with pytest.raises(UsageError):
        files(lifted(json.dumps({"a": content}).encode()))


@pytest.mark.parametrize(
    "text", [b'{"a": "', b'{"a": "' + b"A" * 9000, b'{"a": "\\', b"", b"{", b"]"]
)
def test_a_body_that_is_cut_is_refused(text: bytes) -> None:
    with pytest.raises(UsageError):
        lifted(text).decoded(dict)


def test_a_long_string_where_no_content_belongs_is_refused() -> None:
    body = lifted(json.dumps({LONG: "", "b": "QQ=="}).encode())
    body.content(body.decoded(dict)["b"])
    with pytest.raises(UsageError):
        body.check_all_used()


def test_a_document_that_is_long_without_files_is_refused() -> None:
    with pytest.raises(TooLarge):
        lifted(b"[" + b"1," * MAX_DOCUMENT_BYTES)


@given(st.binary(max_size=3000))
def test_no_bytes_whatever_do_more_than_be_refused(text: bytes) -> None:
    """Kills: an error that is not one of ours, for bytes that nobody would send."""
    try:
        lifted(b'{"a": "' + b"A" * 3000 + text).decoded(dict)
    except SekishoError:
        return


def test_a_large_file_is_never_in_memory_as_a_whole(tmp_path: Any) -> None:
    piece = base64.b64encode(random.Random(1).randbytes(3 << 18))
    with (tmp_path / "spool").open("w+b") as spool:
        lifter = Lifter(spool)
        lifter.feed(b'{"a": "')
        tracemalloc.start()
        for _ in range(64):
            lifter.feed(piece)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        lifter.feed(b'"}')
        (lifted_piece,) = lifter.end().pieces.values()
    assert lifted_piece.size == 64 * (3 << 18)
    assert most < 8 << 20
