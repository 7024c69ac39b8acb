"""A job in the submitter's hands: wait for it, cancel it, fetch what the site let go."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from sekisho.client.errors import JobGoesOn
from sekisho.client.lane import Lane
from sekisho.client.result import Result, result_of
from sekisho.client.snapshot import Snapshot, snapshot_of
from sekisho.client.spec import PathLike
from sekisho.domain.errors import NotFound, Unavailable
from sekisho.domain.job import JobState
from sekisho.domain.limits import POLL_SECONDS
from sekisho.transfer.fetch import fetch_files, fetch_index, fetch_tree
from sekisho.transfer.kept import Kept, remember
from sekisho.transfer.place import check_into
from sekisho.transfer.port import FileSource
from sekisho.transfer.progress import Progress, unseen
from sekisho.transfer.remembered import Forgetful, Remembered
from sekisho.transfer.tree import Tree
from sekisho.wire.envelope import TreeRef
from sekisho.wire.v1 import JobView

_FORGETFUL: Final = Forgetful()


def _unheard(_view: JobView) -> None:
    """Tell nobody."""


class Job:
    """One job, by its id. Made by `Client.submit`, or by `Client.job` for one submitted before.

    >>> job = client.submit("tohoku", "solve", inputs=["model.inp"], outputs=["stress.csv"])
    >>> job.result("results").files
    (PosixPath('results/stress.csv'),)
    """

    def __init__(
        self,
        lane: Lane,
        view: JobView,
        monotonic: Callable[[], float] = time.monotonic,
        results: Remembered = _FORGETFUL,
    ) -> None:
        self._lane = lane
        self._view = view
        self._results = results
        self._monotonic = monotonic

    def __repr__(self) -> str:
        return f"Job({self.id!r}, {self._view.state!r})"

    @property
    def id(self) -> str:
        return self._view.id

    @property
    def view(self) -> JobView:
        """The job as it was last seen."""
        return self._view

    @property
    def ended(self) -> bool:
        """Whether the job was last seen in a state that it never leaves."""
        return JobState(self._view.state).terminal

    def refresh(self) -> JobView:
        """Look now."""
        self._view = self._lane.view(self.id)
        return self._view

    def wait(
        self, timeout: float | None = None, on_change: Callable[[JobView], None] = _unheard
    ) -> Result:
        """Return how the job ended, however it did; raise JobGoesOn after ``timeout`` seconds.

        A broker that is away for a while is waited for: nothing is lost by it.
        """
        end = None if timeout is None else self._monotonic() + timeout
        on_change(self._view)
        while not self.ended:
            rest = None if end is None else end - self._monotonic()
            if rest is not None and rest <= 0:
                raise JobGoesOn(job=self.id)
            before = self._view.version
            self._view = self._poll(rest, end=on_change is _unheard)
            if self._view.version != before:
                on_change(self._view)
        return result_of(self._view)

    def _poll(self, rest: float | None, *, end: bool) -> JobView:
        wait_s = POLL_SECONDS if rest is None else min(POLL_SECONDS, rest)
        try:
            return self._lane.view(
                self.id, version=self._view.version, wait_s=wait_s, end=end, patience_s=rest
            )
        except Unavailable as error:
            if rest is None:
                raise
            raise JobGoesOn(job=self.id) from error

    def snapshot(self) -> Snapshot | None:
        """Return what the running job has published last; None when there is nothing.

        What that may be is said by the site's manifest, which usually says: nothing.
        """
        try:
            return snapshot_of(self.id, self._lane.snapshot(self.id))
        except NotFound as error:
            if error.code != "snapshot.not_found":
                raise
            return None

    def fetch(self, into: PathLike, progress: Progress = unseen) -> Result:
        """Bring the ended job's files into the directory ``into``; return how it ended.

        Files with the same names are replaced, each as a whole; of what an earlier result left
        there only what differs is sent. When this returns they are on disk, verified, and the other
        side has been told so. May be repeated; continues where an interrupted one stopped.
        Raise Conflict(`fetch.into`) when no file can be put into ``into``.
        """
        if not self.ended and not JobState(self.refresh().state).terminal:
            raise JobGoesOn(job=self.id)
        result = result_of(self._view)
        if result.outputs is not None and result.outputs.files:
            check_into(Path(into))
            tree = self._brought(result.outputs, Path(into), progress)
            files = tuple(Path(into, *f.path.parts) for f in tree.files)
            result = replace(result, files=files)
        self._view = self._lane.received(self.id)
        return result

    def _brought(self, ref: TreeRef, into: Path, progress: Progress) -> Tree:
        port = self._lane.chunks(self.id)
        if isinstance(port, FileSource):  # whoever gives whole files knows what differs
            return fetch_tree(ref, port, into, progress)
        tree = fetch_index(ref, port)
        fetch_files(tree, Kept.of(tree, into, port, self._results), into, progress)
        remember(tree, into, self._results)
        return tree

    def result(
        self,
        into: PathLike,
        timeout: float | None = None,
        on_change: Callable[[JobView], None] = _unheard,
        progress: Progress = unseen,
    ) -> Result:
        """Wait, fetch into ``into``, and return the result of a job that succeeded.

        Otherwise raise CommandFailed, JobRefused, SiteUnable, JobCancelled, JobExpired, JobLost
        (all of them JobError, with the result) or JobGoesOn. What a failed command may show comes
        back too, before the error is raised.
        """
        self.wait(timeout, on_change)
        return self.fetch(into, progress).check()

    def cancel(self) -> JobView:
        """Ask that the job be stopped, and return its state at once. `wait` tells the outcome."""
        self._view = self._lane.cancel(self.id)
        return self._view
