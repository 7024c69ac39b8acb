"""Settings of the workflow side that others could have written: none of their commands is run."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from sekisho.config.client import load_client
from sekisho.config.ownership import open_to_others
from sekisho.domain.errors import ConfigError
from tests.other_group import share

BROKER = '[broker]\nurl = "https://broker.example"\n'
SITE = '[site.kobe]\nmode = "ssh"\nhost = "far"\n'
COMMANDS = {
    "before": 'before = ["/bin/true"]',
    "after": 'after = ["/bin/true"]',
    "ssh_config": 'ssh_config = "ssh_config"',
    "program": 'program = { solve = ["/bin/true"] }',
}


OPENED: dict[str, Callable[[Path], None]] = {
    "the file to all": lambda file: file.chmod(0o606),
    "the file to a group": share,
    "its directory": lambda file: file.parent.chmod(0o777),
    "the directory above": lambda file: file.parent.parent.chmod(0o777),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "above" / "sekisho").mkdir(parents=True)
    (tmp_path / "above" / "sekisho" / "ssh_config").touch()
    made = tmp_path / "above" / "sekisho" / "client.toml"
    made.write_text(BROKER)
    for place in (made, *made.parents[:2], made.with_name("ssh_config")):
        place.chmod(place.stat().st_mode & ~0o022)
    return made


@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize("key", COMMANDS)
def test_no_command_is_taken_from_settings_that_others_can_change(
    file: Path, key: str, opened: str
) -> None:
    file.write_text(f"{BROKER}{SITE}{COMMANDS[key]}\n")
    assert load_client(file).loose is None  # the control
    OPENED[opened](file)
    with pytest.raises(ConfigError) as caught:
        load_client(file)
    assert caught.value.code == "client.open_to_others"
    assert caught.value.params["names"] == f"site.kobe.{key}"
    assert Path(str(caught.value.params["file"])) in (file, *file.parents[:2])


@pytest.mark.parametrize("opened", OPENED)
def test_shared_settings_without_commands_are_used_and_that_is_told(
    file: Path, opened: str
) -> None:
    file.write_text(BROKER + SITE)
    OPENED[opened](file)
    found = load_client(file)
    assert found.settings.site["kobe"].host == "far"
    assert found.loose in (file, *file.parents[:2])


def test_a_file_for_ssh_that_others_can_change_is_not_used(file: Path) -> None:
    file.write_text(f"{SITE}{COMMANDS['ssh_config']}\n")
    file.with_name("ssh_config").chmod(0o666)
    with pytest.raises(ConfigError) as caught:
        load_client(file)
    assert caught.value.params["file"] == str(file.with_name("ssh_config"))


def test_a_link_counts_as_all_that_it_leads_over(file: Path, tmp_path: Path) -> None:
    """Kills: a look at both ends of a chain of links, and not at a link between."""
    between = tmp_path / "between"
    between.mkdir()
    (between / "link").symlink_to(file)
    (tmp_path / "client.toml").symlink_to("between/link")
    assert open_to_others(tmp_path / "client.toml") is None
    between.chmod(0o777)
    assert open_to_others(tmp_path / "client.toml") == between


def test_a_directory_where_nobody_removes_what_is_anothers_is_on_the_way(file: Path) -> None:
    file.parent.parent.chmod(0o1777)
    assert open_to_others(file) is None


def test_ones_own_private_group_is_nobody_else(file: Path) -> None:
    user = pwd.getpwuid(os.geteuid())
    os.chown(file, -1, user.pw_gid)
    file.chmod(0o660)
    private = grp.getgrgid(user.pw_gid).gr_name == user.pw_name
    assert open_to_others(file) == (None if private else file)


def test_what_belongs_to_another_is_not_ours(file: Path) -> None:
    if os.geteuid() == 0:
        os.chown(file.parent, 61234, -1)
        assert open_to_others(file) == file.parent
    else:
        assert open_to_others(Path("/proc/1/cmdline")) is None  # of root, which is no other


def test_a_mark_that_protects_in_a_directory_protects_no_file(file: Path) -> None:
    """Kills: a file for all to write that passes because it is `sticky`, which means nothing."""
    file.chmod(0o1606)
    assert open_to_others(file) == file
