"""The language of a batch system: what it is asked, and what its answers mean.

Rule 1: an answer that is not understood says nothing. Absent is not finished, unknown not success.
Rule 2: no text of a submitter is in any command line: names are ours, the rest is the site's.
Rule 3: every submission forbids a second start, brings no environment and sends no mail.
Rule 4: of an array a table only says whether something of its name is left: the elements' own
        records tell the rest. All its rows bear the id of the whole.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sekisho.domain.errors import SekishoError, Unavailable
from sekisho.domain.resources import Resources
from sekisho.site.host import Answer

SCRIPT: Final = "script"
#: What the batch system itself has to say about a job, for the site's people.
LOG: Final = "batch.log"
_NOT_FOUND: Final = 127
_SAID: Final = (
    (re.compile(r"[Ee]xceeded job memory limit|oom.kill|[Oo]ut.of.memory"), "limit.memory"),
    (re.compile(r"DUE TO TIME LIMIT|job killed: walltime"), "limit.time"),
)


class State(StrEnum):
    """How a batch system sees a job. What is not surely over is alive."""

    WAITING = "waiting"
    ALIVE = "alive"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One job of the batch system. ``why`` is the code of an end that was not the command's own.

    ``held``: it waits, and does not start by itself. Somebody there has to do something.
    """

    id: str
    name: str
    state: State
    why: str | None = None
    held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What is submitted: the constant script in ``directory``. ``wall_time`` in seconds.

    With more ``elements`` than one it is an array; one is a plain job everywhere, since not every
    batch system has arrays of one.
    """

    name: str
    directory: str
    resources: Resources
    wall_time: int
    elements: int = 1

    def numbers(self, first: int = 0) -> str | None:
        """Return the numbers of an array's elements, as ``0-19``; None: it is none."""
        return None if self.elements == 1 else f"{first}-{first + self.elements - 1}"

    def limited_numbers(self) -> str | None:
        """Return them with how many may run at once, as ``0-19%4``."""
        numbers, at_once = self.numbers(), self.resources.at_once
        return numbers if numbers is None or at_once is None else f"{numbers}%{at_once}"


Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """How many jobs a batch system takes from one account at once, where it can be asked.

    ``ask`` makes the question of the status command and the account's name. ``most`` reads a
    complaint about a full queue and the answer: the number above which none of the limits that it
    may have meant ever lets a job in; None when that is not known.
    """

    ask: Callable[[Words, str], Words]
    most: Callable[[str, str], int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One kind of batch system.

    ``search`` finds jobs by their names alone, ``by_ids`` those whose ids are known, where a system
    asks otherwise about them. Both answers are read by ``rows``, which raises
    Unavailable(`scheduler.strange`) for what it does not understand. ``receipt`` is the whole of a
    good answer to a submission, with the id in it. ``full`` and ``away`` recognise complaints: no
    room now, not there now.
    """

    name: str
    commands: tuple[Words, Words, Words]  #: submit, status, cancel
    element: str  #: what a shell has to say to get the number of an array's element
    submit: Callable[[Words, Submission], Words]
    receipt: re.Pattern[str]
    search: Callable[[Words, Sequence[str], str], Words]
    rows: Callable[[Answer], list[Row]]
    full: re.Pattern[str]
    away: re.Pattern[str]
    by_ids: Callable[[Words, Sequence[str]], Words] | None = None
    first: int = 0  #: the number of an array's first element
    limits: Limits | None = None

    def submitted(self, stdout: str) -> str:
        """Return the id of what was submitted; "" when the answer is any other than a receipt."""
        found = self.receipt.fullmatch(stdout)
        return found[1] if found else ""

    def status(self, command: Words, ids: Sequence[str], names: Sequence[str], user: str) -> Words:
        """Return the line that asks about jobs by ids or names, as the system allows."""
        if self.by_ids is not None and ids:
            return self.by_ids(command, ids)
        return self.search(command, names, user)


def state_of(word: str, waiting: Container[str], ended: Container[str]) -> State:
    """Return the state that ``word`` stands for; whatever is neither is alive."""
    if word in waiting:
        return State.WAITING
    return State.ENDED if word in ended else State.ALIVE


def job_name(token: str) -> str:
    """Return the name under which the job of ``token`` is submitted: 15 characters fit everywhere.

    56 bits of a hash: unique among all jobs that a site will ever have, and no secret.
    """
    return "s" + hashlib.sha256(token.encode()).hexdigest()[:14]


def text_of(answer: Answer) -> str:
    """Return what a command said, on both streams."""
    return (answer.stdout + b"\n" + answer.stderr).decode("utf-8", "replace")


def lines_of(answer: Answer) -> list[str]:
    """Return the lines of a good listing; raise `strange` when it is none, or its last is cut."""
    text = answer.stdout.decode("utf-8", "replace")
    if answer.code != 0 or (text and not text.endswith("\n")):
        raise strange(answer)
    return text.splitlines()


def strange(answer: Answer) -> Unavailable:
    """Return the fault of an answer that is not understood."""
    return Unavailable("scheduler.strange", code=answer.code)


def complaint(dialect: Dialect, answer: Answer) -> SekishoError | None:
    """Return why a command was not done; None for a complaint of no known kind."""
    text = text_of(answer)
    if dialect.full.search(text):
        return Unavailable("scheduler.full")
    if answer.code == _NOT_FOUND:
        return Unavailable("scheduler.command", said=text.strip()[:200])
    if dialect.away.search(text):
        return Unavailable("scheduler.away", said=text.strip()[:200])
    return None


def why_in(log: str) -> str | None:
    """Return the code of what killed a job, if the batch system wrote it into the job's log.

    A Slurm without control groups tells of memory only there.
    """
    return next((code for pattern, code in _SAID if pattern.search(log)), None)


def clock(seconds: int) -> str:
    """Return a duration as hours, minutes and seconds."""
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def mebibytes(size: int) -> int:
    """Return a size in MiB, rounded up."""
    return -(-size // (1 << 20))
