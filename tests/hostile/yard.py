"""A job's work directory beside a secret, and a reader without any defence."""

import os
from contextlib import suppress
from pathlib import Path

from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.domain.egress import Found
from sekisho.domain.files import RelPath
from sekisho.site.workplace import CollectCaps, Collected, Place

JOB = "job_" + "0" * 26
CANARY = b"CANARY-4f1c"


class Yard:
    """One job's work directory, and a secret beside it that must not come out."""

    def __init__(self, root: Path, caps: CollectCaps | None = None) -> None:
        self.workplace = LocalWorkplace(root / "base", caps=caps or CollectCaps())
        self.place: Place = self.workplace.prepare(JOB, 1)
        self.work = Path(self.place.work_dir)
        self.outside = root / "outside"
        self.outside.mkdir()
        self.secret = self.outside / "secret.txt"
        self.secret.write_bytes(CANARY)
        self.held = os.open(self.secret, os.O_RDONLY)

    def collect(self) -> Collected:
        return self.workplace.collect(self.place)

    def copied(self, *also: str) -> bytes:
        """Everything that staging copies, when all that was found and ``also`` were released."""
        found = self.collect().found
        more = [Found(RelPath.parse(name), len(CANARY)) for name in also]
        staged = self.workplace.stage(self.place, [*found, *more], None)
        return b"".join(staged.read(chunk) for chunk in staged.tree.chunks())

    def reasons(self) -> dict[str, str]:
        return {w.path: w.why for w in self.collect().withheld}


def naive(work: Path) -> bytes:
    """Read as a simple collector would: everything that can be opened below ``work``."""
    content = b""
    for directory, _, names in os.walk(work, followlinks=True):
        for name in sorted(names)[:100]:
            with suppress(OSError):
                content += (Path(directory) / name).read_bytes()[:4096]
        if content.count(CANARY):
            break
    return content
