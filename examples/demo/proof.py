"""Looking for what must not be: secrets outside the site, listening sockets, processes left over.

A search that finds nothing proves nothing until the same search has found something: every one is
made a second time where the thing must be found.
"""

from __future__ import annotations

import base64
import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from sekisho.domain.errors import SekishoError
from sekisho.wire.frames import Frame

_LISTENING = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}
_SAMPLE_SECONDS = 0.05
_LEAVE_SECONDS = 40.0


def files_with(needle: str, places: Iterable[Path]) -> list[Path]:
    """Return the files below ``places`` that hold ``needle``: as it is, in base64 or in hex."""
    forms = _forms(needle.encode())
    return [file for file in _files(places) if _holds(file, forms)]


def count_files(places: Iterable[Path]) -> tuple[int, int]:
    """Return how many files there are below ``places``, and of how many bytes."""
    sizes = [len(file.read_bytes()) for file in _files(places)]
    return len(sizes), sum(sizes)


def _files(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        yield from (path for path in place.rglob("*") if path.is_file() and not path.is_symlink())


def _holds(file: Path, forms: list[bytes]) -> bool:
    contents = [*_contents(file)]
    contents += [data.lower() for data in contents]
    return any(form in data for data in contents for form in forms)


def _contents(file: Path) -> Iterator[bytes]:
    """Return the bytes of ``file``, and what is packed in it when it is a packed chunk."""
    data = file.read_bytes()
    yield data
    with contextlib.suppress(SekishoError):
        yield Frame(file.name, data, packed=True).opened()[1]


def _forms(secret: bytes) -> list[bytes]:
    """Return the secret as it may stand in a file; in base64 it has three, by where it begins."""
    shifted = []
    for lead in range(3):
        text = base64.b64encode(bytes(lead) + secret)
        shifted.append(text[(0, 2, 3)[lead] :].rstrip(b"=")[:-1])
    return [secret, secret.hex().encode(), *shifted]


def listening(pids: Iterable[int]) -> set[str]:
    """Return the addresses at which one of the processes ``pids`` takes connections."""
    found = {}
    for table, state in _LISTENING.items():
        for line in Path("/proc/net", table).read_text("ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == state and int(fields[2].split(":")[1], 16) == 0:
                found[fields[9]] = f"{table} {fields[1]}"
    return {found[inode] for pid in pids for inode in _sockets(pid) if inode in found}


def _sockets(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                name = str(link.readlink())
                if name.startswith("socket:["):
                    yield name[8:-1]


def processes_in(place: Path) -> set[int]:
    """Return the processes that sit in the directory ``place`` or below it."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if (entry / "cwd").readlink().is_relative_to(place):
                found.add(int(entry.name))
    return found


def processes_of(place: Path) -> set[int]:
    """Return the processes that sit in ``place``, or whose command line names something in it."""
    found = processes_in(place)
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and bytes(place) in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
    return found


def left_of(place: Path, known: set[int], *, within_s: float = _LEAVE_SECONDS) -> set[int]:
    """Return the processes of ``place`` that have not ended after a while, ``known`` ones apart.

    What was asked to end, or lost the process that it served, needs a moment to do so; the
    carrier of a gate waits for another job first.
    """
    end = time.monotonic() + within_s
    while (left := processes_of(place) - known) and time.monotonic() < end:
        time.sleep(0.05)
    return left


class Watch:
    """Looks at the sockets of all processes in a directory, again and again until it is left."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.looks = 0
        self.seen: set[str] = set()

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            pids = processes_in(self._place)
            self.seen |= listening(pids)
            self.looks += bool(pids)
