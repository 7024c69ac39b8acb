"""The broker's settings: `broker.toml`. Everything in it has a default; times and sizes name units.

`[http]` and `[store]` need a restart; the rest is read again on SIGHUP and by `broker reload`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from sekisho.config.file_name import FileName, located
from sekisho.config.form import formed
from sekisho.config.load import fault_at, invalid, load, read_text
from sekisho.config.locate import KeyPath
from sekisho.config.ownership import read_by_others
from sekisho.domain.errors import ConfigError, UsageError
from sekisho.domain.ids import COMMAND_PATTERN, SITE_PATTERN

GIB: Final = 1 << 30
Days = Annotated[float, Meta(gt=0, le=3660)]
Count = Annotated[int, Meta(ge=0)]
Bytes = Annotated[int, Meta(ge=0)]
_SiteName = Annotated[str, formed("site", SITE_PATTERN)]
_CommandName = Annotated[str, formed("command", COMMAND_PATTERN)]


class HttpSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the broker listens. Without certificate files it speaks plain HTTP: for a proxy."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 50443
    prefix: Annotated[str, formed("prefix", r"(/[A-Za-z0-9._~-]+)*")] = ""
    tls_cert: FileName | None = None
    tls_key: FileName | None = None
    trusted_proxies: list[str] = []


class StoreSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where jobs and chunks are kept. Relative paths begin at the settings file's directory."""

    data_dir: FileName = "."
    database_url_file: FileName | None = None  #: a 0600 file with a PostgreSQL address; else SQLite


class QuotaSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one site, one submitter and one job may hold of the broker."""

    site_jobs: Count = 10_000
    user_jobs: Count = 5_000
    site_bytes: Bytes = 500 * GIB
    user_bytes: Bytes = 200 * GIB
    job_bytes: Bytes = 100 * GIB
    free_floor_bytes: Bytes = GIB
    max_queue_days: Annotated[float, Meta(gt=0, le=60)] = 60


class RetentionSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long an ended job is kept after its result was received, and when it never was."""

    received_days: Days = 7
    unreceived_days: Days = 60
    unreachable_minutes: Annotated[float, Meta(gt=0, le=86_400)] = 10


class MintSiteSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the old MInt paths may do for one site. A site that has no table here has none."""

    unguarded: bool = False
    known_as: Annotated[str, formed("known_as", r"[!-~]{1,80}")] | None = None
    commands: dict[_CommandName, Annotated[str, Meta(min_length=1, max_length=2048)]] = {}


class MintSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The old MInt paths, for programs that cannot be changed yet."""

    enabled: bool = False
    queue_minutes: Annotated[float, Meta(gt=0, le=86_400)] = 30
    max_body_bytes: Bytes = 3 * GIB
    site: dict[_SiteName, MintSiteSettings] = {}


class GatewaySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A gateway in front that checks credentials itself and names the user in a header."""

    user_header: Annotated[str, formed("header", r"[A-Za-z0-9-]{1,64}")] | None = None
    addresses: list[str] = []


class LogSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    level: Literal["debug", "info", "warning", "error"] = "info"


class BrokerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `broker.toml`."""

    http: HttpSettings = HttpSettings()
    store: StoreSettings = StoreSettings()
    quota: QuotaSettings = QuotaSettings()
    retention: RetentionSettings = RetentionSettings()
    mint: MintSettings = MintSettings()
    gateway: GatewaySettings = GatewaySettings()
    log: LogSettings = LogSettings()


