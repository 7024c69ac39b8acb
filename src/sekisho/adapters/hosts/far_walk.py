"""Look at what a job left on another host, and copy what was released: run there, not installed.

    python3 -I -S -c THIS survey BASE JOB ATTEMPT CAPS        answers with lines of JSON
    python3 -I -S -c THIS copy BASE JOB ATTEMPT SETTLE_S      wishes on stdin; answers with files

The rules are those of `adapters.walk`: below held descriptors, one component at a time, never
through a link; what a thing is, is asked of the open descriptor. Names are judged by the gateway.
Python 3.6 and its standard library only: old systems are where this is needed.
"""

import errno
import json
import os
import stat
import sys
import time
import unicodedata
from collections.abc import Iterable

COMMON = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
PIECE = 1 << 20
MEANING = {
    errno.ELOOP: "symlink",
    errno.ENOTDIR: "changed",
    errno.EISDIR: "changed",
    errno.ESTALE: "changed",
    errno.ENOENT: "gone",
    errno.EACCES: "unreadable",
    errno.EPERM: "unreadable",
    errno.ENXIO: "special",
    errno.ENODEV: "special",
}


class Unsafe(Exception):
    """The thing is withheld."""


class Over(Exception):
    """A cap on the whole walk was passed."""


class judged:  # noqa: N801 (a verb, as in: with judged())
    """Turn what an open says about the thing it met into Unsafe."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        why = MEANING.get(error.errno or 0) if isinstance(error, OSError) else None
        if why is not None:
            raise Unsafe(why)


def opened(name: bytes, parent: int, kind: int) -> int:
    with judged():
        return os.open(name, COMMON | kind, dir_fd=parent)


def mount_of(fd: int) -> int:
    try:
        info = os.open("/proc/self/fdinfo/" + str(fd), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        rest = os.read(info, 512).partition(b"mnt_id:")[2]
    finally:
        os.close(info)
    return int(rest.split(b"\n", 1)[0] or b"-1")


class Origin:
    """What every file must have in common with the work directory, and its owner."""

    def __init__(self, root: int) -> None:
        self.device = os.fstat(root).st_dev
        self.mount = mount_of(root)

    def check(self, seen: os.stat_result, fd: int) -> None:
        if seen.st_dev != self.device or mount_of(fd) != self.mount:
            raise Unsafe("other_device")
        if seen.st_uid != os.geteuid():
            raise Unsafe("owner")

    def check_file(self, fd: int) -> os.stat_result:
        """Return what is open at ``fd`` when it is a plain file of ours."""
        seen = os.fstat(fd)
        if not stat.S_ISREG(seen.st_mode):
            raise Unsafe("changed" if stat.S_ISDIR(seen.st_mode) else "special")
        self.check(seen, fd)
        if seen.st_nlink != 1:
            raise Unsafe("hard_link" if seen.st_nlink else "gone")
        return seen


def text_of(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def printable(name: str) -> str:
    """Return ``name`` with whatever is not plainly visible written as an escape."""
    plain = (c if visible(c) else c.encode("unicode_escape").decode() for c in name[:4096])
    return "".join(plain)


def visible(character: str) -> bool:
    return character == " " or unicodedata.category(character)[0] not in "CZ"


def say(*words: object) -> None:
    sys.stdout.buffer.write(json.dumps(words).encode() + b"\n")


class Walk:
    """One walk: what it has seen, and how much more it may see."""

    def __init__(self, root: int, caps: "dict[str, float]") -> None:
        self.origin = Origin(root)
        self.caps = caps
        self.end = time.monotonic() + caps["max_seconds"]
        self.entries = self.name_bytes = self.withheld = self.unlisted = 0

    def enter(self, fd: int, parts: "list[bytes]") -> None:
        for name in self.names(fd):
            if time.monotonic() > self.end:
                raise Over("time", int(self.caps["max_seconds"]))
            try:
                self.look(fd, [*parts, name])
            except Unsafe as unsafe:
                self.withhold([*parts, name], str(unsafe))

    def names(self, fd: int) -> "list[bytes]":
        """Return the names in ``fd``, sorted: all of them, or raise Over before one is touched."""
        found = []
        for name in listed(fd):
            found.append(name)
            self.entries += 1
            self.name_bytes += len(name)
            if self.entries > self.caps["max_entries"]:
                raise Over("entries", self.caps["max_entries"])
            if self.name_bytes > self.caps["max_name_bytes"]:
                raise Over("names", self.caps["max_name_bytes"])
        return sorted(found)

    def look(self, fd: int, parts: "list[bytes]") -> None:
        with judged():
            mode = os.stat(parts[-1], dir_fd=fd, follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            raise Unsafe("symlink")
        if stat.S_ISDIR(mode):
            self.look_into(fd, parts)
        elif stat.S_ISREG(mode):
            self.measure(fd, parts)
        else:
            raise Unsafe("special")

    def look_into(self, fd: int, parts: "list[bytes]") -> None:
        if len(parts) >= self.caps["max_depth"]:
            raise Unsafe("too_deep")
        below = opened(parts[-1], fd, os.O_DIRECTORY)
        try:
            self.origin.check(os.fstat(below), below)
            self.enter(below, parts)
        finally:
            os.close(below)

    def measure(self, fd: int, parts: "list[bytes]") -> None:
        file = opened(parts[-1], fd, 0)
        try:
            size = self.origin.check_file(file).st_size
        finally:
            os.close(file)
        if size > self.caps["max_file_bytes"]:
            raise Unsafe("too_large")
        say("found", text_of(b"/".join(parts)), size)

    def withhold(self, parts: "list[bytes]", why: str) -> None:
        self.withheld += 1
        if self.withheld <= self.caps["max_withheld"]:
            say("withheld", printable(text_of(b"/".join(parts))), why)
        else:
            self.unlisted += 1


def listed(fd: int) -> "Iterable[bytes]":
    if os.scandir not in os.supports_fd:  # before Python 3.7
        return (os.fsencode(name) for name in os.listdir(fd))
    return (os.fsencode(entry.name) for entry in os.scandir(fd))


def survey(root: int, caps: "dict[str, float]") -> None:
    """Say the plain files below ``root`` by name and size, in order, and what is not plain."""
    walk = Walk(root, caps)
    try:
        walk.enter(root, [])
    except Over as over:
        say("over", *over.args)
    say("end", walk.unlisted)


def same_state(seen: os.stat_result) -> "tuple[int, ...]":
    identity = (seen.st_dev, seen.st_ino, seen.st_nlink, seen.st_size)
    return (*identity, seen.st_mtime_ns, seen.st_ctime_ns)


def check_same(name: bytes, parent: int, fd: int, before: os.stat_result) -> None:
    """Raise Unsafe unless ``name`` is, and throughout was, the only name of what is at ``fd``."""
    with judged():
        named = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not same_state(named) == same_state(os.fstat(fd)) == same_state(before):
        raise Unsafe("changed")


def copy(root: int, path: str, wish: "dict[str, int]", settle_s: float) -> str:
    """Write one file to stdout, its head before it; return why it is withheld, or "".

    ``wish`` has the size that was decided, or for the end of a log the most that may leave.
    """
    parts = path.encode("utf-8", "surrogateescape").split(b"/")
    held = []
    try:
        here = root
        for part in parts[:-1]:
            here = opened(part, here, os.O_DIRECTORY)
            held.append(here)
        fd = opened(parts[-1], here, 0)
        held.append(fd)
        origin = Origin(root)
        seen = origin.check_file(fd)
        send(fd, seen, wish)
        check_same(parts[-1], here, fd, seen)
        fresh_s = settle_s - (time.time() - seen.st_ctime)
        if 0 < fresh_s <= settle_s:
            time.sleep(fresh_s)
            check_same(parts[-1], here, fd, seen)
    except Unsafe as unsafe:
        return str(unsafe)
    finally:
        for descriptor in held:
            os.close(descriptor)
    return ""


def send(fd: int, seen: os.stat_result, wish: "dict[str, int]") -> None:
    """Write head and bytes: as many as the head says, whatever becomes of the file meanwhile."""
    size, start = seen.st_size, 0
    if "size" in wish and wish["size"] != size:
        raise Unsafe("changed")
    if "most" in wish:  # one more than may leave: the gateway sees that it is an end
        start = max(0, size - wish["most"] - 1)
    left = size - start
    say("file", left, bool(seen.st_mode & 0o100))
    while left:
        most = min(PIECE, left)
        data = os.pread(fd, most, start) or bytes(most)  # it has shrunk: `check_same` will tell
        sys.stdout.buffer.write(data)
        start, left = start + len(data), left - len(data)


def copies(here: int, settle_s: float) -> None:
    """Serve every wish: ``[folder, path, {"size" | "most": bytes}]``, a line each."""
    for line in sys.stdin.buffer:
        folder, path, wish = json.loads(line.decode())
        root = opened(folder.encode(), here, os.O_DIRECTORY)
        try:
            say("done", copy(root, path, wish, settle_s))
        finally:
            os.close(root)
    say("end", 0)


def main(verb: str, base: str, job: str, attempt: str, given: str) -> None:
    here = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if os.fstat(here).st_uid != os.geteuid():
        say("fault", "owner")
        return
    try:
        for name in (job, attempt):
            here = opened(name.encode(), here, os.O_DIRECTORY)
        if verb == "survey":
            survey(opened(b"work", here, os.O_DIRECTORY), json.loads(given))
        else:
            copies(here, float(given))
    except Unsafe as unsafe:  # the job has removed or replaced its own directory
        say("root", str(unsafe))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as error:
        say("fault", errno.errorcode.get(error.errno or 0, "unknown"))
    sys.stdout.flush()
