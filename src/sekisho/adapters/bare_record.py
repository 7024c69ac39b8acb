"""A bare site's job in words: the record that lies there, and the outcome that is told here."""

from __future__ import annotations

import getpass
import re
from datetime import datetime
from typing import Final

from msgspec import Struct

from sekisho.adapters.bare_files import Back
from sekisho.adapters.hosts.bare import Exit, Seen
from sekisho.domain.ids import USER_PATTERN
from sekisho.wire.envelope import Outcome
from sekisho.wire.v1 import SubmitJob

_SIGNAL_BASE: Final = 128


class Record(Struct, frozen=True, kw_only=True):
    """What lies in a job's directory at the site: enough for any host of ours to go on with it."""

    format: int = 1
    job: SubmitJob
    submitter: str
    argv: list[str]
    token: str
    created_at: datetime


def outcome_of(seen: Seen, end: Exit, back: Back) -> Outcome:
    """Return what the end of a program means, with the files that came back."""
    number = end.code - _SIGNAL_BASE if _SIGNAL_BASE < end.code <= _SIGNAL_BASE + 64 else None
    stopped = seen.cancel_asked and number is not None
    failed = end.code != 0 or bool(back.faults)
    fault = back.faults[0] if back.faults and end.code == 0 else None
    return Outcome(
        verdict="cancelled" if stopped else "failed" if failed else "succeeded",
        exit_code=end.code,
        signal=number,
        code=None if fault is None else fault.code,
        params={} if fault is None else dict(fault.params),
        outputs=back.tree.ref() if back.tree.files else None,
        started_at=end.started_at,
        ended_at=end.ended_at,
    )


def written(value: object) -> str:
    """Return a parameter's value as the word that the program gets."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def submitter() -> str:
    """Return who submits from here: this side's user, as a name that may be told."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
    return name if re.fullmatch(USER_PATTERN, name) else "unknown"
