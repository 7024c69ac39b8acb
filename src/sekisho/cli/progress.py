"""Showing how a job and its files move: a live line at a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Final, Self, TextIO, cast

from sekisho.cli import output
from sekisho.cli.session import Session
from sekisho.domain.outage import Outage, failed
from sekisho.i18n.catalogue import text
from sekisho.transfer.progress import Pace

if TYPE_CHECKING:
    from sekisho.client.snapshot import Snapshot
    from sekisho.domain.errors import SekishoError
    from sekisho.wire.v1 import JobView

_LINE_EVERY_SECONDS: Final = 10.0
#: Below this a transfer is over before anybody could read of it.
_WORTH_SHOWING_BYTES: Final = 4 << 20
_WORTH_SHOWING_SECONDS: Final = 1.0


def reporter(session: Session) -> Reporter:
    """Return what suits the place that stderr goes to."""
    if session.silent:
        return Reporter(session)
    return LiveReporter(session) if session.err.isatty() else LineReporter(session)


class Reporter(AbstractContextManager["Reporter"]):
    """Shows nothing, and does not even look for the words."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the terminal as it was; after this the state is told anew."""

    def known(self, job_id: str) -> None:
        """Tell that the broker has the job."""

    def changed(self, view: JobView) -> None:
        """Tell the state that the job is in now."""

    def published(self, snapshot: Snapshot) -> None:
        """Tell what the running command shows of itself."""

    def reading(self, done: int, total: int) -> None:
        """Show how far the inputs are read, before anything is sent."""

    def sending(self, done: int, total: int) -> None:
        """Show how far the inputs have come."""

    def fetching(self, done: int, total: int) -> None:
        """Show how far the outputs have come."""

    def pausing(self, error: SekishoError | None, seconds: float) -> None:
        """Tell that the line is bad and that we try again; of no error, that it is back."""


class LineReporter(Reporter):
    """Plain lines, one for each change."""

    def __init__(self, session: Session, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__(session)
        self._monotonic = monotonic
        self._state = ""
        self._due = 0.0
        self._read_since = 0.0
        self._pace = Pace()
        self._outage: Outage | None = None

    def stop(self) -> None:
        self._state = ""

    def known(self, job_id: str) -> None:
        output.note(self.session, self.session.say("submitted", job=job_id))

    def changed(self, view: JobView) -> None:
        state = text("state", view.state, self.session.lang)
        if view.attention is not None:
            state += f" ({text('state', view.attention, self.session.lang)})"
        if state != self._state:
            self._state = state
            self.show_state(state)

    def show_state(self, state: str) -> None:
        output.note(self.session, state)

    def published(self, snapshot: Snapshot) -> None:
        if snapshot.progress is not None:
            self.show_progress(snapshot.progress)
        elif snapshot.files:
            names = ", ".join(snapshot.files)
            output.note(self.session, self.session.say("published", files=names))

    def show_progress(self, percent: int) -> None:
        output.note(self.session, self.session.say("progress", percent=percent))

    def reading(self, done: int, total: int) -> None:
        """Show it when it takes long: most of it is remembered, or read at once."""
        now = self._monotonic()
        if done == 0:
            self._read_since = now
        if now - self._read_since >= _WORTH_SHOWING_SECONDS:
            self.moved("reading", done, total)

    def sending(self, done: int, total: int) -> None:
        self.moved("sending", done, total)

    def fetching(self, done: int, total: int) -> None:
        self.moved("fetching", done, total)

    def moved(self, way: str, done: int, total: int) -> None:
        now = self._monotonic()
        if total >= _WORTH_SHOWING_BYTES and (now >= self._due or done == total):
            self._due = now + _LINE_EVERY_SECONDS
            line = self.session.say(way, done=_mib(done), total=_mib(total))
            if (rate := self._pace.at(done, now)) is not None and done < total:
                left = timedelta(seconds=round((total - done) / rate))
                line += self.session.say("pace", rate=_mib(rate), left=left)
            output.note(self.session, line)

    def pausing(self, error: SekishoError | None, seconds: float) -> None:
        """Tell the first pause that can be felt, then ever more seldom; then that it is over."""
        if error is None:
            self._back()
        elif seconds >= 1:
            self._outage = failed(self._outage, error.code, self._monotonic())
            if self._outage.speaks:
                what = output.what_of(self.session, error)
                what += "" if what.endswith((".", "。")) else "."  # the last words may be ssh's
                output.note(self.session, self.session.say("pausing", what=what, s=round(seconds)))

    def _back(self) -> None:
        outage, self._outage = self._outage, None
        if outage is not None:
            minutes = f"{(self._monotonic() - outage.since) / 60:.1f}"
            words = self.session.say("connected_again", tries=outage.tries, minutes=minutes)
            output.note(self.session, words)


class LiveReporter(LineReporter):
    """One live line with a bar while files move. Loads its library when there is time to look."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._live: Any = None
        self._task: Any = None
        self._moving = False

    def show_state(self, state: str) -> None:
        if self._live is not None:
            self._live.update(self._task, description=state, completed=0, total=None, pace="")
        else:
            super().show_state(state)

    def moved(self, way: str, done: int, total: int) -> None:
        if total < _WORTH_SHOWING_BYTES:
            return
        self._begin(moving=True)
        label = self.session.say(way, done=_mib(done), total=_mib(total))
        speed = self._live.tasks[self._task].speed
        pace = f"{_mib(speed)} MiB/s" if speed else ""
        self._live.update(self._task, description=label, completed=done, total=total, pace=pace)
        if done == total:
            self._live.stop()
            self._live = None

    def show_progress(self, percent: int) -> None:
        self._begin(moving=False)
        self._live.update(self._task, description=self._state, completed=percent, total=100)

    def stop(self) -> None:
        super().stop()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _begin(self, *, moving: bool) -> None:
        """See that the live line is there, with what suits moving files, or a percentage."""
        if self._live is not None and self._moving != moving:
            self._live.stop()
            self._live = None
        if self._live is None:
            self._moving = moving
            self._start()

    def _start(self) -> None:
        from rich.console import Console  # noqa: PLC0415 (only at a terminal, only if it takes time)
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        pace = (TextColumn("{task.fields[pace]}"), TimeRemainingColumn())
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            *(pace if self._moving else (TextColumn("{task.completed}%"),)),
        )
        terminal = cast("IO[str]", _Terminal(self.session.err))
        self._live = Progress(*columns, console=Console(file=terminal), transient=True)
        self._task = self._live.add_task("", total=None, pace="")
        self._live.start()


class _Terminal:
    """A terminal for the live line: closed, it takes what it is given and the work goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def _mib(size: float) -> str:
    return f"{size / (1 << 20):.1f}"
