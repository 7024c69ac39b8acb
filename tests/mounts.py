"""Programs that see other mounts than everybody else, for root and for ordinary users alike."""

from __future__ import annotations

import os
from typing import Final

#: Runs what follows with mounts of its own; for an ordinary user, as the root of a name space.
ALONE: Final = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "-Urm")


def within_mounts(mounts: str, *words: str) -> list[str]:
    """Return the beginning of a command line: what follows sees what the shell text ``mounts`` did.

    ``words`` are $0, $1 … of that text; what follows runs as the same user as before.
    """
    user, group = os.geteuid(), os.getegid()
    then = "" if user == 0 else f"unshare -U --map-user={user} --map-group={group} "
    first, *rest = words or ("sh",)
    text = f'{mounts} && shift {len(rest)} && exec {then}"$@"'
    return [*ALONE, "/bin/sh", "-c", text, first, *rest]
