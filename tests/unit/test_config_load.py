"""Configuration: every fault at once, each with its line; the environment overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from sekisho.config.load import load, parse
from sekisho.domain.errors import ConfigError


class Output(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    max_bytes: Annotated[int, msgspec.Meta(ge=1)] = 1


class Command(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    argv: list[str]
    output: list[Output] = []
    by_name: dict[str, Output] = {}


class Net(msgspec.Struct, frozen=True, kw_only=True):
    port: Annotated[int, msgspec.Meta(ge=0)] = 1
    host: str = "h"
    names: list[str] = []
    open: bool = False
    proxy: str | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    schema: Literal[1] = 1
    site: str = "one"
    net: Net = Net()
    command: list[Command] = []
    extra: Output | None = None


class Lanes(msgspec.Struct, frozen=True, kw_only=True):
    lane: dict[Annotated[str, msgspec.Meta(pattern="^[a-z]$")], Output] = {}


def faults(text: str, environ: dict[str, str] | None = None) -> set[tuple[str, ...]]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "site.toml", Settings, environ=environ)
    found: Any = caught.value.params["faults"]
    return {(fault.place, fault.key) for fault in found}


def test_all_faults_of_a_file_are_told_at_once() -> None:
    text = (
        'schema = 2\nsite = "nims"\nnetwrok = "none"\n\n'
        '[[command]]\nname = "solve"\nargv = ["run"]\n'
        '  [[command.output]]\n  path = "a"\n  max_bytes = -5\n\n'
        '[[command]]\nargv = "run"\n'
        '[command.by_name.x]\npath = "a"\npfad = "b"\n'
    )
    assert faults(text) == {
        ("site.toml:1", "schema"),
        ("site.toml:3", "netwrok"),
        ("site.toml:10", "command[0].output[0].max_bytes"),
        ("site.toml:12", "command[1].name"),
        ("site.toml:13", "command[1].argv"),
        ("site.toml:16", "command[1].by_name.x.pfad"),
    }


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("net = 3", ("site.toml:1", "net")),
        ("command = [1]", ("site.toml:1", "command[0]")),
        ("[command]\nname = 1", ("site.toml:1", "command")),
        ("[net]\nport = true", ("site.toml:2", "net.port")),
        ("[extra]\n", ("site.toml:1", "extra.path")),
        ('\n"site" = """\na = 1\n"""\nother = 1', ("site.toml:5", "other")),
        ("a = ", ("site.toml:1", "TOML")),
        ("site = 1\nsite = 2", ("site.toml:2", "TOML")),
    ],
)
def test_a_fault_is_told_where_it_is(text: str, where: tuple[str, str]) -> None:
    assert faults(text) == {where}


def test_what_is_right_is_read() -> None:
    settings = parse('[extra]\npath = "p"\n[net]\nport = 2', "f", Settings)
    assert settings == Settings(extra=Output(path="p"), net=Net(port=2))


def test_the_environment_overrides_the_file() -> None:
    environ = {
        "SEKISHO_NET__PORT": "8443",
        "SEKISHO_NET__HOST": "8443",
        "SEKISHO_NET__NAMES": '["a", "b"]',
        "SEKISHO_NET__OPEN": "true",
        "SEKISHO_NET__PROXY": "http://proxy",
        "SEKISHO_CONFIG": "another program's",
        "SEKISHO_OTHER__KEY": "another program's",
        "HOME": "/",
    }
    expected = Net(port=8443, host="8443", names=["a", "b"], open=True, proxy="http://proxy")
    assert parse("[net]\nport = 1", "f", Settings, environ=environ).net == expected


def test_faults_of_the_environment_are_told_with_those_of_the_file() -> None:
    environ = {"SEKISHO_NET__PORT": "many", "SEKISHO_NET__PROT": "1"}
    assert faults("x = 1", environ) == {
        ("site.toml:1", "x"),
        ("SEKISHO_NET__PORT", "net.port"),
        ("SEKISHO_NET__PROT", "net.prot"),
    }


def test_a_file_that_cannot_be_read_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unreadable"):
        load(tmp_path / "absent.toml", Settings)
    (tmp_path / "bad.toml").write_bytes(b'site = "\xff"')
    with pytest.raises(ConfigError, match=r"config\.encoding"):
        load(tmp_path / "bad.toml", Settings)


def test_a_file_that_an_editor_marked_as_utf_8_is_read(tmp_path: Path) -> None:
    file = tmp_path / "marked.toml"
    file.write_bytes(b'\xef\xbb\xbfsite = "two"\r\n')
    assert load(file, Settings).site == "two"


@pytest.mark.parametrize("name", ["B", "a b", ""])
def test_a_table_of_a_name_that_cannot_be_is_a_fault_with_its_line(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f'[lane.a]\npath = "x"\n[lane."{name}"]\npath = "x"\n', "f", Lanes)
    found: Any = caught.value.params["faults"]
    assert [(fault.line, fault.code) for fault in found] == [(3, "setting.form")]
