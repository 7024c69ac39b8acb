"""Builders: things that are right in every respect but the one that a test is about."""

from __future__ import annotations

import hashlib
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sekisho.broker.ports import Site, Token
from sekisho.domain.access import Role
from sekisho.domain.ids import make_id
from sekisho.domain.job import Job
from sekisho.wire.frames import Chunk, digest_of

NOW: Final = datetime(2026, 4, 1, 9, 0, 0, 123456, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)

_numbers: Final = itertools.count(1)


def an_id(prefix: str) -> str:
    """Return an id that sorts behind all earlier ones."""
    number = next(_numbers)
    return make_id(prefix, at_ms=1_700_000_000_000 + number, entropy=number.to_bytes(10))


def a_job(**changes: Any) -> Job:
    """Return a draft of `alice` for the site `one`."""
    usual: dict[str, Any] = {
        "id": an_id("job"),
        "site": "one",
        "submitter": "alice",
        "created_at": NOW,
        "expires_at": NOW + DAY,
        "request": b"a request",
        "request_digest": "d" * 64,
    }
    return Job(**(usual | changes))


def a_site(site_id: str = "one", **changes: Any) -> Site:
    """Return a site that serves `alice` and was never seen."""
    usual: dict[str, Any] = {"submitters": frozenset({"alice"}), "created_at": NOW}
    return Site(id=site_id, **(usual | changes))


def a_token(role: Role = Role.SUBMITTER, name: str = "alice", **changes: Any) -> Token:
    """Return a token that does not end."""
    token_id = an_id("tok")
    secret = hashlib.sha256(token_id.encode()).hexdigest()
    usual: dict[str, Any] = {"id": token_id, "hash": secret, "created_at": NOW}
    return Token(role=role, name=name, **(usual | changes))


def a_chunk(text: str = "a chunk") -> tuple[Chunk, bytes]:
    """Return bytes and the chunk that they are."""
    data = text.encode()
    return Chunk(digest_of(data), len(data)), data
