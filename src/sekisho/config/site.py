"""The agent's settings: `agent.toml`, in the site's own directory beside `manifest.toml`.

Paths are relative to that directory. Secrets are never in here, only the names of their files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from sekisho.config.file_name import FileName, located
from sekisho.config.form import formed
from sekisho.config.load import load
from sekisho.config.ownership import check_ours
from sekisho.domain.errors import ConfigError

SETTINGS_NAME: Final = "agent.toml"
MANIFEST_NAME: Final = "manifest.toml"


class BrokerTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the broker is, and how to get there."""

    url: Annotated[str, Meta(min_length=8, max_length=500)]
    token_file: FileName = "token"  # noqa: S105 the name of a file
    ca_file: FileName | None = None
    proxy: str | None = None  #: None: as https_proxy and no_proxy say
    max_mbit_s: Annotated[float, Meta(gt=0)] | None = None  #: for files, each way; None: no limit


class SiteTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the site keeps what is its own."""

    manifest: FileName = MANIFEST_NAME
    work_base: FileName = "work"
    state_dir: FileName = "state"
    #: How much of what submitters sent is kept for their next jobs; 0: nothing.
    cache_bytes: Annotated[int, Meta(ge=0)] = 2 << 30


class LogTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"  #: auto: console on a terminal


class HostTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A computing host that is reached by ssh."""

    #: No character that any shell or program there could misread.
    base: Annotated[str, formed("host_base", r"(/[A-Za-z0-9._@+-]+){2,}"), Meta(max_length=500)]
    ssh_config: FileName | None = None  #: None: ~/.ssh/config and the system's
    logins_per_minute: Annotated[int, Meta(ge=1, le=600)] = 8
    spare_bytes: Annotated[int, Meta(ge=0)] = 64 << 20


#: A name of the ssh configuration, or user@name.
Alias = Annotated[str, formed("alias", r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,127}")]


class SiteSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `agent.toml`."""

    broker: BrokerTable
    site: SiteTable = SiteTable()
    log: LogTable = LogTable()
    host: dict[Alias, HostTable] = {}


class SiteFiles:
    """The site's directory, and where in it the settings point."""

    def __init__(self, home: Path, settings: SiteSettings) -> None:
        self.home = home.absolute()
        self.settings = settings

    @property
    def manifest(self) -> Path:
        return self.at(self.settings.site.manifest)

    @property
    def work_base(self) -> Path:
        return self.at(self.settings.site.work_base)

    @property
    def state(self) -> Path:
        return self.at(self.settings.site.state_dir)

    @property
    def cache(self) -> Path:
        """Input chunks kept for the next job; may be removed whenever no agent runs."""
        return self.state / "cache"

    @property
    def slots(self) -> Path:
        """Where agent and carrier count what the site has in hand."""
        return self.state / "slots"

    @property
    def token(self) -> Path:
        return self.at(self.settings.broker.token_file)

    @property
    def ca(self) -> Path | None:
        name = self.settings.broker.ca_file
        return None if name is None else self.at(name)

    @property
    def instance(self) -> Path:
        return self.state / "instance"

    @property
    def paused(self) -> Path:
        return self.state / "paused"

    @property
    def line(self) -> Path:
        """How the agent's line to the broker is, as it noted last."""
        return self.state / "line.json"

    @property
    def disabled(self) -> Path:
        """One name of a command a line: switched off by the site itself."""
        return self.state / "disabled"

    def at(self, name: str) -> Path:
        """Return the file or folder that the settings call ``name``."""
        return located(self.home, name)


def load_site(home: Path, environ: dict[str, str] | None = None) -> SiteFiles:
    """Return the site in the directory ``home``; raise ConfigError with every fault."""
    if not (home / SETTINGS_NAME).exists():
        raise ConfigError("site.not_set_up", directory=str(home))
    check_ours(home / SETTINGS_NAME)
    return SiteFiles(home, load(home / SETTINGS_NAME, SiteSettings, environ=environ))


def disabled_commands(file: Path) -> frozenset[str]:
    """Return the commands that the site's people have switched off."""
    try:
        return frozenset(file.read_text("utf-8").split())
    except FileNotFoundError:
        return frozenset()
