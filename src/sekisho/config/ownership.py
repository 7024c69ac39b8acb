"""Whether somebody else could have written a file of settings, or put another in its place."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path


def open_to_others(path: Path) -> Path | None:
    """Return the first place on the way to ``path`` that others can write to; None: there is none.

    Looked at are the file, the directories above it, and the same for whatever a link leads to.
    Root and we ourselves are no others, nor is the private group of either, nor who can only add
    to a directory in which nobody removes what is another's (sticky, as /tmp is).
    """
    ahead, seen = [path.absolute()], set[Path]()
    while ahead:
        way = ahead.pop(0)
        for place in (way, *way.parents):
            if place in seen:
                continue
            seen.add(place)
            if _loose(place):
                return place
            if place.is_symlink():
                ahead.append(place.parent / place.readlink())
    return None


def _loose(place: Path) -> bool:
    try:
        found = place.lstat()
    except OSError:
        return False  # it cannot be read either, and that is told
    if found.st_uid not in (0, os.geteuid()):
        return True
    if stat.S_ISLNK(found.st_mode) or found.st_mode & stat.S_ISVTX:
        return False
    by_group = found.st_mode & stat.S_IWGRP and not _private(found.st_uid, found.st_gid)
    return bool(found.st_mode & stat.S_IWOTH or by_group)


def _private(user: int, group: int) -> bool:
    """Say whether the group has the user's name and no other member, as many systems make one."""
    try:
        name, members = pwd.getpwuid(user).pw_name, grp.getgrgid(group)
    except KeyError:
        return False
    return members.gr_name == name and set(members.gr_mem) <= {name}
