"""Looking at a computing host: does it let us in, may we work there, are its programs there.

Nothing is started there; the base of the jobs' directories is made when it is missing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final

from sekisho.adapters.hosts.far_files import FarFiles, Sight
from sekisho.adapters.hosts.programs import LOOK
from sekisho.domain.errors import SekishoError
from sekisho.domain.manifest import Command
from sekisho.site.check import CLOCK_WARNING_SECONDS, Finding, fault, found, judge_room, ok

_CODES: Final = {
    "missing": "check.program_missing",
    "closed": "check.program_not_executable",
}


def probe_far(files: FarFiles, commands: Sequence[Command]) -> Iterator[Finding]:
    """Log in, look at base, room, clock and tools, and at the programs of ``commands``."""
    name = files.host.name
    try:
        sight = files.look()
    except SekishoError as error:
        yield fault("host", error)
        yield found("programs", "check.not_tried", first="host")
        return
    tools = f"rsync {sight.rsync or '-'}, python {sight.python or '-'}"
    yield ok("host", f"{name}: {tools}{', noisy' if files.host.noisy else ''}")
    if sight.free_bytes >= 0:
        yield judge_room("host", f"{name}:{files.base}", sight.free_bytes)
    yield from _clock(name, sight)
    yield from _programs(files, commands)


def _clock(name: str, sight: Sight) -> Iterator[Finding]:
    seconds = round(sight.clock - time.time())
    if abs(seconds) > CLOCK_WARNING_SECONDS:
        yield found("host", "check.host_clock", host=name, seconds=seconds)


def _programs(files: FarFiles, commands: Sequence[Command]) -> Iterator[Finding]:
    places = [command.program for command in commands]
    try:
        words = files.host.call(LOOK, places).stdout.decode("utf-8", "replace").split()
    except SekishoError as error:
        yield fault("programs", error)
        return
    for command, file, word in zip(commands, places, words, strict=False):
        where = f"{files.host.name}:{file}"
        if word in _CODES:
            yield found("programs", _CODES[word], command=command.name, file=where)
        else:
            yield ok("programs", f"{command.name}: {where}")
