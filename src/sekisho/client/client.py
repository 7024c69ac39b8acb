"""The client: one submitter's access to the sites that serve them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from sekisho.client.job import Job
from sekisho.client.lane import Board, Lane
from sekisho.client.spec import JobSpec
from sekisho.domain.ids import ENTROPY_BYTES, check_job_id, make_id
from sekisho.domain.job import JobState
from sekisho.transfer.ahead import Ahead
from sekisho.transfer.port import ChunkPort, FilePort
from sekisho.transfer.progress import Progress, unseen
from sekisho.transfer.remembered import Forgetful, Remembered
from sekisho.transfer.send import send_local
from sekisho.transfer.source import LocalTree, scan
from sekisho.transfer.tree import Tree
from sekisho.wire.envelope import Request, seal
from sekisho.wire.v1 import JobView, OpenDraft, SiteView, SubmitJob


class Line(Lane, Board, Protocol):
    """Both ports, as one lane offers them."""


def new_job_id() -> str:
    """Return a job id never used before."""
    entropy = secrets.token_bytes(ENTROPY_BYTES)
    return make_id("job", at_ms=time.time_ns() // 1_000_000, entropy=entropy)


class Client:
    """Submits jobs and finds them again. Safe to share between threads; a context manager.

    ``remembered`` knows the chunks of inputs, ``results`` those of files that were fetched.
    """

    def __init__(
        self,
        line: Line,
        remembered: Remembered | None = None,
        results: Remembered | None = None,
    ) -> None:
        self._line = line
        self._remembered = remembered or Forgetful()
        self._results = results or Forgetful()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Jobs go on."""
        self._line.close()

    def submit(
        self,
        spec: JobSpec,
        *,
        job_id: str | None = None,
        reading: Progress = unseen,
        progress: Progress = unseen,
        on_known: Callable[[str], None] = lambda _job_id: None,
    ) -> Job:
        """Submit a job and its inputs; when this returns the broker keeps it, whatever happens.

        Whoever keeps the ``job_id`` can call this again after any interruption, even of this very
        process: the same job is found, and inputs that arrived are not sent again. ``reading`` is
        told how far the inputs are read, ``on_known`` the id when the broker has the job, and
        ``progress`` how far they are sent, which begins while large ones are still read.
        """
        job_id = check_job_id(job_id or new_job_id())
        ahead = Ahead(lambda: self._begun(OpenDraft(id=job_id, site=spec.site)))
        try:
            local = LocalTree(scan(spec.entries()), self._remembered, reading, ahead.found)
            view = self._line.submit(_message(job_id, spec, local.tree))
            on_known(job_id)
            if view.state == JobState.DRAFT:
                send_local(local, self._line.chunks(job_id), progress, ahead)
                view = self._line.start(job_id)
        finally:
            ahead.leave()
        return Job(self._line, view, results=self._results)

    def _begun(self, draft: OpenDraft) -> ChunkPort | None:
        """Return where to send inputs of a job that is not submitted yet, if they are taken."""
        view = self._line.open(draft)
        if view is None or view.state != JobState.DRAFT:
            return None
        port = self._line.chunks(draft.id)
        return None if isinstance(port, FilePort) else port

    def job(self, job_id: str, patience_s: float | None = None) -> Job:
        """Return a job submitted before; raise NotFound if there is no such job of ours.

        A line that is down is tried again for ``patience_s`` seconds; None: as the settings say.
        """
        view = self._line.view(check_job_id(job_id), patience_s=patience_s)
        return Job(self._line, view, results=self._results)

    def jobs(self) -> Iterator[JobView]:
        """Return our jobs, newest first."""
        page = self._line.jobs()
        yield from page.jobs
        while page.next is not None:
            page = self._line.jobs(after=page.next)
            yield from page.jobs

    def sites(self) -> list[SiteView]:
        """Return the sites that serve us."""
        return self._line.sites().sites

    def clock(self) -> datetime | None:
        """Return the broker's time as of its last answer."""
        return self._line.clock()


def _message(job_id: str, spec: JobSpec, inputs: Tree) -> SubmitJob:
    has_inputs = bool(inputs.files)
    request = Request(
        command=spec.command,
        parameters=dict(spec.parameters),
        inputs=inputs.ref() if has_inputs else None,
        outputs=list(spec.outputs),
    )
    return SubmitJob(
        id=job_id,
        site=spec.site,
        request=seal(request),
        has_inputs=has_inputs,
        queue_s=spec.queue_limit.total_seconds() if spec.queue_limit else None,
    )
