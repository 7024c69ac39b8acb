"""Lane and Board over HTTPS, to a broker."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sekisho.adapters.chunks_https import HttpsChunks
from sekisho.adapters.http_line import HttpLine, message
from sekisho.adapters.http_sender import Call
from sekisho.domain.ids import check_job_id
from sekisho.domain.job import JobState
from sekisho.wire.v1 import JobPage, JobView, OpenDraft, SiteList, SnapshotView, SubmitJob

_POLL_SLACK_SECONDS: Final = 15.0
#: Between two looks, when the broker answers a long poll at once without news: it is stopping.
_BREATH_SECONDS: Final = 1.0


class HttpsLane:
    """One submitter's lane; the line carries the credential."""

    def __init__(self, line: HttpLine) -> None:
        self._line = line

    def close(self) -> None:
        self._line.close()

    def submit(self, job: SubmitJob) -> JobView:
        return self._line.ask(message("POST", "v1/jobs", job), JobView)

    def open(self, draft: OpenDraft) -> JobView | None:
        return self._line.ask(message("POST", "v1/drafts", draft), JobView)

    def chunks(self, job_id: str) -> HttpsChunks:
        return HttpsChunks(self._line, f"{_path(job_id)}/chunks")

    def start(self, job_id: str) -> JobView:
        return self._act(job_id, "start")

    def snapshot(self, job_id: str) -> SnapshotView:
        return self._line.ask(Call(method="GET", path=f"{_path(job_id)}/snapshot"), SnapshotView)

    def cancel(self, job_id: str) -> JobView:
        return self._act(job_id, "cancel")

    def received(self, job_id: str) -> JobView:
        return self._act(job_id, "received")

    def view(
        self,
        job_id: str,
        *,
        version: int | None = None,
        wait_s: float = 0,
        end: bool = False,
        patience_s: float | None = None,
    ) -> JobView:
        query = {} if version is None else {"version": str(version), "wait_s": f"{wait_s:.3f}"}
        if end:
            query["end"] = "true"
        call = Call(
            method="GET", path=_path(job_id), query=query, read_s=wait_s + _POLL_SLACK_SECONDS
        )
        began = self._line.patience.monotonic()
        view = self._line.ask(call, JobView, limit_s=patience_s)
        told = JobState(view.state).terminal or (view.version != version and not end)
        if not told and self._line.patience.monotonic() - began < wait_s / 2:
            self._line.patience.wait(min(wait_s, _BREATH_SECONDS))
        return view

    def jobs(self, *, after: str | None = None) -> JobPage:
        query = {} if after is None else {"after": after}
        return self._line.ask(Call(method="GET", path="v1/jobs", query=query), JobPage)

    def sites(self) -> SiteList:
        return self._line.ask(Call(method="GET", path="v1/sites"), SiteList)

    def clock(self) -> datetime | None:
        return self._line.date

    def _act(self, job_id: str, verb: str) -> JobView:
        return self._line.ask(Call(method="POST", path=f"{_path(job_id)}/{verb}"), JobView)


def _path(job_id: str) -> str:
    return f"v1/jobs/{check_job_id(job_id)}"
