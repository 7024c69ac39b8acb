"""One lane made of several: each job goes the way that its site has in the settings.

Whose lane a job is on is found by this side's note of it; a job submitted from another host is
asked for on every lane, and then remembered for as long as we run. The broker is the first: it
answers at once, where a host that is away takes its time, and one may ask its user something.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from sekisho.adapters.job_notes import JobNotes
from sekisho.client.client import Line
from sekisho.domain.errors import NotFound, SekishoError
from sekisho.transfer.port import ChunkPort, FilePort
from sekisho.wire.v1 import JobPage, JobView, OpenDraft, SiteList, SnapshotView, SubmitJob

_MARK: Final = "~"  #: in a cursor, between the last job that was shown and the broker's own cursor


class RoutedLane:
    """Lane and Board over ``lanes`` by site, and over ``broker`` for every other site."""

    def __init__(self, lanes: Mapping[str, Line], broker: Line | None, notes: JobNotes) -> None:
        self._lanes = lanes
        self._broker = broker
        self._notes = notes
        self._known: dict[str, Line] = {}

    def close(self) -> None:
        for lane in self._all():
            lane.close()

    def submit(self, job: SubmitJob) -> JobView:
        return self._new(job).submit(job)

    def open(self, draft: OpenDraft) -> JobView | None:
        return self._new(draft).open(draft)

    def chunks(self, job_id: str) -> ChunkPort | FilePort:
        return self._lane(job_id).chunks(job_id)

    def start(self, job_id: str) -> JobView:
        return self._lane(job_id).start(job_id)

    def view(
        self,
        job_id: str,
        *,
        version: int | None = None,
        wait_s: float = 0,
        end: bool = False,
        patience_s: float | None = None,
    ) -> JobView:
        lane = self._lane(job_id)
        return lane.view(job_id, version=version, wait_s=wait_s, end=end, patience_s=patience_s)

    def snapshot(self, job_id: str) -> SnapshotView:
        return self._lane(job_id).snapshot(job_id)

    def cancel(self, job_id: str) -> JobView:
        return self._lane(job_id).cancel(job_id)

    def received(self, job_id: str) -> JobView:
        return self._lane(job_id).received(job_id)

    def jobs(self, *, after: str | None = None) -> JobPage:
        """Return a page of the broker's jobs with those of push mode between them."""
        above, _, cursor = (after or "").partition(_MARK)
        page = JobPage(jobs=[])
        if self._broker is not None:
            page = self._broker.jobs(after=cursor or None)
        floor = page.jobs[-1].id if page.next is not None and page.jobs else ""
        pushed = (view for lane in self._lanes.values() for view in lane.jobs().jobs)
        between = [v for v in pushed if v.id >= floor and (not above or v.id < above)]
        shown = sorted([*page.jobs, *between], key=lambda view: view.id, reverse=True)
        more = None if page.next is None else f"{floor}{_MARK}{page.next}"
        return JobPage(jobs=shown, next=more)

    def sites(self) -> SiteList:
        return SiteList(sites=[site for lane in self._all() for site in lane.sites().sites])

    def clock(self) -> datetime | None:
        return None if self._broker is None else self._broker.clock()

    def _new(self, job: SubmitJob | OpenDraft) -> Line:
        """Return the lane of the site that ``job`` is for."""
        lane = self._lanes.get(job.site, self._broker)
        if lane is None:
            raise NotFound("site.not_found", site=job.site)
        self._known[job.id] = lane
        return lane

    def _all(self) -> list[Line]:
        return [*([] if self._broker is None else [self._broker]), *self._lanes.values()]

    def _lane(self, job_id: str) -> Line:
        if job_id not in self._known:
            self._known[job_id] = self._find(job_id)
        return self._known[job_id]

    def _find(self, job_id: str) -> Line:
        note = self._notes.find(job_id)
        if note is not None and note.site in self._lanes:
            return self._lanes[note.site]
        if not self._lanes and self._broker is not None:
            return self._broker
        return self._ask_all(job_id)

    def _ask_all(self, job_id: str) -> Line:
        """Return the lane that knows the job; when one cannot tell, that is the answer."""
        unsure: SekishoError | None = None
        for lane in self._all():
            try:
                lane.view(job_id, patience_s=0)
            except NotFound:
                continue
            except SekishoError as error:
                unsure = unsure or error
            else:
                return lane
        raise unsure or NotFound("job.not_found", job=job_id)
