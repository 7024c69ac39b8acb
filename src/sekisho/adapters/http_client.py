"""HTTP clients for talking to a broker: trust, proxy, time-outs and credential, set up once.

TLS is always verified: against the system's authorities, or those of one file. Proxies are the one
of the settings, or those that `https_proxy` and `no_proxy` name. Redirects are never followed.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sekisho import __version__
from sekisho.domain.errors import ConfigError
from sekisho.domain.token import Secret

if TYPE_CHECKING:  # importing these costs more than a whole `sekisho --version`
    import ssl

    import httpx2

USER_AGENT: Final = f"sekisho/{__version__}"
CONNECT_SECONDS: Final = 15.0
READ_SECONDS: Final = 60.0
#: Shorter than any server keeps a connection: equal values race.
KEEPALIVE_SECONDS: Final = 20.0
_LOOPBACK: Final = re.compile(r"http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(/.*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a broker is and how to get there. ``url`` may end in a path prefix."""

    url: str
    token: Secret
    ca_file: Path | None = None
    proxy: str | None = None  #: None: as the environment says
    max_mbit_s: float | None = None  #: for files, each way; None: as fast as it goes


def http_client(address: Address) -> httpx2.Client:
    """Return a client for requests below ``address.url``; the caller closes it."""
    import httpx2  # noqa: PLC0415

    return httpx2.Client(**_settings(address))


def async_http_client(address: Address) -> httpx2.AsyncClient:
    """Return the same for async code; the caller closes it."""
    import httpx2  # noqa: PLC0415

    return httpx2.AsyncClient(**_settings(address))


def _settings(address: Address) -> dict[str, Any]:
    import httpx2  # noqa: PLC0415

    return {
        "base_url": base_url(address.url),
        "headers": {
            "Authorization": f"Bearer {address.token.reveal()}",
            "User-Agent": USER_AGENT,
            "Accept": "application/json, application/problem+json, application/octet-stream",
            "Accept-Encoding": "identity",
        },
        "verify": trust(address.ca_file),
        "proxy": address.proxy,
        "trust_env": address.proxy is None,
        "timeout": httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
        "limits": httpx2.Limits(keepalive_expiry=KEEPALIVE_SECONDS),
        "follow_redirects": False,
    }


def base_url(url: str) -> str:
    """Return ``url`` with one slash at its end; plain HTTP is for this very machine only."""
    if not url.startswith("https://") and _LOOPBACK.fullmatch(url) is None:
        raise ConfigError("broker.url", url=url[:200])
    return url.rstrip("/") + "/"


def trust(ca_file: Path | None) -> ssl.SSLContext | bool:
    """Return what decides whom to believe; True: the system's authorities, as httpx2 finds them."""
    if ca_file is None:
        return True
    import ssl  # noqa: PLC0415

    from sekisho.adapters.tls_socket import WideSocket  # noqa: PLC0415

    try:
        context = ssl.create_default_context(cafile=os.fspath(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError("tls.ca_file", file=str(ca_file)) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = WideSocket
    return context