TEMPLATE: Final = """\
# Settings of this broker. Every key may be left out; shown are the defaults, or your choices at
# `sekisho broker init`. SEKISHO_<SECTION>__<KEY> in the environment overrides a key.

[http]            # a change needs a restart
host = {host}
port = {port}
# prefix = "/sekisho"            # the path below which a reverse proxy shows this broker
{tls_cert}
{tls_key}
# trusted_proxies = ["127.0.0.1"]   # whose X-Forwarded-For is believed

[store]           # a change needs a restart
# data_dir = "."
{database}

[quota]           # from here on: `sekisho broker reload` is enough
# site_jobs = 10000              # not yet ended
# user_jobs = 5000
# site_bytes = 536870912000
# user_bytes = 214748364800
# job_bytes = 107374182400
# free_floor_bytes = 1073741824  # nothing is stored that would leave less free than this
# max_queue_days = 60

[retention]
# received_days = 7              # after the submitter has the result
# unreceived_days = 60
# unreachable_minutes = 10       # when the jobs of a silent agent are flagged

[mint]            # the paths of MInt's old distributed computing API; see mint-migration.md
# enabled = false
# queue_minutes = 30             # a registration that nobody has taken by then ends
# max_body_bytes = 3221225472
# site = {{}}                    # one table for each site that has the old paths:
#   [mint.site.NAME]
#   unguarded = false            # true: an old agent serves it, which cannot keep a manifest
#   known_as = "Site_A"          # what old programs call it, if that is another name
#   [mint.site.NAME.commands]    # what may be asked for, exactly as written; names are yours
#   solve = "/opt/solver/bin/solve"

[gateway]         # one that checks credentials itself and names the user in a header
# user_header = "X-Authenticated-User"
# addresses = []                 # whose header is believed: addresses or networks, of the socket

[log]
# level = "info"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerFiles:
    """The settings, and where the files stand that they speak of."""

    config: Path
    settings: BrokerSettings
    data: Path
    database_url: str | None = field(default=None, repr=False)

    @property
    def pid(self) -> Path:
        return self.data / "broker.pid"

    @property
    def tls_cert(self) -> Path | None:
        return self._place(self.settings.http.tls_cert)

    @property
    def tls_key(self) -> Path | None:
        return self._place(self.settings.http.tls_key)

    def _place(self, name: str | None) -> Path | None:
        return None if name is None else located(self.config.parent, name).absolute()


def load_broker(config: Path, environ: Mapping[str, str] | None = None) -> BrokerFiles:
    """Return the settings in ``config`` under the environment; raise ConfigError."""
    config = config.absolute()
    settings = load(config, BrokerSettings, environ=os.environ if environ is None else environ)
    store = settings.store
    if fault := _fault(settings):
        raise invalid([fault_at(read_text(config), config.name, *fault)])
    place = store.database_url_file
    return BrokerFiles(
        config=config,
        settings=settings,
        data=located(config.parent, store.data_dir).absolute(),
        database_url=None if place is None else _database_url(located(config.parent, place)),
    )


def _database_url(file: Path) -> str:
    """Return the address in ``file``; raise ConfigError if others may read its password there."""
    text = read_text(file)
    if read_by_others(file, mode := file.stat().st_mode):
        raise ConfigError("store.url_open", file=str(file), mode=f"{mode & 0o777:o}")
    return text.strip()


def _fault(settings: BrokerSettings) -> tuple[KeyPath, UsageError] | None:
    """Return the first key that does not go with the others, and why."""
    if (settings.http.tls_cert is None) is not (settings.http.tls_key is None):
        return ("http", "tls_cert"), UsageError("setting.together", names="tls_cert, tls_key")
    if name := _named_twice(settings.mint):
        taken = settings.mint.site[name].known_as
        return ("mint", "site", name), UsageError("setting.duplicate", value=taken)
    return _gateway_fault(settings)


def _named_twice(mint: MintSettings) -> str | None:
    """Return a site whose name for old programs is that of another one, too."""
    taken = set(mint.site)
    for name, site in mint.site.items():
        if site.known_as is not None and site.known_as != name:
            if site.known_as in taken:
                return name
            taken.add(site.known_as)
    return None


def _gateway_fault(settings: BrokerSettings) -> tuple[KeyPath, UsageError] | None:
    """Return which key of the gateway's is wrong, and why.

    With trusted proxies the socket's address would be replaced by what a header says.
    """
    gateway = settings.gateway
    if (gateway.user_header is None) is not (not gateway.addresses):
        together = UsageError("setting.together", names="user_header, addresses")
        return ("gateway", "user_header"), together
    if gateway.addresses and settings.http.trusted_proxies:
        excluded = UsageError("setting.excludes", name="http.trusted_proxies")
        return ("gateway", "addresses"), excluded
    for n, text in enumerate(gateway.addresses):
        try:
            ip_network(text)
        except ValueError:
            return ("gateway", "addresses", n), UsageError("setting.address", value=text)
    return None


def networks(gateway: GatewaySettings) -> tuple[IPv4Network | IPv6Network, ...]:
    """Return whose header is believed; raise ValueError for what is no address."""
    return tuple(ip_network(text) for text in gateway.addresses)
