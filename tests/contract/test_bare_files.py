"""What came back from a bare site is given away as it was read, and looked at when it is not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.adapters.bare_files import BareFiles, Quarantine
from sekisho.domain.errors import SekishoError
from sekisho.domain.files import RelPath
from sekisho.transfer.fetch import fetch_files
from sekisho.transfer.port import Given

SIZE = 1 << 20
PATH = RelPath.parse("folder/large")


@pytest.fixture
def quarantine(tmp_path: Path) -> Quarantine:
    made = Quarantine(tmp_path / "job")
    (made.work / "folder").mkdir(parents=True)
    (made.work / "folder" / "large").write_bytes(os.urandom(SIZE))
    return made


@pytest.fixture
def files(quarantine: Quarantine, tmp_path: Path) -> BareFiles:
    back = quarantine.look()
    return BareFiles(
        lambda _links, _report: None,
        tmp_path / "in",
        lambda: back,
        lambda read: read(back),
        quarantine.held,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "there").mkdir()
    fd = os.open(tmp_path / "there", os.O_RDONLY)
    yield fd
    os.close(fd)


def test_an_untouched_file_is_given_as_it_was_verified(
    quarantine: Quarantine, files: BareFiles, folder: int, tmp_path: Path
) -> None:
    before = (quarantine.work / "folder" / "large").read_bytes()
    assert files.give(PATH, folder, "0") is Given.SOUND
    assert (tmp_path / "there" / "0").read_bytes() == before


def test_a_touched_file_is_to_be_looked_at(
    quarantine: Quarantine, files: BareFiles, folder: int
) -> None:
    (quarantine.work / "folder" / "large").write_bytes(bytes(SIZE))
    assert files.give(PATH, folder, "0") is Given.UNSEEN


def test_what_is_not_here_is_not_given(files: BareFiles, folder: int) -> None:
    assert files.give(RelPath.parse("never"), folder, "0") is Given.NOTHING
    assert files.give(PATH, folder, "there/is/no/such/folder") is Given.NOTHING


def test_a_result_that_was_changed_after_it_was_read_gets_no_name(
    quarantine: Quarantine, files: BareFiles, tmp_path: Path
) -> None:
    """Killed by: taking whatever is given for verified."""
    tree = quarantine.look().tree
    (quarantine.work / "folder" / "large").write_bytes(bytes(SIZE))
    with pytest.raises(SekishoError):
        fetch_files(tree, files, tmp_path / "result")
    assert not (tmp_path / "result" / "folder" / "large").exists()
