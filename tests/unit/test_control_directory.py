"""Where the sockets of shared connections are: whoever can reach one is logged in as we are."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.adapters.hosts.ssh import control_directory
from sekisho.domain.errors import ConfigError


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the directory's name, in an empty folder with a short one."""
    folder = Path(tempfile.mkdtemp(prefix="sk-", dir="/tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    yield folder / f"sekisho-ssh-{os.geteuid()}"
    shutil.rmtree(folder)


def test_it_is_made_for_us_alone_and_used_again(place: Path) -> None:
    before = os.umask(0)
    try:
        assert control_directory() == place
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.lstat().st_mode) == 0o700
    assert control_directory() == place


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o777])
def test_one_that_others_can_enter_is_not_used(place: Path, mode: int) -> None:
    """Kills: sockets in a directory that somebody else has made, and left open, under our name."""
    place.mkdir()
    place.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        control_directory()
    assert caught.value.code == "ssh.control_directory"


def test_what_only_leads_to_one_is_not_used(place: Path) -> None:
    elsewhere = place.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    place.symlink_to(elsewhere)
    with pytest.raises(ConfigError):
        control_directory()
    place.unlink()
    place.touch(0o600)
    with pytest.raises(ConfigError):
        control_directory()


def test_somebody_elses_is_not_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    place.with_name(f"sekisho-ssh-{mine + 1}").mkdir(mode=0o700)
    with pytest.raises(ConfigError):
        control_directory()
