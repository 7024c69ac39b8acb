"""How much of a running command a manifest may let out at all, and how often."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from sekisho.domain.egress import Found, OutputRule, PublishRule, check_publish
from sekisho.domain.errors import UsageError
from sekisho.domain.files import Pattern, RelPath
from sekisho.domain.limits import (
    MAX_SNAPSHOT_BYTES,
    MAX_SNAPSHOT_ENVELOPE_BYTES,
    MAX_SNAPSHOT_FILES,
    MIN_PUBLISH_SECONDS,
)
from sekisho.site.shown import look
from sekisho.wire.envelope import Snapshot, SnapshotFile, open_snapshot, seal
from tests.world import NOW

PROGRESS = RelPath.parse("progress")
RULE = PublishRule(every=timedelta(seconds=MIN_PUBLISH_SECONDS), progress=PROGRESS)


def files(number: int, size: int) -> tuple[OutputRule, ...]:
    return (OutputRule(path=Pattern("*"), max_bytes=size, max_files=number),)


@pytest.mark.parametrize(
    ("within", "beyond", "why"),
    [
        ({}, {"every": RULE.every - timedelta(milliseconds=1)}, "every"),
        ({}, {"progress": None}, "empty"),
        (
            {"files": files(MAX_SNAPSHOT_FILES, 1)},
            {"files": files(MAX_SNAPSHOT_FILES + 1, 1)},
            "files",
        ),
        (
            {"files": files(2, MAX_SNAPSHOT_BYTES // 2)},
            {"files": files(2, MAX_SNAPSHOT_BYTES // 2 + 1)},
            "bytes",
        ),
    ],
)
def test_a_rule_beyond_the_bounds_is_a_fault_of_the_manifest(
    within: dict[str, Any], beyond: dict[str, Any], why: str
) -> None:
    """Kills: a results database that leaves every moment, in the name of a look at it."""
    allowed = replace(RULE, **within)
    assert check_publish(allowed) is allowed
    with pytest.raises(UsageError) as caught:
        check_publish(replace(RULE, **beyond))
    assert caught.value.params == {"why": why}


def test_a_snapshot_beyond_the_bounds_is_none() -> None:
    """Kills: a site that makes its submitters hold what it likes."""

    def sealed(*sizes: int) -> bytes:
        shown = [SnapshotFile(f"file-{n}", bytes(size)) for n, size in enumerate(sizes)]
        return seal(Snapshot(at=NOW, files=shown))

    assert len(open_snapshot(sealed(MAX_SNAPSHOT_BYTES)).files) == 1
    for beyond in ([MAX_SNAPSHOT_BYTES + 1], [0] * (MAX_SNAPSHOT_FILES + 1)):
        with pytest.raises(UsageError, match=r"envelope\.invalid.*form"):
            open_snapshot(sealed(*beyond))
    padded = sealed(1) + b" " * MAX_SNAPSHOT_ENVELOPE_BYTES
    assert msgspec.json.decode(padded, type=Snapshot).at == NOW  # the control
    with pytest.raises(UsageError, match=r"envelope\.invalid.*length"):
        open_snapshot(padded)


@dataclass
class OneFile:
    """A workplace where the progress file has ``size`` bytes; notes what is read."""

    size: int
    read: list[RelPath] = field(default_factory=list)
    found: list[Found] = field(init=False)

    def __post_init__(self) -> None:
        self.found = [Found(PROGRESS, self.size)]

    def collect(self, _place: object) -> OneFile:
        return self

    def glimpse(self, _place: object, asked: Iterable[Found]) -> Iterator[tuple[RelPath, bytes]]:
        for each in asked:
            self.read.append(each.path)
            yield each.path, b"7".rjust(each.size)


@pytest.mark.parametrize(("size", "read"), [(32, [PROGRESS]), (33, [])])
def test_what_is_too_long_for_a_progress_is_not_even_read(size: int, read: list[RelPath]) -> None:
    """Kills: an agent that reads whatever a command gives the name of its progress."""
    place: Any = OneFile(size)
    look(place, place, RULE, [])
    assert place.read == read
