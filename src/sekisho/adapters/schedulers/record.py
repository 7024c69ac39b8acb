"""What a wrapper leaves in a control directory: its latch, its start record, its exit record.

A record counts when it is complete, carries our token and is a plain small file; whatever else is
there (torn, foreign, a link that the command has put in its place) is no record.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sekisho.adapters.hosts.process_tree import ProcessRef
from sekisho.domain.run import Exit

_MAX_RECORD: Final = 1024
_TRACES: Final = ("latch", "exit.new", "exit", "stdout", "stderr")
_SIGNAL_BASE: Final = 128
_START: Final = re.compile(r"start (\S+) (\d{1,10}) (\d{1,20}) (\S{1,64}) \d{1,11} (\S+) \.\s*")
_EXIT: Final = re.compile(r"exit (\S+) (\d{1,3}) (\d{1,11}) (\d{1,11}) \.\s*")


@dataclass(frozen=True, slots=True)
class Start:
    """Who holds the latch: a wrapper's process on ``host``."""

    wrapper: ProcessRef
    host: str


def untouched(control_dir: str) -> bool:
    """Say whether the directory is there and no wrapper has ever come as far as a start in it."""
    return Path(control_dir).is_dir() and not any(
        os.path.lexists(Path(control_dir, name)) for name in _TRACES
    )


def read_start(control_dir: str, token: str) -> Start | None:
    """Return the start record of ``token``."""
    return start_in(_read(Path(control_dir, "latch", "start")), token)


def start_in(text: str, token: str) -> Start | None:
    """Return the start record that ``text`` is, if it is one of ``token``."""
    found = _START.fullmatch(text)
    if found is None or found[1] != token:
        return None
    wrapper = ProcessRef(int(found[2]), int(found[3]), found[4])
    return Start(wrapper, found[5])


def read_exit(control_dir: str, token: str) -> Exit | None:
    """Return the exit record of ``token``."""
    return exit_in(_read(Path(control_dir, "exit")), token)


def exit_in(text: str, token: str) -> Exit | None:
    """Return the exit record that ``text`` is, if it is one of ``token``.

    A shell reports death by signal n as 128 + n, as it does for a command that returns that number.
    """
    found = _EXIT.fullmatch(text)
    if found is None or found[1] != token:
        return None
    code = int(found[2])
    number = code - _SIGNAL_BASE if _SIGNAL_BASE < code <= _SIGNAL_BASE + 64 else 0
    started_at, ended_at = _moment(found[3]), _moment(found[4])
    return Exit(code=code, signal=number, started_at=started_at, ended_at=ended_at)


def _moment(seconds: str) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


def _read(path: Path) -> str:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError:
        return ""
    try:
        plain = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return os.read(descriptor, _MAX_RECORD).decode("utf-8", "replace") if plain else ""
    finally:
        os.close(descriptor)
