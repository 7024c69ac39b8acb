"""What another host says of a job's files, judged as it is read: it is the word of a stranger.

A name is a name only as `RelPath`; sizes and counts are held against the caps again; a survey that
does not say that it came to its end is none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sekisho.adapters.walk import printable
from sekisho.domain.egress import Fault, Found, Withheld
from sekisho.domain.errors import Unavailable, UsageError
from sekisho.domain.files import RelPath
from sekisho.site.workplace import CollectCaps, Collected, Why

WHYS: Final = frozenset(why.value for why in Why)
_COUNTED: Final = re.compile(r" *(\d{1,19}) ?\./(.+)")


def over(why: str, limit: int) -> Fault:
    return Fault("collect.over", (("limit", limit), ("why", why)))


class View:
    """What a survey says, judged as it is read."""

    def __init__(self, caps: CollectCaps) -> None:
        self._caps = caps
        self._found: dict[RelPath, int] = {}
        self._withheld: dict[str, str] = {}
        self._unlisted = 0
        self._fault: Fault | None = None

    def found(self, name: str, size: int) -> None:
        parts = tuple(name.split("/"))
        for n in range(1, len(parts)):
            if self._named(parts[:n]) is None:
                return
        path = self._named(parts)
        if path is None:
            return
        if size > self._caps.max_file_bytes:
            self.withheld(name, Why.TOO_LARGE)
        elif len(self._found) >= self._caps.max_entries:
            self.over("entries", self._caps.max_entries)
        else:
            self._found[path] = size

    def _named(self, parts: tuple[str, ...]) -> RelPath | None:
        """Return the name, or say why that folder or file has none."""
        try:
            return RelPath(parts)
        except UsageError as error:
            deep = error.params.get("why") == "depth"
            self.withheld("/".join(parts), Why.TOO_DEEP if deep else Why.NAME)
            return None

    def withheld(self, name: str, why: str) -> None:
        shown = printable(name)
        if shown in self._withheld:
            return
        if len(self._withheld) < self._caps.max_withheld:
            self._withheld[shown] = why if why in WHYS else Why.CHANGED.value
        else:
            self._unlisted += 1

    def unlisted(self, count: int) -> None:
        self._unlisted += count

    def over(self, why: str, limit: int) -> None:
        self._fault = self._fault or over(why, limit)

    def collected(self) -> Collected:
        withheld = tuple(Withheld(name, why) for name, why in self._withheld.items())
        if self._fault is not None:
            return Collected(withheld=withheld, unlisted=self._unlisted, faults=(self._fault,))
        found = tuple(Found(path, size) for path, size in sorted(self._found.items()))
        return Collected(found=found, withheld=withheld, unlisted=self._unlisted)


def read_walk(view: View, lines: Iterable[str]) -> None:
    """Read what `far_walk` says; its last line is the proof that it came to the end."""
    for line in lines:
        match decoded(line):
            case ["found", str(name), int(size)] if size >= 0:
                view.found(name, size)
            case ["withheld", str(name), str(why)]:
                view.withheld(name, why)
            case ["over", str(why), int() | float() as limit]:
                view.over(why, int(limit))
            case ["root", str(why)]:
                view.withheld(".", why)
                return
            case ["fault", str(why)]:
                raise Unavailable("site.work_base", why=why[:40])
            case ["end", int(unlisted)]:
                view.unlisted(unlisted)
                return
            case _:
                break
    raise Unavailable("host.unreachable", why="answer")


def decoded(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def read_find(view: View, lines: Sequence[str]) -> None:
    """Read what `find` and `wc` say. A name with a newline in it makes lines that are no names."""
    about = ""
    for line in lines:
        if line in ("end", "root"):
            break
        word, _, rest = line.partition(" ")
        if word == "is" and rest in {*WHYS, "found"}:
            about = rest
        elif about != "found" and line.startswith("./"):
            view.withheld(line[2:], about)
        elif about == "found" and (counted := _COUNTED.fullmatch(line)) is not None:
            view.found(counted[2], int(counted[1]))
        elif not re.fullmatch(r" *\d+ total", line):
            view.withheld(line, Why.NAME)
    else:
        raise Unavailable("host.unreachable", why="answer")
    if line == "root":
        view.withheld(".", Why.CHANGED)
