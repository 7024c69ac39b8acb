"""What the contract tests of `Workplace` share: its adapters, and a job that leaves files."""

from collections.abc import Callable
from pathlib import Path

from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.domain.egress import LogRule
from sekisho.site.workplace import Place, Staged, Workplace

JOB = "job_" + "0" * 26
OTHER = "job_" + "1" * 26
ALL = LogRule(release=True, max_bytes=1 << 20)
NONE = LogRule()

Maker = Callable[..., Workplace]


def makers(base: Path) -> dict[str, Maker]:
    """Every adapter of the port, by name. A later one is added here and passes the same tests."""
    return {"local": lambda **settings: LocalWorkplace(base, **settings)}


def names_in(directory: str | Path) -> list[str]:
    return sorted(entry.name for entry in Path(directory).iterdir())


def leave(place: Place, **files: bytes) -> None:
    for name, content in files.items():
        (Path(place.work_dir) / name).write_bytes(content)


def staged_content(staged: Staged) -> dict[str, bytes]:
    return {str(f.path): b"".join(map(staged.read, f.chunks)) for f in staged.tree.files}


def staged_in(workplace: Workplace, place: Place) -> Staged:
    leave(place, a=b"content")
    return workplace.stage(place, workplace.collect(place).found, None)
