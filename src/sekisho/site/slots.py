"""How many jobs a site has in hand: one count for all the lanes that it is served by."""

from __future__ import annotations

from typing import Final, Protocol

#: The kind of slot of every job in hand. Other kinds are the names of commands.
IN_HAND: Final = ""
#: For what is in hand already, whatever the manifest says by now.
NO_LIMIT: Final = 1 << 30


class Slots(Protocol):
    """Slots of jobs, apart for each kind, counted over all processes of a site.

    The slots of a process end with it, however it ends: the next one takes those of the runs that
    it adopts. Synchronous and quick. Errors: Unavailable(`storage.unavailable`), StorageFull.
    """

    def take(self, kind: str, job: str, limit: int = NO_LIMIT) -> bool:
        """Give ``job`` a slot unless ``limit`` are taken; a job that has one keeps it."""
        ...

    def leave(self, kind: str, job: str) -> None:
        """Give back the slot of ``job``, if it has one."""
        ...

    def others(self, kind: str) -> int:
        """Return how many slots other processes hold."""
        ...
