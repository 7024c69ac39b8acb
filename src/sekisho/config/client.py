"""The workflow side's settings: `client.toml`, and where it is looked for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from sekisho.config.file_name import FileName, located
from sekisho.config.form import formed
from sekisho.config.load import load
from sekisho.config.ownership import open_to_others
from sekisho.domain.errors import ConfigError
from sekisho.domain.ids import COMMAND_PATTERN, SITE_PATTERN

CONFIG_VARIABLE: Final = "SEKISHO_CONFIG"
_COMMANDS: Final = ("before", "after", "ssh_config", "program")  #: what is run, or names it
_SiteName = Annotated[str, formed("site", SITE_PATTERN)]
_CommandName = Annotated[str, formed("command", COMMAND_PATTERN)]
_Place = Annotated[str, formed("base", r"(~/)?[A-Za-z0-9._/][A-Za-z0-9._/ -]*|~/?")]
TOKEN_FILE: Final = "token"  # noqa: S105 (a file's name)


class BrokerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the broker is. Relative file names begin at the settings file's directory."""

    url: Annotated[str, Meta(min_length=8, max_length=1024)]
    token_file: FileName = TOKEN_FILE
    ca_file: FileName | None = None  #: None: the system's authorities
    proxy: str | None = None  #: None: as https_proxy and no_proxy say
    first_contact_s: Annotated[float, Meta(ge=0)] = 30.0  #: give up when it never answered
    max_mbit_s: Annotated[float, Meta(gt=0)] | None = None  #: for files, each way; None: no limit


class SshSite(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One site that is reached by ssh. All else about the way there is in ~/.ssh/config."""

    mode: Literal["ssh"]
    kind: Literal["gated", "bare"] = "gated"
    host: Annotated[str, Meta(min_length=1, max_length=255)] = ""  #: may come from ``before``
    ssh_config: FileName | None = None  #: None: ~/.ssh/config
    persist_s: Annotated[int, Meta(ge=1, le=86_400)] = 600
    logins_per_minute: Annotated[int, Meta(ge=1, le=600)] = 8
    before: list[str] = []  #: prints the host to use; run before each job
    after: list[str] = []  #: releases it; run after each job, however it ended
    hook_s: Annotated[float, Meta(gt=0, le=3600)] = 600.0
    first_contact_s: Annotated[float, Meta(ge=0)] = 120.0  #: as the broker's; not after ``before``
    base: _Place = "/tmp"  # noqa: S108 (as ever; a job's directory below it is private)
    program: dict[
        _CommandName, Annotated[list[str], Meta(min_length=1)]
    ] = {}  #: of a bare site: what each command runs
    retention_days: Annotated[int, Meta(ge=1, le=3650)] = 30

    @property
    def place(self) -> str:
        """The base without a shell's ``~``: a name that does not begin with / is below the home."""
        if self.base.startswith("~"):
            return self.base.strip("~/") or "."
        return self.base.rstrip("/") or "/"


class ClientSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `client.toml`. A site that is not in it is the broker's."""

    broker: BrokerSettings | None = None
    site: dict[_SiteName, SshSite] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFiles:
    """The settings, with the files that they name.

    ``loose``: where others could change them. There are no commands in them then.
    """

    settings: ClientSettings
    file: Path
    token: Path | None
    ca: Path | None
    loose: Path | None = None

    def ssh_config(self, site: SshSite) -> Path | None:
        """Return the file that stands in for ~/.ssh/config."""
        name = site.ssh_config
        return None if name is None else located(self.file.parent, name)


TEMPLATE: Final = """\
# How `sekisho run` and sekisho.connect() reach the broker. File names begin at this directory.

[broker]
{lines}
# proxy = "http://proxy.example:8080"   # default: https_proxy and no_proxy of the environment
# first_contact_s = 30                  # give up after this when the broker never answered
# max_mbit_s = 100                      # use no more than this for files, each way

# Sites that are reached by ssh instead of the broker; `sekisho run NAME ...` works the same.
# [site.NAME]
# mode = "ssh"
# host = "alias"                        # a host of ~/.ssh/config, or user@host
# kind = "gated"                        # "bare": nothing is installed there but sshd and rsync
"""


def default_file(environ: Mapping[str, str]) -> Path:
    """Return where the settings are: `$SEKISHO_CONFIG`, or below the user's configuration."""
    if named := environ.get(CONFIG_VARIABLE):
        return Path(named)
    home = environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "sekisho" / "client.toml"


def load_client(file: Path | None = None, environ: Mapping[str, str] | None = None) -> ClientFiles:
    """Return the settings in ``file``, or in the default place; raise ConfigError.

    What others could have written is believed, as several people may share it, unless it names what
    would be run as us (ConfigError `client.open_to_others`).
    """
    environ = os.environ if environ is None else environ
    file = (file or default_file(environ)).absolute()
    if not file.exists():
        raise ConfigError("client.not_set_up", file=str(file))
    settings = load(file, ClientSettings, environ=environ)
    loose = _judged(file, settings)
    broker, base = settings.broker, file.parent
    if broker is None:
        return ClientFiles(settings=settings, file=file, token=None, ca=None, loose=loose)
    ca = None if broker.ca_file is None else located(base, broker.ca_file)
    token = located(base, broker.token_file)
    return ClientFiles(settings=settings, file=file, token=token, ca=ca, loose=loose)


def _judged(file: Path, settings: ClientSettings) -> Path | None:
    """Return where others could change the settings; raise ConfigError if that would run commands.

    A file for ssh counts as the settings that name it: it has commands of its own.
    """
    loose = open_to_others(file)
    for name, site in settings.site.items():
        commands = [key for key in _COMMANDS if getattr(site, key)]
        place = loose if commands else None
        if place is None and site.ssh_config is not None:
            place = open_to_others(located(file.parent, site.ssh_config))
        if place is not None:
            named = ", ".join(f"site.{name}.{key}" for key in commands)
            raise ConfigError("client.open_to_others", file=str(place), names=named)
    return loose


def settings_text(*, url: str, token_file: str, ca_file: str | None, proxy: str | None) -> str:
    """Return the text of a settings file with these values, each written as TOML."""
    lines = [f"url = {_quoted(url)}", f"token_file = {_quoted(token_file)}"]
    lines.append('# ca_file = "ca.pem"' if ca_file is None else f"ca_file = {_quoted(ca_file)}")
    if proxy is not None:
        lines.append(f"proxy = {_quoted(proxy)}")
    return TEMPLATE.format(lines="\n".join(lines))


def _quoted(text: str) -> str:
    """Return ``text`` as a basic string of TOML, whose escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
