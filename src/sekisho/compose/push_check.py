"""The diagnosis of the way to an ssh site, from the workflow side. No job is made by it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from sekisho.adapters.hosts.bare import BareHost
from sekisho.adapters.hosts.login_shell import login_fault
from sekisho.adapters.hosts.programs import LOOK
from sekisho.adapters.hosts.rsync import versions
from sekisho.adapters.hosts.ssh import SshHost
from sekisho.adapters.job_notes import JobNotes, state_directory
from sekisho.adapters.lane_gate import KNOCK, GateLane
from sekisho.adapters.patience import Patience
from sekisho.compose.bare import bare_site
from sekisho.compose.push import ssh_host
from sekisho.config.client import SshSite, load_client
from sekisho.domain.errors import NotFound, SekishoError, Unavailable
from sekisho.site.check import (
    CLOCK_WARNING_SECONDS,
    Finding,
    fault,
    found,
    judge_room,
    ok,
)


def findings(name: str, config: Path | None) -> Iterator[Finding]:
    """Find out how it stands with the way to the site ``name``, step by step."""
    files = load_client(config)
    site = files.settings.site.get(name)
    if site is None:
        raise NotFound("site.not_found", site=name)
    notes = JobNotes(state_directory(os.environ))
    owed = [note.job for note in notes.all(name) if note.owed]
    if owed:
        error = Unavailable("hook.failed", hook="after", said=", ".join(owed))
        yield fault("settings", error)
    if not site.host:
        yield ok("settings", "before")
        return
    host = ssh_host(site, files, site.host)
    try:
        host.connect()
        if site.kind == "bare" and (wrong := login_fault(host)) is not None:
            raise wrong
        yield ok("login", site.host)
        if site.kind == "bare":
            yield from _bare(host, name, site)
        else:
            opened = partial(host.session, KNOCK)
            yield from _told("gate", _gated(GateLane(name, opened, Patience(limit_s=0))))
    except SekishoError as error:
        yield fault("login", error)


def _told(check: str, steps: Iterator[Finding]) -> Iterator[Finding]:
    """Return what ``steps`` find; an error of theirs is a fault of ``check``."""
    try:
        yield from steps
    except SekishoError as error:
        yield fault(check, error)


def _gated(lane: GateLane) -> Iterator[Finding]:
    """Ask the gate: the key of a gated site opens nothing else, and no rsync is run there."""
    try:
        lane.sites()
        yield ok("gate")
        began = time.monotonic()
        lane.sites()
        yield ok("latency", f"{(time.monotonic() - began) * 1000:.0f} ms")
        at = lane.clock()
        if at is not None:
            yield _judged_clock(round(at.timestamp() - time.time()))
    finally:
        lane.close()


def _latency(host: SshHost) -> Finding:
    began = time.monotonic()
    host.run(["true"])
    return ok("latency", f"{(time.monotonic() - began) * 1000:.0f} ms")


def _clock(host: SshHost) -> Finding:
    said = host.run(["date", "+%s"]).stdout.strip()
    if not said.isdigit():
        return ok("clock", "-")
    return _judged_clock(round(int(said[:12]) - time.time()))


def _judged_clock(seconds: int) -> Finding:
    if abs(seconds) > CLOCK_WARNING_SECONDS:
        return found("clock", "check.site_clock", seconds=seconds)
    return ok("clock", f"{seconds:+d} s")


def _bare(host: SshHost, name: str, site: SshSite) -> Iterator[Finding]:
    yield _latency(host)
    yield _clock(host)
    try:
        seen = versions(host)
        yield ok("rsync", ", ".join(map(str, seen)))
        for old in (version for version in seen if version.unsafe):
            yield found("rsync", "check.rsync_unsafe", host=old.place, version=str(old))
    except SekishoError as error:
        yield fault("rsync", error)
    yield from _told("work", _room(BareHost(host, site.place), site))
    yield from _told("programs", _programs(host, name, site))


def _room(there: BareHost, site: SshSite) -> Iterator[Finding]:
    yield judge_room("work", site.base, there.room())


def _programs(host: SshHost, name: str, site: SshSite) -> Iterator[Finding]:
    """Look at the agreed programs."""
    files = {c.name: c.program for c in bare_site(name, site).programs.values()}
    said = host.run(["sh", "-c", LOOK, "check", *files.values()]).stdout.split()
    if len(said) != len(files):
        raise Unavailable("bare.strange")
    for (command, file), word in zip(files.items(), said, strict=True):
        if word == b"missing":
            code = "check.site_program_missing"
        elif word == b"closed":
            code = "check.site_program_closed"
        else:
            yield ok("programs", f"{command}: {file}")
            continue
        yield found("programs", code, command=command, file=file, site=name)
