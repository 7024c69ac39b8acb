"""Lane and Board in memory, with a site that is a function. For trials and tests of a client."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from sekisho.adapters.chunks_memory import MemoryChunks
from sekisho.domain.errors import Conflict, InvalidTransition, NotFound
from sekisho.domain.files import RelPath
from sekisho.domain.job import JobState
from sekisho.domain.limits import CHUNK_BYTES
from sekisho.transfer.fetch import fetch_index
from sekisho.transfer.tree import Tree, TreeFile
from sekisho.wire.envelope import Outcome, Request, TreeRef, open_request, seal
from sekisho.wire.frames import Chunk, digest_of
from sekisho.wire.v1 import JobPage, JobView, OpenDraft, SiteList, SiteView, SnapshotView, SubmitJob

Files = Mapping[str, bytes]
#: What the site does with a request and its input files: an outcome, and the files let go.
Serve = Callable[[Request, Files], tuple[Outcome, Files]]
_STATES: Final[Mapping[str, JobState]] = {
    "succeeded": JobState.SUCCEEDED,
    "failed": JobState.FAILED,
    "unable": JobState.FAILED,
    "refused": JobState.REFUSED,
    "cancelled": JobState.CANCELLED,
    "lost": JobState.LOST,
}


class MemoryLane:
    """Keeps jobs until `work` lets the site serve them; with ``eager``, serves them at once."""

    def __init__(self, serve: Serve, *, eager: bool = True, submitter: str = "user") -> None:
        self._serve = serve
        self._eager = eager
        self._submitter = submitter
        self._changed = threading.Condition()
        self._messages: dict[str, SubmitJob] = {}
        self._views: dict[str, JobView] = {}
        self._chunks: dict[str, MemoryChunks] = {}
        self._shown: dict[str, bytes] = {}

    def close(self) -> None:
        """Keep everything: jobs go on without us."""

    def submit(self, job: SubmitJob) -> JobView:
        with self._changed:
            opened = job.id in self._views
            view = self._opened(job)
            if self._messages.setdefault(job.id, job) != job:
                raise Conflict("job.different_request", job=job.id)
        return view if opened or job.has_inputs else self.start(job.id)

    def open(self, draft: OpenDraft) -> JobView:
        return self._opened(draft)

    def chunks(self, job_id: str) -> MemoryChunks:
        self._get(job_id)
        return self._chunks[job_id]

    def start(self, job_id: str) -> JobView:
        if self._get(job_id).state == JobState.DRAFT:
            if job_id not in self._messages:
                raise Conflict("job.not_described", job=job_id)
            if missing := self._chunks[job_id].lacking():
                raise Conflict("job.inputs_missing", job=job_id, count=missing)
            self._change(job_id, state=JobState.QUEUED)
            if self._eager:
                self.work(job_id)
        return self._get(job_id)

    def work(self, job_id: str) -> None:
        """Let the site serve one queued job."""
        request = open_request(self._messages[job_id].request)
        chunks = self._chunks[job_id]
        outcome, files = self._serve(request, _contents(request.inputs, chunks))
        outputs = _stored(files, chunks) if files else None
        outcome = msgspec.structs.replace(outcome, outputs=outputs)
        self._change(job_id, state=_STATES[outcome.verdict], result=seal(outcome))

    def view(
        self,
        job_id: str,
        *,
        version: int | None = None,
        wait_s: float = 0,
        end: bool = False,
        patience_s: float | None = None,  # noqa: ARG002 (nothing here is ever unanswered)
    ) -> JobView:
        def news() -> bool:
            view = self._get(job_id)
            return JobState(view.state).terminal or (view.version != version and not end)

        with self._changed:
            self._changed.wait_for(news, wait_s if version is not None else 0)
        return self._get(job_id)

    def publish(self, job_id: str, snapshot: bytes) -> None:
        """Have the job show ``snapshot``, as its site would."""
        self._shown[job_id] = snapshot
        self._change(job_id, snapshots=self._get(job_id).snapshots + 1)

    def snapshot(self, job_id: str) -> SnapshotView:
        view = self._get(job_id)
        if job_id not in self._shown:
            raise NotFound("snapshot.not_found", job=job_id)
        return SnapshotView(number=view.snapshots, snapshot=self._shown[job_id])

    def cancel(self, job_id: str) -> JobView:
        if self._get(job_id).state in (JobState.DRAFT, JobState.QUEUED):
            self._change(job_id, state=JobState.CANCELLED)
        return self._get(job_id)

    def received(self, job_id: str) -> JobView:
        if not JobState(self._get(job_id).state).terminal:
            raise InvalidTransition(job=job_id, state=self._get(job_id).state, event="Received")
        if not self._get(job_id).received:
            self._change(job_id, received=True)
        return self._get(job_id)

    def jobs(self, *, after: str | None = None) -> JobPage:
        views = sorted(self._views.values(), key=lambda v: v.id, reverse=True)
        return JobPage(jobs=[v for v in views if after is None or v.id < after])

    def sites(self) -> SiteList:
        names = sorted({v.site for v in self._views.values()})
        return SiteList(sites=[SiteView(id=name, connected=True) for name in names])

    def clock(self) -> datetime | None:
        return datetime.now(UTC)

    def _opened(self, job: OpenDraft | SubmitJob) -> JobView:
        with self._changed:
            if job.id not in self._views:
                self._add(job)
            if self._views[job.id].site != job.site:
                raise Conflict("job.different_request", job=job.id)
            return self._views[job.id]

    def _add(self, job: OpenDraft | SubmitJob) -> None:
        self._chunks[job.id] = MemoryChunks()
        now = datetime.now(UTC)
        self._views[job.id] = JobView(
            id=job.id,
            site=job.site,
            submitter=self._submitter,
            state=JobState.DRAFT,
            version=0,
            created_at=now,
            changed_at=now,
            expires_at=now + timedelta(days=1),
        )

    def _get(self, job_id: str) -> JobView:
        if job_id not in self._views:
            raise NotFound("job.not_found", job=job_id)
        return self._views[job_id]

    def _change(self, job_id: str, **changes: object) -> None:
        with self._changed:
            view = self._views[job_id]
            changes |= {"version": view.version + 1, "changed_at": datetime.now(UTC)}
            self._views[job_id] = msgspec.structs.replace(view, **changes)
            self._changed.notify_all()


def _contents(ref: TreeRef | None, chunks: MemoryChunks) -> dict[str, bytes]:
    if ref is None:
        return {}
    tree = fetch_index(ref, chunks)
    return {
        str(f.path): b"".join(f.content(lambda chunk: chunks.held[chunk.digest]))
        for f in tree.files
    }


def _stored(files: Files, chunks: MemoryChunks) -> TreeRef:
    pieces = {RelPath.parse(name): _pieces(data) for name, data in files.items()}
    tree = Tree(tuple(_file(path, pieces[path]) for path in sorted(pieces)))
    content = [*tree.index(), *(piece for found in pieces.values() for piece in found)]
    chunks.missing([chunk for chunk, _ in content])
    chunks.send(content)
    return tree.ref()


def _pieces(data: bytes) -> list[tuple[Chunk, bytes]]:
    starts = range(0, len(data), CHUNK_BYTES)
    cut = [data[start : start + CHUNK_BYTES] for start in starts]
    return [(Chunk(digest_of(piece), len(piece)), piece) for piece in cut]


def _file(path: RelPath, pieces: list[tuple[Chunk, bytes]]) -> TreeFile:
    chunks = tuple(chunk for chunk, _ in pieces)
    return TreeFile(path, executable=False, size=sum(c.size for c in chunks), chunks=chunks)
