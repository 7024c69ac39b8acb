"""The verbs of `bare.sh` at a host, with their answers read strictly: the other side may lie.

Every verb may be repeated. `Unreachable` leaves it open whether the verb was carried out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final

from sekisho.adapters.hosts.login_shell import login_fault
from sekisho.adapters.hosts.process_tree import WRAPPER
from sekisho.adapters.hosts.ssh import SshHost
from sekisho.domain.errors import Conflict, NotFound, Refused, SekishoError, Unavailable
from sekisho.domain.files import RelPath
from sekisho.domain.limits import MAX_FILES, MAX_PATH_BYTES
from sekisho.transfer.holes import BLOCK_BYTES

#: Where an input is while it comes, in a job's work directory until the program starts.
COMING: Final = ".sekisho-coming"
_SCRIPT: Final = Path(__file__).with_name("bare.sh")
_WORDS: Final = re.compile(r"exit ([0-9a-f]{1,64}) (\d{1,3}) (\d{1,11}) (\d{1,11}) \.")
_FREE: Final = re.compile(rb"\s(\d{1,18})\s+\d+%\s")
_BASE: Final = re.compile(rb"base (\d{1,20})")
_SEARCHED: Final = re.compile(rb"end (\d{1,3})")
_STATES: Final = frozenset(
    {"absent", "away", "making", "ready", "starting", "running", "cancelled", "gone", "exit"}
)
_SLACK_S: Final = 30.0
_CALL_S: Final = 60.0
#: The exit status of a command that a signal has ended is this or above.
_KILLED: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """A believable exit record of the wrapper."""

    token: str
    code: int
    started_at: datetime
    ended_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One job as the site has it now. ``exit`` is there when ``word`` is "exit"."""

    word: str
    cancel_asked: bool = False
    exit: Exit | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """What a program left behind: the size of its log, and its files by name and size.

    ``strange`` counts files whose names may not cross a boundary. Not ``whole``: some folder could
    not be looked into. ``taken``: what files with holes take over there, in bytes.
    """

    log_bytes: int
    files: tuple[tuple[RelPath, int], ...]
    strange: int = 0
    whole: bool = True
    taken: Mapping[RelPath, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BareHost:
    """Jobs below ``base`` at ``ssh``; the directory of each is private to the login's user.

    ``bases``: the number that the base's directory had when a job was met there. Without the job's
    directory, a base with another number is `bare.away`: another file system, or none, is there.
    """

    ssh: SshHost
    base: str
    bases: dict[str, str] = field(default_factory=dict, compare=False)

    def make(
        self, job_id: str, record: bytes, start: tuple[str, Sequence[str]] | None = None
    ) -> tuple[str, bytes]:
        """Make the job durable; return its state's word and the record that is there now.

        With ``start``, a token and an argument vector, a job that is new is started as well.
        """
        begin = () if start is None else (start[0], _text(WRAPPER), *start[1])
        out = self._call("make", job_id, str(len(record)), *begin, stdin=record)
        return self._met(job_id, out)

    def record(self, job_id: str) -> tuple[str, bytes]:
        """Return the state's word and the record of a job; raise NotFound."""
        return self._met(job_id, self._call("record", job_id))

    def settle(self, job_id: str) -> None:
        """Wait a little for a transfer of inputs that was cut off to keep what it had."""
        _whole(self._call("settle", job_id), b"settled\n")

    def start(self, job_id: str, token: str, argv: Sequence[str]) -> str:
        """Say that the inputs are there, start the program unless something did before.

        Return the state's word: "ready" until the wrapper has come to its first act.
        """
        return _word(self._call("start", job_id, token, _text(WRAPPER), *argv))

    def look(self, words: Mapping[str, str], wait_s: float) -> tuple[datetime, dict[str, Seen]]:
        """Return the site's time and what has become of jobs, in one call for all of them.

        ``words`` tells how each was last seen; the answer comes when one differs, or after
        ``wait_s``.
        """
        pairs = [f"{self._named(job_id)}={word}" for job_id, word in words.items()]
        argv = [*self._head("look"), str(int(wait_s)), *pairs]
        out = _whole(self._output(argv, timeout_s=wait_s + _SLACK_S), b"end\n")
        first, *lines = out.decode("utf-8", "replace").split("\n")[:-1] or [""]
        seen = dict(_seen(line) for line in lines)
        if not seen.keys() >= words.keys():
            raise _strange()
        return _time(first.removeprefix("clock ")), seen

    def cancel(self, job_id: str) -> None:
        """See to it that the program never starts, or ask it to end and soon make it."""
        _whole(self._call("cancel", job_id, _text(_SCRIPT)), b"asked\n")

    def left(self, job_id: str) -> Left:
        """Return what an ended program left, after ending whatever of it still runs."""
        head, _, listing = self._call("left", job_id).partition(b"\n")
        *entries, end = _whole(listing, b"\0").split(b"\0")
        ended = _SEARCHED.fullmatch(end)
        size = head.removeprefix(b"log ").strip()
        if not size.isdigit() or ended is None or int(ended[1]) >= _KILLED:
            raise _strange()
        if b"again" in entries:
            entries = entries[entries.index(b"again") + 1 :]
        return _left(int(size), filter(None, entries), whole=ended[1] == b"0")

    def log(self, job_id: str, size: int) -> bytes:
        """Return what the program printed: ``size`` bytes, as `left` has just said."""
        if len(said := self._call("tail", job_id, str(size))) != size:
            raise _strange()
        return said

    def clean(self, days: int) -> None:
        """Remove ended jobs that are older."""
        self._output([*self._head("clean"), str(days)], timeout_s=_CALL_S * 10)

    def room(self) -> int:
        """Return how many bytes are free where jobs go; raise when none can be made there."""
        free = _FREE.search(_whole(self._told(self._head("room")), b"end\n"))
        if free is None:
            raise _strange()
        return int(free[1]) << 10

    def explained(self, error: SekishoError) -> SekishoError:
        """Return why an answer was strange, when the login itself tells; else ``error``."""
        if error.code == "bare.strange":
            with suppress(SekishoError):
                return login_fault(self.ssh) or error
        return error

    def place(self, job_id: str) -> str:
        """Return the job's directory there."""
        return f"{self.base}/{job_id}"

    def _named(self, job_id: str) -> str:
        number = self.bases.get(job_id, "")
        return f"{job_id}@{number}" if number else job_id

    def _met(self, job_id: str, out: bytes) -> tuple[str, bytes]:
        word, self.bases[job_id], record = _placed(out, job_id)
        return word, record

    def _call(self, verb: str, job_id: str, *words: str, stdin: bytes = b"") -> bytes:
        return self._told([*self._head(verb), self._named(job_id), *words], job_id, stdin)

    def _told(self, argv: Sequence[str], job_id: str = "", stdin: bytes = b"") -> bytes:
        out = self._output(argv, stdin=stdin, timeout_s=_CALL_S)
        if out.startswith(b"fault "):
            raise self._fault(out[6:].strip().decode("ascii", "replace"), job_id)
        return out

    def _fault(self, word: str, job_id: str) -> SekishoError:
        faults: dict[str, SekishoError] = {
            "absent": NotFound("job.not_found", job=job_id),
            "away": self.away(),
            "closed": Unavailable("bare.closed", base=self.base),
            "foreign": Refused("bare.foreign", job=job_id),
            "storage": Unavailable("bare.storage"),
            "running": Conflict("bare.running", job=job_id),
        }
        return faults.get(word) or _strange()

    def away(self) -> Unavailable:
        """Return the error that the place of all jobs is not there: it may be back later."""
        return Unavailable("bare.away", base=self.base)

    def _head(self, verb: str) -> list[str]:
        return ["sh", "-c", _text(_SCRIPT), "sekisho", verb, self.base]

    def _output(self, argv: Sequence[str], *, timeout_s: float, stdin: bytes = b"") -> bytes:
        done = self.ssh.run(argv, stdin=stdin, timeout_s=timeout_s)
        if done.code != 0:
            raise _strange()
        return done.stdout


@cache
def _text(script: Path) -> str:
    return script.read_text("utf-8")


def _strange() -> SekishoError:
    return Unavailable("bare.strange")


def _whole(out: bytes, end: bytes) -> bytes:
    """Return an answer without its ``end``, which proves that nothing is lacking."""
    if not out.endswith(end):
        raise _strange()
    return out.removesuffix(end)


def _placed(out: bytes, job_id: str) -> tuple[str, str, bytes]:
    """Return the state's word, the base's number and the record."""
    head, _, rest = _whole(out, b"\nend\n").partition(b"\n")
    base, _, rest = rest.partition(b"\n")
    state, mark, record = rest.partition(b"\n")
    number = _BASE.fullmatch(base)
    placed = head.startswith(b"work /") and head.endswith(f"/{job_id}/work".encode())
    if not (mark and placed and number):
        raise _strange()
    return _word(state), number[1].decode(), record


def _word(out: bytes) -> str:
    word = out.removeprefix(b"state ").strip().decode("ascii", "replace")
    if word not in _STATES:
        raise _strange()
    return word


def _seen(line: str) -> tuple[str, Seen]:
    job_id, _, rest = line.partition(" ")
    asked, _, words = rest.partition(" ")
    word = words.partition(" ")[0]
    if word not in _STATES or asked not in ("0", "1"):
        raise _strange()
    # the state's word stands before the record, whose first word is the same
    end = _exit(words.removeprefix("exit ").strip()) if word == "exit" else None
    if word == "exit" and end is None:  # whatever else is in its place is no record
        word = "gone"
    return job_id, Seen(word=word, cancel_asked=asked == "1", exit=end)


def _exit(words: str) -> Exit | None:
    found = _WORDS.fullmatch(words)
    if found is None:
        return None
    token, code, started, ended = found.groups()
    return Exit(token=token, code=int(code), started_at=_time(started), ended_at=_time(ended))


def _time(words: str) -> datetime:
    if not words.isascii() or not words.isdigit() or len(words) > 11:
        raise _strange()
    return datetime.fromtimestamp(int(words), UTC)


def _left(log_bytes: int, entries: Iterable[bytes], *, whole: bool) -> Left:
    files: list[tuple[RelPath, int]] = []
    taken: dict[RelPath, int] = {}
    strange = 0
    for entry in entries:
        size, blocks, name = (*entry.split(b" ", 2), b"", b"")[:3]
        counted = size.isdigit() and blocks.isdigit()
        if not counted or len(name) > MAX_PATH_BYTES or len(files) >= MAX_FILES:
            strange += 1
            continue
        try:
            path = RelPath.parse(name.decode("utf-8"))
        except (UnicodeDecodeError, SekishoError):
            strange += 1
            continue
        files.append((path, int(size)))
        if int(blocks) * BLOCK_BYTES < int(size):
            taken[path] = int(blocks) * BLOCK_BYTES
    return Left(log_bytes, tuple(sorted(files)), strange, whole, taken)
