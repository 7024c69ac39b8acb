"""What the contract tests of `Workplace` share: its adapters, and a job that leaves files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from sekisho.adapters.hosts.far_files import FarFiles
from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.adapters.workplace_ssh import SshWorkplace
from sekisho.domain.egress import LogRule
from sekisho.site.workplace import Place, Staged, Workplace
from tests.farhost import Far, Given

JOB = "job_" + "0" * 26
OTHER = "job_" + "1" * 26
ALL = LogRule(release=True, max_bytes=1 << 20)
NONE = LogRule()

Maker = Callable[..., Workplace]


#: Every adapter of the port: here, and on another host with a Python there and without one.
ADAPTERS = ("local", "ssh", "ssh_shell", "ssh_busybox")


def maker_of(adapter: str, base: Path, far: Far | None, gateway: Path) -> Maker:
    if far is None:
        return lambda **settings: LocalWorkplace(base, **settings)

    def made(**settings: Any) -> Workplace:
        near = {name: value for name, value in settings.items() if name != "spare_bytes"}
        local = LocalWorkplace(gateway, **near)
        files = FarFiles(far.host, str(base), python=None if adapter == "ssh" else "")
        return cast("Workplace", Given(SshWorkplace(files, local, **settings), far, base.parent))

    return made


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
