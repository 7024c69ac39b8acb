"""The way to a broker: directly, or through the proxy that the settings or the environment name."""

from __future__ import annotations

import base64
import ipaddress
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from sekisho.domain.errors import ConfigError
from sekisho.domain.token import Secret

#: The kinds of servers and proxies that speak HTTP, with their ports.
HTTP_PORTS: Final = {"http": 80, "https": 443}
_SOCKS_PORT: Final = 1080


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A user of a proxy."""

    user: str
    password: Secret

    @property
    def basic(self) -> str:
        """The value of `Proxy-Authorization`."""
        pair = f"{self.user}:{self.password.reveal()}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy, and who named it: the settings or the environment."""

    scheme: str
    host: str
    port: int
    login: Login | None
    source: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How requests reach a broker."""

    host: str
    port: int
    tls: bool
    proxy: Proxy | None

    @property
    def first(self) -> tuple[str, int]:
        """Return the host and port that this machine itself connects to."""
        hop = self.proxy or self
        return hop.host, hop.port


def way_to(url: str, proxy: str | None) -> Way:
    """Return the way to ``url`` through ``proxy``, or as `https_proxy` and `no_proxy` say.

    Raise ConfigError(`broker.url` or `broker.proxy_address`) for what is no address.
    """
    try:
        parts, host, port = _split(url, 443)
    except ValueError as error:
        raise ConfigError("broker.url", url=url[:200]) from error
    tls = parts.scheme == "https"
    if proxy is not None:
        return Way(host=host, port=port, tls=tls, proxy=_proxy(proxy, "proxy"))
    named = getproxies()
    source = parts.scheme if parts.scheme in named else "all"
    exceptions = [name.strip() for name in named.get("no", "").split(",")]
    if source not in named or _passed_by(host, port, exceptions):
        return Way(host=host, port=port, tls=tls, proxy=None)
    return Way(host=host, port=port, tls=tls, proxy=_proxy(named[source], f"{source}_proxy"))


def _passed_by(host: str, port: int, names: list[str]) -> bool:
    """Say whether no proxy is asked for ``host``: by its name, or as one of a network's addresses.

    ``names`` are those of `no_proxy`, of which the standard library does not know the networks.
    """
    if "*" in names or proxy_bypass(f"{host}:{port}"):
        return True
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        return any(address in network for network in _networks(names))
    return False


def _networks(names: list[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    found = []
    for name in names:
        with suppress(ValueError):
            found.append(ipaddress.ip_network(name.strip("[]"), strict=False))
    return found


def _split(url: str, port: int) -> tuple[SplitResult, str, int]:
    """Return the parts of ``url``, its host and its port, ``port`` if it is of no known kind.

    Raise ValueError when it has none, or none that can be looked for.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    host.encode("idna")
    return parts, host, parts.port or HTTP_PORTS.get(parts.scheme, port)


def _proxy(url: str, source: str) -> Proxy:
    try:
        parts, host, port = _split(url if "://" in url else f"http://{url}", _SOCKS_PORT)
    except ValueError as error:  # it is not repeated: there may be a password in it
        raise ConfigError("broker.proxy_address", source=source) from error
    login = None
    if parts.username is not None:
        password = Secret(unquote(parts.password or ""))
        login = Login(user=unquote(parts.username), password=password)
    return Proxy(
        scheme=parts.scheme,
        host=host,
        port=port,
        login=login,
        source=source,
    )
