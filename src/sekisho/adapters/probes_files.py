"""Looking at a site's directories: are they private, is there room, is the file system honest.

Everything that the promises stand on is tried in a directory of its own, which is removed again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from sekisho.adapters.reflink import can_clone
from sekisho.domain.manifest import Manifest
from sekisho.domain.resources import LOCAL
from sekisho.site.check import Finding, found, judge_room, ok

_OTHERS: Final = 0o077
_OTHERS_WRITE: Final = 0o022


def probe_home(home: Path) -> Finding:
    """Look at the site's directory: what is in it is nobody else's business."""
    mode = stat.S_IMODE(home.stat().st_mode)
    if mode & _OTHERS:
        return found("settings", "check.home_open", file=str(home), mode=f"{mode:o}")
    return ok("settings", str(home))


def probe_programs(manifest: Manifest) -> Iterator[Finding]:
    """Look at the program of every command of this machine."""
    for command in manifest.commands.values():
        if command.venue.host != LOCAL:
            continue
        file = command.program
        if not Path(file).is_file():
            yield found("programs", "check.program_missing", command=command.name, file=file)
        elif not os.access(file, os.X_OK):
            yield found("programs", "check.program_not_executable", command=command.name, file=file)
        else:
            yield ok("programs", f"{command.name}: {file}")


def probe_directory(check: str, folder: Path) -> Iterator[Finding]:
    """Look at a directory in which state or work is kept."""
    privacy = _privacy(check, folder)
    if privacy is not None:
        yield privacy
        return
    room = os.statvfs(folder)
    yield judge_room(check, str(folder), room.f_bavail * room.f_frsize)
    semantics = _semantics(check, folder)
    if semantics is not None:
        yield semantics


def probe_sharing(manifest: Manifest, folder: Path) -> Iterator[Finding]:
    """Look whether jobs can be given inputs in ``folder`` that are not copied for each of them."""
    if can_clone(folder):
        yield ok("clones", str(folder))
        return
    yield found("clones", "check.no_clones")
    yield from _unprotected(manifest, folder)


def _unprotected(manifest: Manifest, folder: Path) -> Iterator[Finding]:
    """Look whether what commands here only read can be protected, to be shared as it is."""
    trial = folder / f".check-{secrets.token_hex(8)}"
    with suppress(OSError):
        trial.touch(mode=0o400)
        powerless = os.access(trial, os.W_OK, effective_ids=True)
        trial.unlink()
        for command in manifest.commands.values():
            shares = any(rule.read_only for rule in command.inputs)
            if powerless and shares and command.venue.host == LOCAL:
                yield found("work", "check.modes_powerless", command=command.name)


def _privacy(check: str, folder: Path) -> Finding | None:
    try:
        seen = folder.stat()
    except OSError:
        return found(check, "check.directory_missing", file=str(folder))
    if not stat.S_ISDIR(seen.st_mode):
        return found(check, "check.directory_missing", file=str(folder))
    if seen.st_uid != os.geteuid():
        return found(check, "check.directory_owner", file=str(folder), owner=seen.st_uid)
    if stat.S_IMODE(seen.st_mode) & _OTHERS_WRITE:
        mode = f"{stat.S_IMODE(seen.st_mode):o}"
        return found(check, "check.directory_open", file=str(folder), mode=mode)
    return None


def _semantics(check: str, folder: Path) -> Finding | None:
    """Try what the promises need of a file system; return the first thing that it does not keep."""
    trial = folder / f".check-{secrets.token_hex(8)}"
    try:
        trial.mkdir(mode=0o700)
    except OSError as error:
        return _broken(check, folder, "write", _name(error))
    try:
        for operation, attempt in TRIALS.items():
            try:
                why = attempt(trial)
            except OSError as error:
                why = _name(error)
            if why:
                return _broken(check, folder, operation, why)
    finally:
        shutil.rmtree(trial, ignore_errors=True)
    return None


def _broken(check: str, folder: Path, operation: str, why: str) -> Finding:
    return found(check, "check.file_system", file=str(folder), operation=operation, why=why)


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "unknown")


def _latch(trial: Path) -> str:
    """Try that a directory can be made once: the latch that keeps a job from running twice."""
    (trial / "latch").mkdir()
    with suppress(FileExistsError):
        (trial / "latch").mkdir()
        return "made twice"
    return ""


def _exclusive(trial: Path) -> str:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    os.close(os.open(trial / "new", flags, 0o600))
    with suppress(FileExistsError):
        os.close(os.open(trial / "new", flags, 0o600))
        return "made twice"
    return ""


def _replace(trial: Path) -> str:
    """Try that a file takes another's name as a whole, also while it is being read."""
    (trial / "old").write_bytes(b"old")
    (trial / "fresh").write_bytes(b"fresh")
    with (trial / "old").open("rb") as reader:
        (trial / "fresh").replace(trial / "old")
        kept = reader.read() == b"old"
    return "" if kept and (trial / "old").read_bytes() == b"fresh" else "content"


def _sync(trial: Path) -> str:
    for name, flags in (("synced", os.O_RDWR | os.O_CREAT), (".", os.O_RDONLY | os.O_DIRECTORY)):
        descriptor = os.open(trial / name, flags, 0o600)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return ""


def _lock(trial: Path) -> str:
    descriptors = [os.open(trial / "lock", os.O_RDWR | os.O_CREAT, 0o600) for _ in range(2)]
    try:
        fcntl.flock(descriptors[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(BlockingIOError):
            fcntl.flock(descriptors[1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            return "held twice"
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return ""


def _private(trial: Path) -> str:
    """Try that a mode is kept, not invented by the mount."""
    (trial / "private").touch(mode=0o600)
    return "" if stat.S_IMODE((trial / "private").stat().st_mode) == 0o600 else "mode"


#: What is tried, by the word that a fault is told with.
TRIALS: Final[Mapping[str, Callable[[Path], str]]] = {
    "mkdir": _latch,
    "O_EXCL": _exclusive,
    "rename": _replace,
    "fsync": _sync,
    "flock": _lock,
    "chmod": _private,
}
