"""Lists of trees that are met several times are taken apart once, and never taken on trust."""

from __future__ import annotations

import pytest

from sekisho.domain.errors import IntegrityError, UsageError
from sekisho.domain.files import RelPath
from sekisho.transfer import tree as trees
from sekisho.transfer.tree import Tree, TreeFile, read_tree, remember
from sekisho.wire.envelope import TreeRef
from sekisho.wire.frames import Chunk, digest_of


@pytest.fixture(autouse=True)
def nothing_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "_lately", {})


def tree(name: str = "mesh", files: int = 1) -> Tree:
    chunk = Chunk(digest_of(b"x"), 1)
    paths = (RelPath((f"{name}-{number:06d}",)) for number in range(files))
    return Tree(tuple(TreeFile(path, executable=False, size=1, chunks=(chunk,)) for path in paths))


def test_a_list_met_again_is_not_taken_apart_again() -> None:
    one = tree()
    first = read_tree(one.text, one.ref())
    assert first == one
    assert read_tree(one.text, one.ref()) is first


def test_what_was_just_made_need_not_be_taken_apart() -> None:
    one = tree()
    remember(one)
    assert read_tree(bytes(one.text), one.ref()) is one


def test_a_list_that_is_known_is_still_compared_with_its_name() -> None:
    """Kills: asking by the name alone, whatever bytes came under it."""
    one = tree()
    remember(one)
    with pytest.raises(IntegrityError, match=r"tree\.digest"):
        read_tree(one.text + b" ", one.ref())
    other = TreeRef(digest=one.digest, files=2, size=one.size, index=one.ref().index)
    with pytest.raises(UsageError, match=r"tree\.invalid"):
        read_tree(one.text, other)


def test_few_lists_are_held_and_no_long_one() -> None:
    names = [tree(f"mesh{number}") for number in range(5)]
    for each in names:
        remember(each)
    remember(names[-1])
    held = trees._lately.values()  # noqa: SLF001 (how much is held)
    assert all(known is each for known, each in zip(held, names[-2:], strict=True))
    long = tree("long", 30_000)
    remember(long)
    assert long.digest not in trees._lately  # noqa: SLF001
