"""Every route of the broker, with the scope that it needs. This page is the attack surface.

Where the settings let old MInt programs in (`[mint]`), the paths in `http.mint_calls` belong to it.

Each row: method and path · scope · what comes in (and query parameters) · what goes out · purpose.
A caller is who the token says, never who a parameter says; a job, site or chunk that is not the
caller's does not exist for them (404). Chunks travel as bytes, everything else as JSON. There is no
route that gives the broker a command to run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sekisho.domain.access import Scope
from sekisho.http.admin_calls import AdminCalls
from sekisho.http.call import Anything, Chunks, Digests, Document, Frames, Row, Text
from sekisho.http.chunk_calls import ChunkCalls
from sekisho.http.early_calls import EarlyCalls
from sekisho.http.open_calls import OpenCalls
from sekisho.http.openapi import openapi
from sekisho.http.query import Arrival, Fetching, HeldFetching, Hold, Idle, JobList, JobWait
from sekisho.http.site_calls import SiteCalls
from sekisho.http.submitter_calls import SubmitterCalls
from sekisho.wire import v1


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """The functions behind the routes."""

    submitter: SubmitterCalls
    inputs: ChunkCalls
    site: SiteCalls
    early: EarlyCalls
    outputs: ChunkCalls
    admin: AdminCalls
    open: OpenCalls


OPEN: Final = Scope.OPEN
SUBMIT: Final = Scope.JOB_SUBMIT
READ: Final = Scope.JOB_READ
CANCEL: Final = Scope.JOB_CANCEL
JOIN: Final = Scope.SITE_JOIN
WORK: Final = Scope.SITE_WORK
METRICS: Final = Scope.METRICS_READ
ADMIN: Final = Scope.ADMIN


def routes(c: Calls) -> list[Row]:
    """Return the route table."""
    s, w, e, a, o = c.submitter, c.site, c.early, c.admin, c.open
    described: dict[str, Any] = {}
    rows = [
        # workflow side: a submitter, about jobs of their own
        Row("POST /v1/jobs", SUBMIT, v1.SubmitJob, v1.JobView, s.submit,
            "Keep a new job (201), or return the one kept before under this id (200)"),
        Row("POST /v1/drafts", SUBMIT, v1.OpenDraft, v1.JobView, s.open,
            "Keep a new job whose request comes later, while its inputs are still being read"),
        Row("GET /v1/jobs", READ, None, v1.JobPage, s.page, query=JobList,
            purpose="List own jobs, newest first"),
        Row("GET /v1/jobs/{id}", READ, None, v1.JobView, s.view, query=JobWait, waits=True,
            purpose="Show a job; with `version` and `wait_s`, wait until it changes"),
        Row("GET /v1/jobs/{id}/snapshot", READ, None, v1.SnapshotView, s.snapshot,
            "Read what a running job has published last, if its site permits any of it"),
        Row("POST /v1/jobs/{id}/chunks/missing", SUBMIT, Chunks, Digests, c.inputs.missing,
            "Declare input chunks of a draft; answer which are not stored yet"),
        Row("PUT /v1/jobs/{id}/chunks", SUBMIT, Frames, v1.Done, c.inputs.store, waits=True,
            purpose="Store declared chunks"),
        Row("POST /v1/jobs/{id}/chunks/fetch", READ, Digests, Frames, c.inputs.fetch,
            "Read chunks that the job has declared: its outputs", query=Fetching),
        Row("POST /v1/jobs/{id}/start", SUBMIT, None, v1.JobView, s.start,
            "Queue a draft whose inputs are all stored"),
        Row("POST /v1/jobs/{id}/cancel", CANCEL, None, v1.JobView, s.cancel,
            "End a job that nobody has; ask the site that has it to stop"),
        Row("POST /v1/jobs/{id}/received", READ, None, v1.JobView, s.received,
            "Say that the result is safe; it may now be forgotten"),
        Row("GET /v1/sites", READ, None, v1.SiteList, s.sites,
            "List the sites that serve the caller"),
        # site side: one site's agent, about jobs offered to, or held by, its site
        Row("POST /v1/site/join", JOIN, v1.JoinSite, v1.Joined, w.join,
            "Use an invitation up: name the hash of the site's own token"),
        Row("POST /v1/site/poll", WORK, v1.Poll, v1.PollAnswer, w.poll, waits=True,
            purpose="Wait for offers and cancel requests (204: no news)"),
        Row("POST /v1/site/jobs/{id}/accept", WORK, v1.Accept, v1.Done, w.accept,
            "Take an offered job, for good"),
        Row("POST /v1/site/jobs/{id}/report", WORK, v1.Report, v1.Done, w.report,
            "Say that a held job started, or ended"),
        Row("POST /v1/site/jobs/{id}/snapshot", WORK, v1.Publish, v1.Done, w.publish,
            "Replace what a running job shows of itself"),
        Row("POST /v1/site/jobs/{id}/verdict", WORK, v1.Verdict, v1.Done, w.verdict,
            "Say the last word on a held job"),
        Row("POST /v1/site/jobs/{id}/chunks/missing", WORK, Chunks, Digests, c.outputs.missing,
            "Declare output chunks of a held job; answer which are not stored yet", query=Hold),
        Row("PUT /v1/site/jobs/{id}/chunks", WORK, Frames, v1.Done, c.outputs.store, waits=True,
            purpose="Store declared chunks", query=Hold),
        Row("POST /v1/site/jobs/{id}/chunks/fetch", WORK, Digests, Frames, c.outputs.fetch,
            "Read chunks that a held job has declared: its inputs", query=HeldFetching),
        Row("POST /v1/site/jobs/{id}/inputs/arrived", WORK, Digests, Digests, e.arrived, waits=True,
            purpose="Say which input chunks of a job that no agent has are here", query=Arrival),
        Row("POST /v1/site/jobs/{id}/inputs/fetch", WORK, Digests, Frames, e.fetch,
            "Read input chunks of a job that no agent has", query=Fetching),
        Row("GET /v1/site", WORK, None, v1.Identity, w.identity,
            "Say whom the broker takes the caller for, and its clock"),
        Row("POST /v1/site/check", WORK, Anything, v1.Identity, w.identity,
            "Self-diagnosis: does a large body pass?"),
        Row("GET /v1/site/check", WORK, None, v1.Identity, w.idle, query=Idle, waits=True,
            purpose="Self-diagnosis: does a long silence pass?"),
        # the operator
        Row("GET /v1/admin/status", ADMIN, None, v1.BrokerStatus, a.status, "Show figures"),
        Row("POST /v1/admin/reload", ADMIN, None, v1.Done, a.reread, waits=True,
            purpose="Read the settings again"),
        Row("POST /v1/admin/sites/{id}", ADMIN, v1.SiteSwitch, v1.Done, a.switch,
            "Take a site, or one of its commands, out of service, or put it back"),
        Row("POST /v1/admin/jobs/{id}/lost", ADMIN, v1.DeclareLost, v1.JobView, a.lost,
            "Declare a held job lost, in a person's name"),
        Row("GET /v1/admin/jobs", ADMIN, None, v1.JobPage, a.page, query=JobList,
            purpose="List all jobs, without their content"),
        Row("GET /metrics", METRICS, None, Text, o.metrics, "Figures for Prometheus"),
        # nobody in particular
        Row("GET /health/live", OPEN, None, v1.Done, o.live, "Is the process there?"),
        Row("GET /health/ready", OPEN, None, v1.Done, o.ready, "Can it do its work?"),
        Row("GET /v1/openapi.json", OPEN, None, Document, lambda _: described,
            "Describe this table"),
    ]  # fmt: skip
    described.update(openapi(rows))
    return rows
