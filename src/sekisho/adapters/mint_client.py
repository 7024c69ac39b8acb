"""A workflow's calculation at a broker that speaks the old MInt protocol, from end to end."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from msgspec import Struct

from sekisho.adapters.mint_line import Entry, MintLine
from sekisho.domain.errors import Refused, StorageFull, Unavailable
from sekisho.domain.files import RelPath
from sekisho.transfer.fetch import fetch_files
from sekisho.transfer.spooled import SpooledTree
from sekisho.wire.mint import (
    ABNORMAL,
    ERROR,
    GOT_RETURN,
    LOG_NAMES,
    ResultFile,
    input_name,
    kind_of,
    result_name,
)
from sekisho.wire.mint_body import Content, Lifted, Weaver

#: Pauses between two looks, in seconds; the last one stays.
_PAUSES: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_PIECE_BYTES: Final = 3 << 18
T = TypeVar("T")


class ResultInfo(Struct, kw_only=True):
    result_files: dict[str, ResultFile] = {}


class _Entry(Struct, kw_only=True, rename={"result_info": "result-info"}):
    code: int | str = 0
    message: str = ""
    result_info: ResultInfo | None = None


class _Result(Struct, kw_only=True, rename={"result_info": "result-info"}):
    """Results stand beside `errors`, or within their one entry."""

    result_info: ResultInfo | None = None
    errors: list[_Entry] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Calculation:
    """What is asked for. A listed input that does not exist is sent empty, as ever."""

    site: str
    command: str
    inputs: Sequence[Path]
    results: Sequence[str]
    parameters: str = ""


@dataclass(slots=True)
class MintClient:
    """The workflow's side of a line. ``say`` is told each change of progress."""

    line: MintLine
    say: Callable[[str], None] = lambda _: None
    _shown: str = field(default="")

    def add(self, wish: Calculation) -> str:
        """Register the calculation with its inputs, and let it wait; return its accept id."""
        weaver = Weaver()
        nothing = {"content": "", "mimetype1": "", "mimetype2": ""}
        info = {
            "command": wish.command,
            "remote-site": wish.site,
            "parameters": wish.parameters,
            "parameter_files": {str(input_name(str(f))): _sent(f, weaver) for f in wish.inputs},
            "result_files": dict.fromkeys((*wish.results, *LOG_NAMES), nothing),
        }
        size, body = weaver.weave({"calc-info": info})
        accept_id = _passed("add-calcinfo", self.line.send("add-calcinfo", size, body)).accept_id
        try:
            waiting = self.line.say("allow-wait-calc", {"accept_id": accept_id})
            _passed("allow-wait-calc", waiting)
        except BaseException:
            self.delete(accept_id)
            raise
        return accept_id

    def wait(self, accept_id: str) -> bool:
        """Wait for the end; say whether it was a normal one. A bad line is waited for."""
        pauses, pause = iter(_PAUSES), _PAUSES[0]
        while True:
            status, progress = self._patiently(lambda: self._look(accept_id))
            self._show(f"{progress} ({status})")
            if progress == GOT_RETURN:
                return status != ABNORMAL
            pause = next(pauses, pause)
            time.sleep(pause)

    def _look(self, accept_id: str) -> tuple[str, str]:
        calls = ("calc-status", "calc-progress")
        status, progress = (
            _passed(call, self.line.ask(call, accept_id=accept_id)).word for call in calls
        )
        return status, progress

    def _patiently(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns once the line is good enough for it."""
        pauses, pause = iter(_PAUSES), _PAUSES[0]
        while True:
            try:
                return work()
            except StorageFull:
                raise
            except Unavailable as error:
                self._show(error.code)
            pause = next(pauses, pause)
            time.sleep(pause)

    def fetch(self, accept_id: str, wish: Calculation, directory: Path) -> dict[str, str]:
        """Put the results into ``directory``; return why those that are missing are.

        An answer that was cut is asked for again. A broker of today gives it again; an old one has
        forgotten it and says so.
        """
        return self._patiently(lambda: self._fetched(accept_id, wish, directory))

    def _fetched(self, accept_id: str, wish: Calculation, directory: Path) -> dict[str, str]:
        with tempfile.TemporaryFile() as spool:
            body = self.line.lifted("get-calc-result", spool, accept_id=accept_id)
            files = _results(body)
            wanted = {result_name(name) for name in (*wish.results, *LOG_NAMES)}
            missing = {n: f.mimetype2 for n, f in files.items() if f.mimetype1 == ERROR}
            here = {
                RelPath.parse(name): body.content(file.content)
                for name, file in files.items()
                if name in wanted and name not in missing
            }
            tree = SpooledTree(spool, here)
            fetch_files(tree.tree, tree, directory)
        return missing

    def delete(self, accept_id: str) -> None:
        """Have the calculation forgotten, whatever it does."""
        self.line.say("cancel-wait-calc", {"accept_id": accept_id, "delete": "force"})

    def _show(self, text: str) -> None:
        if text != self._shown:
            self._shown = text
            self.say(text)


def _sent(file: Path, weaver: Weaver) -> list[str]:
    if not file.is_file():
        return ["", "", ""]
    content = Content(file.stat().st_size, lambda: _pieces(file))
    return [weaver.hole(content), *kind_of(content)]


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            yield piece


def _passed(call: str, entry: Entry) -> Entry:
    if not entry.ok:
        raise Refused("mint.answer", call=call, code=entry.code, text=entry.message)
    return entry


def _results(body: Lifted) -> Mapping[str, ResultFile]:
    answer = body.decoded(_Result)
    entry = answer.errors[0] if answer.errors else _Entry()
    found = answer.result_info or entry.result_info
    if found is None:
        raise Refused("mint.answer", call="get-calc-result", code=entry.code, text=entry.message)
    return found.result_files
