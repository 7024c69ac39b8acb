"""Whether somebody else could have written a file of settings, put another there, or read a secret.

One rule for all that says what is run: a site's files, which are not read then, and a client's,
which several people may share as long as they name no programs. Who may write by a POSIX ACL counts
too, for its mask shows as the bits of the group; NFSv4's are seen as the server shows them.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path
from typing import Final

from sekisho.domain.errors import ConfigError

_ACL: Final = "system.posix_acl_access"


def read_by_others(file: Path, mode: int) -> bool:
    """Say whether ``mode`` lets others than its owner have to do with ``file``, which is secret.

    Not so what the service manager has put into ``$CREDENTIALS_DIRECTORY``: it keeps others out by
    the folder, and shows a mask as mode.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    handed_over = folder and file.absolute().parent == Path(folder).absolute()
    return bool(mode & 0o077) and not handed_over


def check_ours(path: Path) -> None:
    """Raise ConfigError(`config.open_to_others`) if `open_to_others` finds a place."""
    if (place := open_to_others(path)) is not None:
        raise ConfigError("config.open_to_others", file=str(place))


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
    if stat.S_ISLNK(found.st_mode) or (
        stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    ):
        return False
    by_group = found.st_mode & stat.S_IWGRP and (
        _listed(place) or not _private(found.st_uid, found.st_gid)
    )
    return bool(found.st_mode & stat.S_IWOTH or by_group)


def _listed(place: Path) -> bool:
    """Say whether there is an ACL: somebody whom it names may be meant by the group's bits."""
    try:
        return bool(os.getxattr(place, _ACL))
    except OSError:  # none, or none are known here
        return False


def _private(user: int, group: int) -> bool:
    """Say whether the group has the user's name and no other member, as many systems make one."""
    try:
        name, members = pwd.getpwuid(user).pw_name, grp.getgrgid(group)
    except KeyError:
        return False
    return members.gr_name == name and set(members.gr_mem) <= {name}
