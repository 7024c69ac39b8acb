"""Links of every shape, none of which is followed.

The same shapes do leak from a naive reader, which shows that they are dangerous.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile.yard import CANARY, Yard, naive


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def link(at: str, to: str) -> Callable[[Yard], None]:
    def shape(yard: Yard) -> None:
        path = yard.work / at
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(
            to.format(
                secret=yard.secret,
                outside=yard.outside,
                held=yard.held,
                work=yard.work,
                me=os.getpid(),
            )
        )

    return shape


def all_of(*shapes: Callable[[Yard], None]) -> Callable[[Yard], None]:
    def shape(yard: Yard) -> None:
        for one in shapes:
            one(yard)

    return shape


LINKS: dict[str, tuple[Callable[[Yard], None], str]] = {
    "absolute": (link("x", "{secret}"), "x"),
    "relative out of the tree": (link("x", "../../../../outside/secret.txt"), "x"),
    "relative from below": (link("d/x", "../../../../../outside/secret.txt"), "d/x"),
    "to the directory": (link("x", "{outside}"), "x/secret.txt"),
    "to the directory, slash at the end": (link("x", "{outside}/"), "x/secret.txt"),
    "to the directory above": (link("x", ".."), "x/control/stdout"),
    "to itself as a directory": (link("x", "."), "x/x"),
    "to the root": (link("x", "/"), "x/etc/passwd"),
    "through the root": (link("x", "/../../..{secret}"), "x"),
    "double slashes": (link("x", "//{secret}"), "x"),
    "with dots inside": (link("x", "{outside}/./../outside/secret.txt"), "x"),
    "chained": (all_of(link("x", "y"), link("y", "z"), link("z", "{secret}")), "x"),
    "chained through a directory": (
        all_of(link("x", "d/y"), link("d/y", "../z"), link("z", "{outside}")),
        "x/secret.txt",
    ),
    "chain of forty": (
        all_of(*(link(f"l{n}", f"l{n + 1}") for n in range(39)), link("l39", "{secret}")),
        "l0",
    ),
    "loop of one": (link("x", "x"), "x"),
    "loop of two": (all_of(link("x", "y"), link("y", "x")), "x"),
    "loop of directories": (all_of(link("d/up", ".."), link("e", "d")), "e/up/e/up/e"),
    "dangling": (link("x", "nowhere"), "x"),
    "dangling absolute": (link("x", "/nowhere/at/all"), "x"),
    "empty-looking": (link("x", " "), "x"),
    "of the greatest length": (link("x", "a/" * 2000), "x"),
    "descriptor of ours": (link("x", "/proc/self/fd/{held}"), "x"),
    "descriptor by thread": (link("x", "/proc/thread-self/fd/{held}"), "x"),
    "descriptor by pid": (link("x", "/proc/{me}/fd/{held}"), "x"),
    "descriptor by /dev/fd": (link("x", "/dev/fd/{held}"), "x"),
    "directory of descriptors": (link("x", "/proc/self/fd"), "x/0"),
    "root by /proc": (link("x", "/proc/self/root{secret}"), "x"),
    "root directory by /proc": (link("x", "/proc/self/root"), "x/etc/passwd"),
    "working directory by /proc": (link("x", "/proc/self/cwd"), "x/pyproject.toml"),
    "program by /proc": (link("x", "/proc/self/exe"), "x"),
    "environment by /proc": (link("x", "/proc/self/environ"), "x"),
    "memory by /proc": (link("x", "/proc/self/mem"), "x"),
    "standard input": (link("x", "/dev/stdin"), "x"),
    "to a plain file of the job": (
        all_of(lambda yard: (yard.work / "plain").mkdir(), link("plain/x", "{secret}")),
        "plain/x",
    ),
    "with a harmless suffix": (link("result.csv", "{secret}"), "result.csv"),
    "hidden": (link(".x", "{secret}"), ".x"),
    "name in Japanese": (link("結果.csv", "{secret}"), "結果.csv"),
}


@pytest.mark.parametrize("shape", LINKS)
def test_no_link_is_followed_found_or_copied(yard: Yard, shape: str) -> None:
    make, name = LINKS[shape]
    make(yard)
    (yard.work / "honest").write_bytes(b"honest")
    collected = yard.collect()
    assert [str(f.path) for f in collected.found] == ["honest"]
    assert collected.withheld
    assert {w.why for w in collected.withheld} == {"symlink"}
    assert yard.copied(name) == b"honest"


def test_the_corpus_of_links_is_as_large_as_promised() -> None:
    assert len(LINKS) >= 25


@pytest.mark.parametrize(
    "shape",
    [
        "absolute",
        "to the directory",
        "chained",
        "chained through a directory",
        "chain of forty",
        "descriptor of ours",
        "descriptor by pid",
        "root by /proc",
        "hidden",
    ],
)
def test_the_same_links_leak_from_a_naive_reader(yard: Yard, shape: str) -> None:
    LINKS[shape][0](yard)
    assert CANARY in naive(yard.work)
