"""Settings that others may write to by an access control list, beside what the mode bits say."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest

from sekisho.config.ownership import open_to_others


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "sekisho" / "client.toml"
    made.parent.mkdir(mode=0o755)
    made.touch(mode=0o644)
    return made


@pytest.mark.parametrize("who", ["u:nobody", "g:nogroup"])
def test_whoever_may_write_by_an_acl_is_somebody_else(file: Path, who: str) -> None:
    """Kills: an ACL that passes as the bits of one's own private group."""
    user = pwd.getpwuid(os.geteuid())
    for place in (file, file.parent):
        os.chown(place, -1, user.pw_gid)
        subprocess.run(["setfacl", "-m", f"{who}:r-x", place], check=True)
        assert open_to_others(file) is None  # the control: who may read is nobody
        subprocess.run(["setfacl", "-m", f"{who}:rwx", place], check=True)
        assert open_to_others(file) == place
        subprocess.run(["setfacl", "-b", place], check=True)
        place.chmod(place.stat().st_mode & ~0o022)
        assert open_to_others(file) is None


def test_an_acl_for_files_that_are_still_to_be_made_lets_nobody_write(file: Path) -> None:
    subprocess.run(["setfacl", "-d", "-m", "u:nobody:rwx", file.parent], check=True)
    assert open_to_others(file) is None
    made = file.with_name("made.toml")
    made.touch(mode=0o666)
    assert open_to_others(made) == made  # it came with the list of its directory
