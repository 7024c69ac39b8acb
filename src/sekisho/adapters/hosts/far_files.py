"""A job's directories on a computing host: made, looked at, copied out of, removed.

Rule 1: with a Python there, `far_walk` looks and copies by held descriptors, as the gateway itself
        would. Without one, the shell does what it can: no link is followed, but against a process
        of the job that still runs and swaps names it cannot hold. The job is dead by then.
Rule 2: what comes is the word of another machine: names, sizes and counts are judged again here.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from sekisho.adapters.hosts.far import FarHost, script
from sekisho.adapters.hosts.far_view import WHYS, View, decoded, over, read_find, read_walk
from sekisho.adapters.walk import printable
from sekisho.domain.errors import (
    Conflict,
    Corrupt,
    StorageFull,
    TooLarge,
    Unavailable,
    Unreachable,
)
from sekisho.domain.files import RelPath
from sekisho.domain.ids import check_job_id
from sekisho.site.host import Answer
from sekisho.site.workplace import CollectCaps, Collected, Why
from sekisho.transfer.place import no_room

#: Where a Python may be; the first that is new enough is taken.
PYTHONS: Final = ("python3", *(f"python3.{n}" for n in range(14, 5, -1)), "/usr/bin/python3")
_CALL_S: Final = 60.0
_PIECE: Final = 1 << 20
_FULL: Final = re.compile(rb"No space left|Disk quota exceeded|[Qq]uota exceeded")
_FAULT: Final = re.compile(r"fault ([A-Za-z_]{1,40})")


@dataclass(frozen=True, slots=True)
class Wish:
    """A file to be copied: released with ``size``, or the end of a log, ``size`` at most."""

    folder: str
    path: str
    size: int
    end: bool = False


@dataclass(frozen=True, slots=True)
class Sight:
    """What a computing host is like. ``python`` is "" where none is new enough."""

    free_bytes: int
    clock: int
    shell: str
    rsync: str
    python: str


@dataclass(slots=True)
class FarFiles:
    """The directories below ``base`` of ``host``. ``python``: where to look; "": use none."""

    host: FarHost
    base: str
    python: str | None = None
    _sight: Sight | None = field(default=None)

    def look(self) -> Sight:
        """Return what the host is like now."""
        pythons = PYTHONS if self.python is None else tuple(filter(None, [self.python]))
        facts = {"python": "", "rsync": "", "free": "", "clock": "", "shell": ""}
        for line in self._lines("look", *pythons):
            word, _, rest = line.partition(" ")
            if word in facts:
                facts[word] = rest.strip()
        self._sight = Sight(
            free_bytes=int(facts["free"]) << 10 if facts["free"].isdigit() else -1,
            clock=int(facts["clock"]) if facts["clock"].isdigit() else 0,
            shell=facts["shell"],
            rsync=facts["rsync"],
            python=facts["python"],
        )
        return self._sight

    @property
    def sight(self) -> Sight:
        return self._sight or self.look()

    def prepare(self, job: str, attempt: int, spare_bytes: int) -> None:
        """Make the attempt's directories; raise Conflict when something was started in them."""
        self._lines("prepare", job, str(attempt), str(spare_bytes >> 10))

    def purge(self, job: str) -> bool:
        """Remove all of ``job``; say whether nothing is left."""
        return "left" not in self._lines("purge", job, timeout_s=10 * _CALL_S)

    def put(self, job: str, attempt: int, name: RelPath, source: Path) -> None:
        """Copy one file into the work directory, for a host without rsync."""
        seen = source.stat()
        mode = "700" if seen.st_mode & 0o100 else "600"
        words = ("put", job, str(attempt), str(name), str(seen.st_size), mode)
        self._lines(*words, stdin=source, timeout_s=_CALL_S + seen.st_size / 1e5)

    # ------------------------------------------------------------------------- looking

    def survey(self, job: str, attempt: int, caps: CollectCaps) -> Collected:
        """Return what is in the work directory; see `Workplace.collect`."""
        view = View(caps)
        if self.sight.python:
            wanted = {name: getattr(caps, name) for name in caps.__slots__}
            text, words = self._walk("survey", job, attempt, json.dumps(wanted))
        else:
            text, words = script("far.sh"), self._words("survey", job, attempt, caps.max_file_bytes)
        most = 2 * caps.max_name_bytes + 64 * caps.max_entries
        try:
            answer = self._asked(text, words, timeout_s=caps.max_seconds + _CALL_S, max_bytes=most)
        except TooLarge:
            return Collected(faults=(over("names", caps.max_name_bytes),))
        lines = answer.stdout.decode("utf-8", "surrogateescape").split("\n")
        if self.sight.python:
            read_walk(view, lines)
        else:
            _last(lines)
            read_find(view, lines)
        return view.collected()

    # ------------------------------------------------------------------------- copying

    def copy(self, job: str, attempt: int, wishes: Sequence[Wish], place: Path) -> dict[int, str]:
        """Copy what is wished for into folders of ``place``; return which were withheld, and why.

        Goes on behind the last whole file when the line breaks, as long as something arrives.
        """
        withheld: dict[int, str] = {}
        done = 0
        while done < len(wishes):
            before = done
            try:
                for n, why in self._copied(job, attempt, list(wishes[done:]), place):
                    if why:
                        withheld[before + n] = why
                    done = before + n + 1
            except Unreachable:
                if done == before:
                    raise
        return withheld

    def _copied(
        self, job: str, attempt: int, wishes: Sequence[Wish], place: Path
    ) -> Iterator[tuple[int, str]]:
        nonce = secrets.token_hex(8)
        if self.sight.python:
            text, words = self._walk("copy", job, attempt, "1")
            lines = [[w.folder, w.path, {"most" if w.end else "size": w.size}] for w in wishes]
            stdin = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        else:
            text, words = script("far.sh"), self._words("copy", job, attempt, nonce)
            stdin = "".join(f"{w.folder} {w.size} {w.path}\n" for w in wishes).encode()
        with self.host.stream(text, words, stdin=stdin) as stream:
            heads = _Heads(stream, None if self.sight.python else nonce)
            for n, wish in enumerate(wishes):
                yield n, self._one(heads, wish, place)

    def _one(self, heads: _Heads, wish: Wish, place: Path) -> str:
        kind, *rest = heads.next()
        target = place / wish.folder / wish.path
        if kind == "file":
            size, executable = rest
            if size > wish.size + int(wish.end) or (not wish.end and size != wish.size):
                raise Unreachable("host.unreachable", why="answer")
            with _made(target, executable=bool(executable)) as out:
                heads.copy(size, out)
            kind, *rest = heads.next()
        if kind != "done" or rest[0] not in WHYS | {""}:
            raise Unreachable("host.unreachable", why="answer")
        if rest[0]:
            with suppress(FileNotFoundError):
                target.unlink()
        return str(rest[0])

    # ------------------------------------------------------------------------- asking

    def _walk(self, verb: str, job: str, attempt: int, given: str) -> tuple[str, list[str]]:
        check_job_id(job)
        code = script("far_walk.py")
        python = [self.sight.python, "-I", "-S", "-c", code]
        return '"$@"', [*python, verb, self.base, job, str(attempt), given]

    def _words(self, verb: str, *words: object) -> list[str]:
        if verb != "look":
            check_job_id(str(words[0]))  # here, too: what is removed is never anything else
        return [verb, self.base, *map(str, words)]

    def _asked(self, text: str, words: Sequence[str], **bounds: Any) -> Answer:
        answer = self.host.call(text, words, **bounds)
        if _FULL.search(answer.stderr):
            raise StorageFull("site.disk_full")
        return answer

    def _lines(
        self, verb: str, *words: object, stdin: Path | None = None, timeout_s: float = _CALL_S
    ) -> list[str]:
        text, asked = script("far.sh"), self._words(verb, *words)
        answer = self._asked(text, asked, stdin=stdin or b"", timeout_s=timeout_s)
        lines = answer.stdout.decode("utf-8", "replace").split("\n")
        if (last := _last(lines)) != "end":
            raise Unavailable("host.unreachable", why=printable(last[:80]))
        return lines


