"""The ways in which a site starts commands, put together."""

from __future__ import annotations

from collections.abc import Callable

from sekisho.adapters.hosts.spawn_local import LocalSpawner
from sekisho.adapters.schedulers.batch import BatchScheduler
from sekisho.adapters.schedulers.detached import DetachedScheduler
from sekisho.adapters.schedulers.dialects import DIALECTS
from sekisho.adapters.schedulers.local import LocalScheduler
from sekisho.adapters.schedulers.routed import RoutedScheduler
from sekisho.domain.errors import Unavailable
from sekisho.domain.manifest import Manifest
from sekisho.domain.resources import LOCAL, BatchSystem, Venue
from sekisho.site.host import Host
from sekisho.site.scheduler import Scheduler


def schedulers(
    spawner: LocalSpawner, manifest: Callable[[], Manifest], host_of: Callable[[str], Host]
) -> RoutedScheduler:
    """Return the scheduler for every venue that ``manifest`` names at the time."""
    local = LocalScheduler(spawner)
    detached: dict[Venue, Scheduler] = {}
    made: dict[Venue, tuple[BatchSystem, Scheduler]] = {}

    def scheduler_of(venue: Venue) -> Scheduler:
        if venue == Venue():
            return local
        host = host_of(venue.host)
        if venue.scheduler == LOCAL:
            return detached.setdefault(venue, DetachedScheduler(host))
        system = manifest().batch_systems.get(venue.scheduler)
        if system is None:
            raise Unavailable("scheduler.unknown", scheduler=venue.scheduler)
        if venue not in made or made[venue][0] != system:
            made[venue] = system, batch_scheduler(host, system)
        return made[venue][1]

    return RoutedScheduler(scheduler_of)


def batch_scheduler(host: Host, system: BatchSystem) -> BatchScheduler:
    """Return the scheduler that speaks to ``system`` on ``host``."""
    return BatchScheduler(host, DIALECTS[system.dialect], system)
