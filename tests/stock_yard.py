"""Jobs of a site whose files are really there, and the stock that they share them from."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sekisho.adapters.stock_directory import DirectoryStock
from sekisho.site.workplace import Place
from sekisho.transfer.source import LocalTree, scan
from sekisho.transfer.tree import Tree

PLENTY = 1 << 30


def a_place(base: Path, number: int) -> Place:
    """Make the directory of another job below ``base``."""
    work = base / f"job-{number}" / "work"
    work.mkdir(parents=True)
    return Place(
        job=f"job-{number}",
        attempt=1,
        work_dir=str(work),
        control_dir="",
        staging_dir="",
        input_dir=str(work),
    )


@dataclass
class Yard:
    """Jobs of a site whose files are really there, and its stock."""

    home: Path
    max_bytes: int = PLENTY
    now: float = 0.0
    told: list[int] = field(default_factory=list)
    jobs: int = 0

    def __post_init__(self) -> None:
        (self.home / "base").mkdir(mode=0o700)
        self.start()

    def restart(self) -> None:
        self.stock.close()
        self.start()

    def start(self) -> None:
        self.stock = DirectoryStock(
            self.home / "base",
            self.max_bytes,
            grown=self.told.append,
            spare_bytes=0,
            monotonic=lambda: self.now,
        )

    def tree(self, data: bytes, *, executable: bool = False) -> Tree:
        source = self.home / "source"
        source.unlink(missing_ok=True)
        source.write_bytes(data)
        source.chmod(0o755 if executable else 0o644)
        return LocalTree(scan([("in/mesh", source)])).tree

    def place(self) -> Place:
        self.jobs += 1
        return a_place(self.home / "base", self.jobs)

    def job(
        self,
        data: bytes,
        submitter: str = "alice",
        *,
        executable: bool = False,
        writable: bool = False,
    ) -> Job:
        """Stage one job: what is not lent is fetched, by writing it."""
        tree, place = self.tree(data, executable=executable), self.place()
        files = tree.files
        lent = self.stock.lend(submitter, place, files, writable=writable, lasting=True)
        mesh = Path(place.input_dir, "in", "mesh")
        if not lent:
            mesh.parent.mkdir(exist_ok=True)
            mesh.unlink(missing_ok=True)
            mesh.write_bytes(data)
            mesh.chmod(0o755 if executable else 0o644)
            self.stock.keep(submitter, place, files, writable=writable)
        return Job(self, mesh, bool(lent))

    def kept(self) -> list[Path]:
        return list((self.home / "base" / ".stock").glob("*/*"))


@dataclass
class Job:
    yard: Yard
    mesh: Path
    lent: bool

    @property
    def inode(self) -> int:
        return self.mesh.stat().st_ino

    def opened(self) -> int:
        """Take the right to write, and open the file, for which the stock gives way."""
        self.mesh.chmod(0o600)
        with suppress(BlockingIOError):
            os.close(os.open(self.mesh, os.O_RDWR | os.O_NONBLOCK))
        self.yard.stock.give_way()
        return os.open(self.mesh, os.O_RDWR | os.O_NONBLOCK)

    def tamper(self, data: bytes = b"", at: int = 5) -> None:
        """Do what a command may do to its own file: write in place, and put the times back.

        Without ``data`` it is another byte than the one that is there.
        """
        seen = self.mesh.stat()
        fd = self.opened()
        os.pwrite(fd, data or bytes([os.pread(fd, 1, at)[0] ^ 1]), at)
        os.close(fd)
        self.mesh.chmod(0o444)
        os.utime(self.mesh, ns=(seen.st_atime_ns, seen.st_mtime_ns))
