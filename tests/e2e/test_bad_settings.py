"""Every key of every settings file, with values that nobody meant: an error in words, no crash.

The commands are run in this process: what they let through would be a traceback for the user.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import msgspec
import pytest

from sekisho.cli import main
from sekisho.config.broker import BrokerSettings
from sekisho.config.client import BrokerSettings as ClientBroker
from sekisho.config.client import SshSite
from sekisho.config.site import SiteSettings
from sekisho.domain.access import Role
from sekisho.domain.token import make_token
from tests.faults.program import call, clean_environ

NOBODY_MEANT = (
    '"a\\u0000b"',
    '""',
    '"~no-such-user/x"',
    '"/"',
    '"https://127.0.0.1:99999/"',
    '"https://[::1"',
    f'"https://{"x" * 70}.example"',
    '"user:se%20cret@[::1"',
    "inf",
    "1e300",
    f"{10**20}",
    "true",
    '["a\\u0000b"]',
    "1979-05-27",
)
#: To wait for ever is what some of the values say.
MEANT = {"first_contact_s"}
Values: TypeAlias = dict[tuple[str, ...], str]
SILENT = "https://127.0.0.1:1"


def keys(table: type[msgspec.Struct], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Return the path of every key of ``table`` and of the tables in it."""
    for field in msgspec.structs.fields(table):
        path = (*above, field.encode_name)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from keys(field.type, path)
        elif field.encode_name not in MEANT:
            yield path


BROKER = [path for path in keys(BrokerSettings) if path != ("mint", "site")]
CLIENT = [*keys(ClientBroker, ("broker",)), *keys(SshSite, ("site", "there"))]
AGENT = [path for path in keys(SiteSettings) if path != ("host",)]


def written(usual: Values, path: tuple[str, ...], value: str) -> str:
    """Return settings as TOML: the ``usual`` ones, and ``value`` at ``path``."""
    return "".join(f"{'.'.join(key)} = {text}\n" for key, text in {**usual, path: value}.items())


def try_all(
    file: Path,
    usual: Values,
    paths: list[tuple[str, ...]],
    commands: list[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Try each of ``paths`` with every value; each command ends with a status and its words."""
    told = 0
    for path in paths:
        for value in NOBODY_MEANT:
            file.write_text(written(usual, path, value), "utf-8")
            for command in commands:
                status = main.run(command)
                said = "".join(capsys.readouterr())
                assert status == 0 or said, (path, value, command)
                assert path[-1] != "proxy" or not re.search("se(%20| )cret", said)
                told += status != 0
    assert told > len(paths)


def test_a_client_says_what_is_wrong_with_its_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token_file(tmp_path / "token", Role.SUBMITTER)
    file = tmp_path / "client.toml"
    usual: Values = {
        ("broker", "url"): f'"{SILENT}"',
        ("broker", "first_contact_s"): "0",
        ("site", "there", "mode"): '"ssh"',
        ("site", "there", "host"): '"there"',
    }
    try_all(file, usual, CLIENT, [["--config", str(file), "sites"]], capsys)


def test_a_site_says_what_is_wrong_with_its_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "site"
    assert main.run(["site", "init", "--dir", str(home)]) == 0
    token_file(home / "token", Role.SITE)
    usual: Values = {("broker", "url"): f'"{SILENT}"'}
    place = ["--dir", str(home)]
    commands = [["site", "status", *place], ["site", "check", "--quick", *place]]
    try_all(home / "agent.toml", usual, AGENT, commands, capsys)


def test_a_broker_says_what_is_wrong_with_its_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["broker", "init", str(tmp_path / "broker")]) == 0
    file = tmp_path / "broker" / "broker.toml"
    try_all(file, {}, BROKER, [["broker", "status", "-c", str(file)]], capsys)


def token_file(file: Path, role: Role) -> None:
    file.touch(0o600)
    file.write_text(make_token(role, b"x" * 32).reveal())


def test_an_account_without_a_home_has_the_root_for_one(tmp_path: Path) -> None:
    environ = clean_environ(tmp_path)
    del environ["HOME"]
    unknown = "import pwd; pwd.getpwuid = lambda number: {}[number]"
    _, said = call(environ, "site", "status", status=None, first=unknown)
    assert "site.not_set_up" in said
    assert "/.config/sekisho/site" in said
    assert "~" not in said


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--config", "/dev/zero", "sites"), "config.unreadable"),
        (("broker", "status", "-c", "/dev/zero"), "config.unreadable"),
        (("site", "manifest-from", "--site", "x", "--ini", "/dev/zero"), "config.unreadable"),
        (("site", "gate-key", "list", "--authorized-keys", "/dev/zero"), "config.unreadable"),
        (
            ("site", "gate-key", "remove", "x", "--authorized-keys", "/dev/zero"),
            "config.unreadable",
        ),
        (("site", "gate-key", "add", "--submitter", "x", "/dev/zero"), "gate.key_invalid"),
        (("run", "b", "x", "--id-file", "/dev/zero"), "name.invalid"),
    ],
)
def test_what_has_no_end_is_not_read_to_its_end(
    tmp_path: Path, words: tuple[str, ...], code: str
) -> None:
    environ = clean_environ(tmp_path)
    call(environ, "site", "init")
    settings = tmp_path / ".config" / "sekisho" / "client.toml"
    settings.write_text('[site.b]\nmode = "ssh"\nkind = "bare"\nhost = "b"\n')
    _, said = call(environ, *words, status=None)
    assert f"error[{code}]" in said


def test_a_draft_of_no_command_is_none(tmp_path: Path) -> None:
    _, said = call(
        clean_environ(tmp_path),
        *("site", "manifest-from", "--site", "x", "--command", " "),
        status=64,
    )
    assert "mint.no_commands" in said
