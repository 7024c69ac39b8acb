"""The manifest's table about what may be seen of a command while it runs: `[command.publish]`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from msgspec import Meta, Struct

from sekisho.config.size import Seconds, Size, size_of
from sekisho.domain.egress import OutputRule, PublishRule, check_publish
from sekisho.domain.files import Pattern, RelPath
from sekisho.domain.limits import MAX_SNAPSHOT_FILES


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the tables here."""


class PublishFileTable(Table, frozen=True, kw_only=True):
    """Small files that may be seen before the end, if the submitter asks for them."""

    path: str
    max_bytes: Size = "64 KiB"
    max_files: Annotated[int, Meta(ge=1, le=MAX_SNAPSHOT_FILES)] = 1


class PublishTable(Table, frozen=True, kw_only=True):
    """What leaves while the command runs; without this table nothing does."""

    every_s: Seconds = 30
    progress: str | None = None
    file: list[PublishFileTable] = []


def publish_rule(table: PublishTable) -> PublishRule:
    """Return the rule that ``table`` writes down; raise UsageError."""
    files = tuple(
        OutputRule(path=Pattern(f.path), max_bytes=size_of(f.max_bytes), max_files=f.max_files)
        for f in table.file
    )
    progress = None if table.progress is None else RelPath.parse(table.progress)
    every = timedelta(seconds=table.every_s)
    return check_publish(PublishRule(every=every, files=files, progress=progress))