def _last(lines: list[str]) -> str:
    """Return the last line of an answer of `far.sh`; raise what it means when it is a fault."""
    last = lines[-2] if len(lines) > 1 else ""
    if (found := _FAULT.fullmatch(last)) is not None:
        raise _meant(found[1])
    return last


def _meant(why: str) -> Exception:
    match why:
        case "full":
            return StorageFull("site.disk_full")
        case "short":  # a cut line looks like the end of what is read
            return Unreachable("host.unreachable", why="cut")
        case "started":
            return Conflict("site.attempt_started")
        case "changed":
            return Corrupt("site.work_changed", why=why)
        case _:
            return Unavailable("site.work_base", why=why)


class _Heads:
    """The heads between the files of a stream, and the files. ``nonce``: of the shell's way."""

    def __init__(self, stream: IO[bytes], nonce: str | None) -> None:
        self._stream = stream
        self._nonce = nonce

    def next(self) -> list[Any]:
        line = self._stream.readline(4096).decode("utf-8", "replace")
        head = self._spoken(line) if self._nonce else decoded(line)
        match head:
            case ["file", int(size), int(executable)] if size >= 0:
                return ["file", size, executable]
            case ["done", str(why)]:
                return ["done", why]
            case ["root", str(why)]:
                raise Corrupt("site.work_changed", why=why[:40])
            case ["fault", str(why)]:
                raise Unavailable("site.work_base", why=why[:40])
            case _:
                raise Unreachable("host.unreachable", why="cut")

    def _spoken(self, line: str) -> list[Any]:
        words = line.split()
        if line == "root\n":
            return ["root", Why.CHANGED.value]
        if words[:1] != [self._nonce] or not line.endswith("\n"):
            return []
        match words[1:]:
            case ["file", size, bit] if size.isdigit() and bit in ("0", "1"):
                return ["file", int(size), int(bit)]
            case ["done", *why] if len(why) < 2:
                return ["done", "".join(why)]
            case _:
                return []

    def copy(self, size: int, out: int) -> None:
        """Copy the next ``size`` bytes; raise Unreachable when they do not come."""
        while size:
            data = self._stream.read(min(_PIECE, size))
            if not data:
                raise Unreachable("host.unreachable", why="cut")
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(out, rest) :]
            size -= len(data)


@contextmanager
def _made(target: Path, *, executable: bool) -> Iterator[int]:
    """Make a file in the quarantine anew."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(target, flags, 0o700 if executable else 0o600)
        try:
            yield fd
        finally:
            os.close(fd)
    except OSError as error:
        if no_room(error):
            raise StorageFull("site.disk_full") from error
        raise Unavailable("site.work_base", why=type(error).__name__) from error
