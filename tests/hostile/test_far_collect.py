"""What a job left on a computing host cannot lead the copy out of its directory, nor stop it.

The secret is one that the host's account can read: a copy without defence brings it, as is shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sekisho.adapters.hosts.far_files import FarFiles
from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.adapters.workplace_ssh import SshWorkplace
from sekisho.domain.egress import Found
from sekisho.domain.files import RelPath
from sekisho.site.workplace import Place
from tests.farhost import Far, far_host
from tests.hostile.yard import CANARY, JOB, naive


@dataclass
class FarYard:
    """One job's work directory on a computing host, and a secret beside it."""

    far: Far
    workplace: SshWorkplace
    place: Place
    top: Path

    @property
    def work(self) -> Path:
        return Path(self.place.work_dir)

    @property
    def secret(self) -> Path:
        return self.top / "outside" / "secret.txt"

    def found(self) -> list[Found]:
        self.far.give(self.top)
        return list(self.workplace.collect(self.place).found)

    def copied(self, release: list[Found]) -> bytes:
        self.far.give(self.top)
        staged = self.workplace.stage(self.place, release, None)
        return b"".join(staged.read(chunk) for chunk in staged.tree.chunks())


@pytest.fixture(scope="module", params=["python", "shell", "busybox"])
def kind(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Far]]:
    with far_host(tmp_path_factory.mktemp("far"), busybox=request.param == "busybox") as far:
        yield request.param, far


@pytest.fixture
def yard(kind: tuple[str, Far], tmp_path: Path) -> FarYard:
    name, far = kind
    top = far.room()
    (top / "outside").mkdir()
    files = FarFiles(far.host, f"{top}/base", python=None if name == "python" else "")
    workplace = SshWorkplace(files, LocalWorkplace(tmp_path / "gateway"))
    made = FarYard(far, workplace, workplace.prepare(JOB, 1), top)
    made.secret.write_bytes(CANARY)
    far.give(top)
    return made


def _swapped_folder(yard: FarYard) -> None:
    (yard.work / "sub").rename(yard.work / "moved")
    (yard.work / "sub").symlink_to(yard.secret.parent)


def _swapped_file(yard: FarYard) -> None:
    file = yard.work / "sub" / "secret.txt"
    file.unlink()
    file.symlink_to(yard.secret)


def _linked_file(yard: FarYard) -> None:
    file = yard.work / "sub" / "secret.txt"
    file.unlink()
    file.hardlink_to(yard.secret)


@pytest.mark.parametrize("swap", [_swapped_folder, _swapped_file, _linked_file])
def test_what_was_swapped_after_the_decision_brings_no_secret(
    yard: FarYard, swap: Callable[[FarYard], None]
) -> None:
    (yard.work / "sub").mkdir()
    (yard.work / "sub" / "secret.txt").write_bytes(b"x" * len(CANARY))
    release = yard.found()
    assert [str(f.path) for f in release] == ["sub/secret.txt"]
    assert yard.copied(release) == b"x" * len(CANARY)
    swap(yard)
    assert CANARY in naive(yard.work)
    assert yard.copied(release) == b""


def test_links_pipes_and_second_names_are_not_found_and_nothing_waits_for_them(
    yard: FarYard,
) -> None:
    (yard.work / "file").symlink_to(yard.secret)
    (yard.work / "folder").symlink_to(yard.secret.parent)
    (yard.work / "second").hardlink_to(yard.secret)
    (yard.work / "up").symlink_to("../../../..")
    (yard.work / "plain").write_bytes(b"plain")
    assert CANARY in naive(yard.work)
    os.mkfifo(yard.work / "pipe")
    assert [str(f.path) for f in yard.found()] == ["plain"]
    names = ("file", "folder/secret.txt", "second", "pipe", "plain")
    wished = [Found(RelPath.parse(n), 5 if n == "plain" else len(CANARY)) for n in names]
    assert yard.copied(wished) == b"plain"


@pytest.mark.parametrize(
    "name",
    [
        "a\nis found",
        "-rf",
        " ",
        "$(id)",
        "`id`",
        "a b",
        "*",
        "a\\b",
        "\x1b[2J",
        "ÿ",
        "'",
        '"',
        ";ls",
    ],
)
def test_a_strange_name_is_a_name_or_nothing(yard: FarYard, name: str) -> None:
    (yard.work / name).write_bytes(b"strange")
    (yard.work / "plain").write_bytes(b"plain")
    found = yard.found()
    assert {str(f.path) for f in found} <= {name, "plain"}
    assert "plain" in {str(f.path) for f in found}
    content = yard.copied(found)
    assert content == b"".join(b"plain" if str(f.path) == "plain" else b"strange" for f in found)
