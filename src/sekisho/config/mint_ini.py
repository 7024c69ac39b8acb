"""The settings file of the old MInt broker, read; and what it becomes in our own words."""

from __future__ import annotations

import configparser
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from sekisho.domain.errors import ConfigError
from sekisho.domain.ids import COMMAND_PATTERN, SITE_PATTERN

_SITES: Final = "RemoteSites"
_HTTP: Final = {"ipaddress": "host", "portnumber": "port"}
_KNOWN: Final = {"Server": {*_HTTP, "loglevel"}, _SITES: {"remote_site_ids"}}
_MAX_NAME: Final = 40


@dataclass(frozen=True, slots=True)
class OldSettings:
    """The sites of an old file, each with its commands by a name of ours, and what else it says."""

    sites: Mapping[str, Mapping[str, str]]
    known_as: Mapping[str, str]  #: of a site whose old name is none of ours: that name
    server: Mapping[str, str]  #: of `[http]` here: `host` and `port`, as they were there
    unmatched: tuple[str, ...]  #: what has no counterpart, each as `section.key` and why


def read_ini(text: str, file: str) -> OldSettings:
    """Return what the old file says; raise ConfigError when it is no such file."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    text = text.removeprefix("\ufeff")
    try:
        parser.read_string(text, file)
    except configparser.ParsingError as error:
        number = _number_of(error)
        line = text.splitlines()[number - 1].strip()
        raise ConfigError("mint.ini", file=f"{file}:{number}", why=line) from error
    if not parser.has_option(_SITES, "remote_site_ids"):
        raise ConfigError("mint.ini", file=file, why=f"[{_SITES}] remote_site_ids")
    names = list(dict.fromkeys(parser.get(_SITES, "remote_site_ids").split()))
    ours: dict[str, str] = {}  # by our name the old one
    for name in names:
        if (site := site_name(name)) is not None:
            ours.setdefault(site, name)
    wrong = [name for name in names if name not in ours.values()]
    sites = {
        site: named(_lines(parser.get(name, "commands", fallback="")))
        for site, name in ours.items()
    }
    known_as = {site: name for site, name in ours.items() if site != name}
    server = {
        key: parser.get("Server", old)
        for old, key in _HTTP.items()
        if parser.has_option("Server", old)
    }
    return OldSettings(sites, known_as, server, tuple(_unmatched(parser, names, wrong)))


def _number_of(error: configparser.ParsingError) -> int:
    """Return the number of the first line that is not understood."""
    number = getattr(error, "lineno", None)  # of what ends the reading; else all are collected
    return int(error.errors[0][0] if number is None else number)


def site_name(old: str) -> str | None:
    """Return what an old site is called here: in small letters, without signs; None if nothing."""
    name = re.sub(r"[^a-z0-9]+", "-", old.lower()).strip("-")
    return name if old.isascii() and re.fullmatch(SITE_PATTERN, name) else None


def _unmatched(
    parser: configparser.ConfigParser, names: list[str], wrong: list[str]
) -> Iterator[str]:
    for name in wrong:
        yield f"{_SITES}.remote_site_ids: {name} ({SITE_PATTERN})"
    for name in names:
        if not parser.has_option(name, "commands"):
            yield f"{_SITES}.remote_site_ids: {name} ([{name}] commands)"
    for section in parser.sections():
        known = {"commands"} if section in names else _KNOWN.get(section, set())
        yield from (f"{section}.{key}" for key in parser[section] if key not in known)
    if parser.has_option("Server", "loglevel"):
        yield f"Server.loglevel = {parser.get('Server', 'loglevel')} ([log] level)"


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def named(commands: list[str]) -> dict[str, str]:
    """Return ``commands``, each under a name made of its program's."""
    found: dict[str, str] = {}
    for command in dict.fromkeys(commands):
        base = re.sub(r"[^a-z0-9]+", "-", command.split()[0].rpartition("/")[2].lower())
        base = re.sub(r"-(sh|py|exe|bat)$", "", base.strip("-"))[:_MAX_NAME].strip("-")
        base = base if re.fullmatch(COMMAND_PATTERN, base) else f"command-{base}".rstrip("-")
        name, number = base, 1
        while name in found:
            number += 1
            name = f"{base}-{number}"
        found[name] = command
    return found


def mint_tables(settings: OldSettings) -> str:
    """Return the tables of `broker.toml` that ``settings`` become: old agents at every site."""
    lines = ["[mint]", "enabled = true"]
    for site, commands in settings.sites.items():
        lines += ["", f"[mint.site.{site}]", "unguarded = true"]
        if site in settings.known_as:
            lines.append(f"known_as = {quoted(settings.known_as[site])}")
        lines.append(f"[mint.site.{site}.commands]")
        lines += [f"{name} = {quoted(command)}" for name, command in commands.items()]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """Return ``text`` as a TOML string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
