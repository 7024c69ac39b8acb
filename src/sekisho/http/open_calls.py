"""What routes without a credential do, and the metrics: nothing here tells of a job's content."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from sekisho import __version__
from sekisho.broker.desk import Desk
from sekisho.broker.meter import BUCKETS, Labels
from sekisho.domain.errors import SekishoError, SyncFailed, Unavailable
from sekisho.http.call import Call
from sekisho.http.longpoll import LongPoll
from sekisho.wire.v1 import Done

log = structlog.get_logger()

#: Anybody may ask whether we are ready; the checks themselves are made no more often than this.
_LOOK_SECONDS: Final = 1.0
#: The numbers that the meter keeps, each with its kind and what it says.
NUMBERS: Final[Mapping[str, tuple[str, str]]] = {
    "requests": ("counter", "Requests answered, by route and status."),
    "job_changes": ("counter", "Changes of jobs to a state."),
    "chunk_bytes": ("counter", "Bytes of chunks stored (in) and given out (out)."),
    "mint_calls": ("counter", "Calls of the old MInt paths, by call and status."),
    "mint_site_calls": ("counter", "Calls of the old MInt paths that name a site, by side."),
    "polling": ("gauge", "Agents that wait for news now."),
}


@dataclass(slots=True)
class OpenCalls:
    """Health and metrics. ``checks`` raise when the broker cannot do its work."""

    desk: Desk
    polls: LongPoll
    checks: Mapping[str, Callable[[], None]]
    _looked_at: float | None = None
    _failed: list[str] = field(default_factory=list)

    def live(self, _: Call) -> Done:
        return Done()

    def ready(self, _: Call) -> Done:
        """Answer when database, migrations and disk are fit for work; else Unavailable."""
        now = self.desk.ports.clock.monotonic()
        if self._looked_at is None or now - self._looked_at >= _LOOK_SECONDS:
            self._failed = [n for n, check in self.checks.items() if not _passes(n, check)]
            self._looked_at = now
        failed = list(self._failed)
        if self.polls.draining:
            failed.append("draining")
        if failed:
            raise Unavailable("broker.not_ready", failed=failed)
        return Done()

    def metrics(self, _: Call) -> str:
        """Return the figures in Prometheus' text format, version 0.0.4."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield from _family("build_info", "gauge", "The broker's version.")
        yield _line(
            "build_info", (("python", platform.python_version()), ("version", __version__)), 1
        )
        yield from self._jobs()
        yield from self._sites()
        yield from _family("disk_free_bytes", "gauge", "Room for chunks.")
        yield _line("disk_free_bytes", (), self.desk.ports.blobs.free_bytes())
        for name, (kind, text) in NUMBERS.items():
            shown = f"{name}_total" if kind == "counter" else name
            yield from _family(shown, kind, text)
            for counted, labels, value in self.desk.meter.numbers():
                if counted == name:
                    yield _line(shown, labels, value)
        yield from self._histogram()

    def _jobs(self) -> Iterator[str]:
        yield from _family("jobs", "gauge", "Jobs kept, by site and state.")
        for (site, state), number in sorted(self.desk.ports.store.ledger.counts().items()):
            yield _line("jobs", (("site", site), ("state", state.value)), number)
        yield from _family("stored_bytes", "gauge", "Bytes of chunks that jobs hold.")
        yield _line("stored_bytes", (), self.desk.ports.store.ledger.usage().stored_bytes)

    def _sites(self) -> Iterator[str]:
        text = "Whether an old MInt agent serves the site, which cannot keep a manifest."
        yield from _family("site_unguarded", "gauge", text)
        mint = self.desk.policy.value.mint
        for name in sorted(mint.sites):
            yield _line("site_unguarded", (("site", name),), mint.unguarded(name))

    def _histogram(self) -> Iterator[str]:
        name = "request_seconds"
        yield from _family(name, "histogram", "Time to answer a request; long polls are left out.")
        buckets, seconds = self.desk.meter.histogram()
        total = 0
        for end, number in zip((*BUCKETS, float("inf")), buckets, strict=True):
            total += number
            le = "+Inf" if end == float("inf") else f"{end:g}"
            yield _line(f"{name}_bucket", (("le", le),), total)
        yield _line(f"{name}_sum", (), seconds)
        yield _line(f"{name}_count", (), total)


def _family(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP sekisho_{name} {text}"
    yield f"# TYPE sekisho_{name} {kind}"


def _line(name: str, labels: Labels, value: float) -> str:
    inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
    return f"sekisho_{name}{{{inner}}} {value:.17g}" if inner else f"sekisho_{name} {value:.17g}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _passes(name: str, check: Callable[[], None]) -> bool:
    try:
        check()
    except SyncFailed:
        raise
    except SekishoError as error:
        log.warning("check_failed", check=name, code=error.code)
        return False
    return True
