"""Sightings that are written down later: seen here at once, elsewhere after a flush."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import pytest

from sekisho.adapters.directory_deferred import DeferredDirectory
from sekisho.adapters.store_memory import memory_store
from sekisho.broker.ports import Directory, Sighting
from sekisho.domain.errors import StorageFull
from tests.world import HOUR, NOW, a_site


@pytest.fixture
def kept() -> Directory:
    directory = memory_store().directory
    for name in ("one", "two"):
        directory.put_site(a_site(name))
    return directory


def seen(site: str, at: datetime = NOW) -> Sighting:
    return Sighting(site=site, at=at, agent_version="1.0", instance="agent-1")


def last_seen(directory: Directory) -> list[datetime | None]:
    return [site.last_seen_at for site in directory.sites()]


def test_a_sighting_is_seen_here_at_once_and_written_by_a_flush(kept: Directory) -> None:
    deferred = DeferredDirectory(kept)
    deferred.seen([seen("one")])
    one = deferred.site("one")
    assert one is not None
    assert (one.last_seen_at, one.instance) == (NOW, "agent-1")
    assert last_seen(deferred) == [NOW, None]
    assert last_seen(kept) == [None, None]
    deferred.flush()
    assert last_seen(kept) == last_seen(deferred) == [NOW, None]


def test_a_site_that_was_seen_twice_is_written_once_with_the_later_time(kept: Directory) -> None:
    deferred = DeferredDirectory(kept)
    deferred.seen([seen("one"), seen("two")])
    deferred.seen([seen("one", NOW + HOUR)])
    deferred.flush()
    assert last_seen(kept) == [NOW + HOUR, NOW]


def test_an_unknown_site_stays_unknown(kept: Directory) -> None:
    deferred = DeferredDirectory(kept)
    deferred.seen([seen("nowhere")])
    assert deferred.site("nowhere") is None
    deferred.flush()
    assert len(kept.sites()) == 2


class FullOnce(DeferredDirectory):
    """Has no room the first time; ``meanwhile`` is what happens during that."""

    meanwhile: Callable[[], None] | None = None

    def seen(self, sightings: Sequence[Sighting]) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
            raise StorageFull
        super().seen(sightings)


def test_what_could_not_be_written_is_written_the_next_time(kept: Directory) -> None:
    """Kills: forgetting before it is written, or what is seen meanwhile."""
    full = FullOnce(kept)
    deferred = DeferredDirectory(full)
    full.meanwhile = lambda: deferred.seen([seen("two")])
    deferred.seen([seen("one")])
    with pytest.raises(StorageFull):
        deferred.flush()
    deferred.flush()
    assert last_seen(full) == [NOW, NOW]


def test_all_else_is_passed_on(kept: Directory) -> None:
    deferred = DeferredDirectory(kept)
    deferred.put_site(a_site("three"))
    assert kept.site("three") is not None
    assert deferred.tokens() == kept.tokens() == []
    assert deferred.principal_for("nobody", NOW) is None
