"""What wrappers left in the control directories of a job, and what that proves.

A job has one control directory; an array has one for each of its elements, below its own. An
element's records carry the job's token with the number of the element.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from sekisho.adapters.schedulers.record import exit_in
from sekisho.domain.run import Exit, Part
from sekisho.site.scheduler import Exited, Gone, NotStarted

Latch = Literal["missing", "fresh", "revoked", "taken"]
_ELEMENT: Final = re.compile(r"exit \S+-(\d{1,5}) .*")
_MAX_RANGES_CHARACTERS: Final = 120


@dataclass(frozen=True, slots=True)
class Traces:
    """What is in one control directory; the records as they stand, not yet believed."""

    latch: Latch
    start: str = ""
    exit: str = ""

    @property
    def started(self) -> bool:
        return self.latch == "taken"

    @property
    def startable(self) -> bool:
        """Whether a wrapper that comes now would start something."""
        return self.latch == "fresh"

    @property
    def taken(self) -> str:
        """What has been started: two of these differ when something was, meanwhile."""
        return self.latch if self.started else ""

    def end(self, token: str) -> Exited | None:
        """Return the end that can be believed."""
        end = exit_in(self.exit, token) if self.started else None
        return None if end is None else Exited(end)

    def fate(self, _: str, why: str | None) -> Gone | NotStarted:
        """Say what became of what is not there any more, and has no end."""
        return Gone(why) if self.latch in ("taken", "missing") else NotStarted(why)


@dataclass(frozen=True, slots=True)
class ArrayTraces:
    """What is in the control directories of an array: a letter of ``mfrt`` for each element.

    They stand for the words of `Latch`; ``exits`` are the exit records that there are.
    """

    latches: str
    exits: tuple[str, ...] = ()

    @property
    def started(self) -> bool:
        return "t" in self.latches

    @property
    def startable(self) -> bool:
        return "f" in self.latches

    @property
    def taken(self) -> str:
        return self.latches.replace("f", "r")

    def end(self, token: str) -> Exited | None:
        """Return the end of the whole: of the first element that failed, when all have ended."""
        count = len(self.latches)
        ends = self._ends(token) if len(self.exits) >= count else {}
        if not ends or len(ends) < count:
            return None
        failed = [number for number in sorted(ends) if ends[number].code != 0]
        told = replace(
            ends[failed[0] if failed else 0],
            started_at=min(each.started_at for each in ends.values()),
            ended_at=max(each.ended_at for each in ends.values()),
        )
        return Exited(told, part=Part(count=count, failed=ranges(failed)) if failed else None)

    def fate(self, token: str, why: str | None) -> Gone | NotStarted:
        ends = self._ends(token)
        lost = [n for n, latch in enumerate(self.latches) if latch in "tm" and n not in ends]
        unstarted = [n for n, latch in enumerate(self.latches) if latch in "rf"]
        if len(unstarted) == len(self.latches):
            return NotStarted(why)
        part = Part(count=len(self.latches), lost=ranges(lost), unstarted=ranges(unstarted))
        return Gone(why, part)

    def _ends(self, token: str) -> Mapping[int, Exit]:
        ends: dict[int, Exit] = {}
        for text in self.exits:
            found = _ELEMENT.fullmatch(text)
            number = int(found[1]) if found else len(self.latches)
            end = exit_in(text, element_token(token, str(number)))
            if end is not None and self.latches[number : number + 1] == "t":
                ends[number] = end
        return ends


def element_token(token: str, number: str) -> str:
    """Return what the records of one element carry."""
    return f"{token}-{number}"


def ranges(numbers: Iterable[int]) -> str:
    """Return ascending ``numbers`` as in ``3,5-7``; what would be too long ends with ``...``."""
    spans: list[tuple[int, int]] = []
    for number in numbers:
        first, last = spans[-1] if spans else (0, -2)
        spans[-1:] = [(first, number)] if number == last + 1 else [*spans[-1:], (number, number)]
    text = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
    if len(text) <= _MAX_RANGES_CHARACTERS:
        return text
    return text[:_MAX_RANGES_CHARACTERS].rpartition(",")[0] + ",..."
