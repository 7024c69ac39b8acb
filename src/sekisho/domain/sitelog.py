"""The site's log: what was offered, decided, started, ended and released, as a chain of records.

Each line is one record in canonical JSON; its digest covers the digest of the line before, so that
a record that was changed, removed, added or moved breaks the chain at a line that can be named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

ORIGIN: Final = "0" * 64  #: what the first record follows


class Kind(StrEnum):
    """What a record tells."""

    OFFERED = "offered"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    STARTED = "started"  #: the intent; written before anything can run
    ENDED = "ended"
    PUBLISHED = "published"  #: what may leave while the command runs; written before it leaves
    RELEASED = "released"  #: what may leave, by digest; written before its first byte leaves
    RETURNED = "returned"  #: the broker has it
    CANCELLED = "cancelled"
    FAILED = "failed"
    LOST = "lost"
    DROPPED = "dropped"
    RECOVERED = "recovered"  #: a torn last line was cut off at a restart


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One fact. ``facts`` are JSON values; file names occur here and never leave the site."""

    at: datetime
    kind: Kind
    job: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Link:
    """A record in its place: number, digest of the line before, and its own line and digest."""

    seq: int
    digest: str
    line: bytes


def link(record: Record, *, seq: int, previous: str) -> Link:
    """Return ``record`` as line number ``seq`` after the line whose digest is ``previous``."""
    body = {
        "seq": seq,
        "prev": previous,
        "at": record.at.isoformat(),
        "kind": record.kind.value,
        "job": record.job,
        "facts": dict(record.facts),
    }
    line = json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    return Link(seq, hashlib.sha256(line).hexdigest(), line)


@dataclass(frozen=True, slots=True)
class Break:
    """The first place at which a log does not verify: its line (from 1) and what is wrong."""

    line: int
    why: str


def verify(
    lines: Iterable[bytes], *, seq: int = 1, previous: str = ORIGIN
) -> tuple[Link | None, Break | None]:
    """Return the last good link of ``lines`` and the first break, if there is one."""
    last: Link | None = None
    for number, line in enumerate(lines, 1):
        why = _fault_of(line, seq, previous)
        if why is not None:
            return last, Break(number, why)
        previous = hashlib.sha256(line).hexdigest()
        last = Link(seq, previous, line)
        seq += 1
    return last, None


def _fault_of(line: bytes, seq: int, previous: str) -> str | None:
    try:
        body = json.loads(line)
    except (ValueError, RecursionError):
        return "form"
    if not isinstance(body, dict):
        return "form"
    if body.get("prev") != previous:
        return "chain"
    return None if body.get("seq") == seq else "number"
