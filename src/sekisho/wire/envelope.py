"""The opaque envelopes of a job: the request for the site; outcome and snapshot for the submitter.

The broker carries them unread. Each begins with a version so that a later one can be signed and
encrypted without a change of table or route.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from sekisho.domain.errors import UsageError
from sekisho.domain.limits import (
    MAX_ENVELOPE_BYTES,
    MAX_PARAMETERS,
    MAX_PATH_BYTES,
    MAX_REQUESTED,
    MAX_SNAPSHOT_BYTES,
    MAX_SNAPSHOT_ENVELOPE_BYTES,
    MAX_SNAPSHOT_FILES,
)

Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
Text = Annotated[str, Meta(max_length=4096)]


class ChunkRef(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    digest: Digest
    size: Annotated[int, Meta(ge=0)]


class TreeRef(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names a tree of files: the digest of its list, and the chunks in which the list travels."""

    digest: Digest
    files: Annotated[int, Meta(ge=0)]
    size: Annotated[int, Meta(ge=0)]
    index: list[ChunkRef]


class Request(Struct, frozen=True, kw_only=True, tag="request/1", forbid_unknown_fields=True):
    """What the submitter asks of the site. An unknown field is refused: it might restrict."""

    command: Annotated[str, Meta(max_length=64)]
    parameters: Annotated[
        dict[str, int | float | bool | Text], Meta(max_length=MAX_PARAMETERS)
    ] = {}
    inputs: TreeRef | None = None
    outputs: Annotated[list[Text], Meta(max_length=MAX_REQUESTED)] = []


class MintRequest(Request, frozen=True, kw_only=True, tag="request/1+mint"):
    """What an old MInt client asks: the site finds the command whose `mint_command` this is."""

    command: Annotated[str, Meta(max_length=64)] = ""
    mint_command: Text
    mint_parameters: Text = ""


class Outcome(Struct, frozen=True, kw_only=True, tag="outcome/1"):
    """What the site tells the submitter. ``code`` and ``params`` are a reason, not yet words."""

    verdict: Literal["succeeded", "failed", "unable", "refused", "cancelled", "lost"]
    exit_code: int | None = None
    signal: int | None = None
    code: str | None = None
    params: dict[str, str | int] = {}
    outputs: TreeRef | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    receipt: str | None = None  #: digest of the site log's record of this release: proof for later


class SnapshotFile(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    path: Annotated[str, Meta(max_length=MAX_PATH_BYTES)]
    content: Annotated[bytes, Meta(max_length=MAX_SNAPSHOT_BYTES)]


class Snapshot(Struct, frozen=True, kw_only=True, tag="snapshot/1"):
    """What a running job shows of itself. ``progress`` is a percentage."""

    at: datetime
    progress: Annotated[int, Meta(ge=0, le=100)] | None = None
    files: Annotated[list[SnapshotFile], Meta(max_length=MAX_SNAPSHOT_FILES)] = []
    receipt: str | None = None  #: digest of the site log's record of this release


T = TypeVar("T", Request, Outcome, Snapshot)
_REQUESTS: Any = Request | MintRequest


def seal(message: Request | Outcome | Snapshot) -> bytes:
    """Return the envelope that carries ``message``."""
    return msgspec.json.encode(message)


def open_request(envelope: bytes) -> Request:
    """Return the request, or raise UsageError(`envelope.invalid`).

    One that says a name twice is none: whoever reviews or relays it could read the other value.
    """
    request: Request = _open(envelope, _REQUESTS)
    try:
        json.loads(envelope, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise UsageError("envelope.invalid", why="form") from error
    return request


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UsageError("envelope.invalid", why="twice")
    return found


def open_outcome(envelope: bytes) -> Outcome:
    """Return the outcome, or raise UsageError(`envelope.invalid`)."""
    return _open(envelope, Outcome)


def open_snapshot(envelope: bytes) -> Snapshot:
    """Return the snapshot, or raise UsageError(`envelope.invalid`)."""
    return _open(envelope, Snapshot, MAX_SNAPSHOT_ENVELOPE_BYTES)


def _open(envelope: bytes, kind: type[T], limit: int = MAX_ENVELOPE_BYTES) -> T:
    if len(envelope) > limit:
        raise UsageError("envelope.invalid", why="length")
    try:
        return msgspec.json.decode(envelope, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError("envelope.invalid", why="form") from error
