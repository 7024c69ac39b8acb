"""What sends requests to a broker: trust, proxy and credential, set up once.

TLS is always verified: against the system's authorities, or those of one file. Proxies are the one
of the settings, or those that `https_proxy` and `no_proxy` name. An answer that
redirects is an answer like any other: nothing follows it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from sekisho import __version__
from sekisho.adapters.bearer import Bearer
from sekisho.adapters.way import HTTP_PORTS, Proxy, way_to
from sekisho.domain.errors import ConfigError
from sekisho.domain.token import Secret

if TYPE_CHECKING:  # importing these costs more than a whole `sekisho --version`
    import ssl

    import httpcore2

    from sekisho.adapters.http_sender import AsyncSender, Sender, Target

USER_AGENT: Final = f"sekisho/{__version__}"
#: Shorter than any server keeps a connection: equal values race.
KEEPALIVE_SECONDS: Final = 20.0
#: A host, a port and a path; a query, a fragment or a login would be lost on the way.
_ADDRESS: Final = re.compile(
    r"(https://([^\s/?#@:\[\]]+|\[[0-9A-Fa-f:.]+\])|http://(127\.0\.0\.1|localhost|\[::1\]))"
    r"(:\d{1,5})?(/[^\s?#]*)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a broker is and how to get there. ``url`` may end in a path prefix."""

    url: str
    token: Secret
    token_again: Callable[[], Secret] | None = None  #: reads it anew, after a refusal
    ca_file: Path | None = None
    proxy: str | None = None  #: None: as the environment says
    max_mbit_s: float | None = None  #: for files, each way; None: as fast as it goes


def sender(address: Address) -> Sender:
    """Return what sends requests below ``address.url``; the caller closes it."""
    import httpcore2  # noqa: PLC0415

    from sekisho.adapters.http_sender import Sender  # noqa: PLC0415
    from sekisho.adapters.http_stream import Sockets  # noqa: PLC0415

    target, settings = target_of(address), _settings(address)
    pool = httpcore2.ConnectionPool(**settings, network_backend=Sockets())
    return Sender(target, lambda: pool.create_connection(target.origin))


def async_sender(address: Address) -> AsyncSender:
    """Return the same for async code; the caller closes it."""
    import httpcore2  # noqa: PLC0415

    from sekisho.adapters.http_sender import AsyncSender  # noqa: PLC0415
    from sekisho.adapters.http_stream import AsyncSockets  # noqa: PLC0415

    target, settings = target_of(address), _settings(address)
    proxy = settings["proxy"]
    # TLS within TLS, to a proxy that speaks it itself, is the library's own matter.
    backend = None if proxy and proxy.url.scheme == b"https" else AsyncSockets()
    pool = httpcore2.AsyncConnectionPool(**settings, network_backend=backend)
    return AsyncSender(target, lambda: pool.create_connection(target.origin))


def target_of(address: Address) -> Target:
    """Return what all requests below ``address.url`` share."""
    import httpcore2  # noqa: PLC0415

    from sekisho.adapters.http_sender import Target  # noqa: PLC0415

    parts = urlsplit(base_url(address.url))
    try:
        host, port = (parts.hostname or "").encode("idna"), parts.port
    except ValueError as error:
        raise ConfigError("broker.url", url=address.url[:200]) from error
    named = b"[%b]" % host if b":" in host else host
    headers = {
        "Host": (named if port is None else b"%b:%d" % (named, port)).decode(),
        "User-Agent": USER_AGENT,
        "Accept": "application/json, application/problem+json, application/octet-stream",
        "Accept-Encoding": "identity",
    }
    return Target(
        httpcore2.Origin(parts.scheme.encode(), host, port or HTTP_PORTS[parts.scheme]),
        quote(parts.path, safe="/%"),
        tuple((name.encode(), value.encode()) for name, value in headers.items()),
        Bearer(address.token, address.token_again),
    )


def _settings(address: Address) -> dict[str, Any]:
    return {
        "ssl_context": trust(address.ca_file),
        "proxy": _proxy(way_to(address.url, address.proxy).proxy),
        "keepalive_expiry": KEEPALIVE_SECONDS,
    }


def _proxy(proxy: Proxy | None) -> httpcore2.Proxy | None:
    import httpcore2  # noqa: PLC0415

    if proxy is None:
        return None
    if proxy.scheme not in HTTP_PORTS:
        raise ConfigError("broker.proxy_kind", proxy=str(proxy))
    login = None
    if proxy.login is not None:
        login = proxy.login.user.encode(), proxy.login.password.reveal().encode()
    url = httpcore2.URL(
        scheme=proxy.scheme.encode(), host=proxy.host.encode("idna"), port=proxy.port, target=b"/"
    )
    return httpcore2.Proxy(url, auth=login)


def base_url(url: str) -> str:
    """Return ``url`` with one slash at its end; plain HTTP is for this very machine only."""
    if _ADDRESS.fullmatch(url) is None:
        raise ConfigError("broker.url", url=url[:200])
    return url.rstrip("/") + "/"


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """Return what decides whom to believe: the authorities of ``ca_file``, or the system's."""
    import ssl  # noqa: PLC0415

    import httpcore2  # noqa: PLC0415

    from sekisho.adapters.tls_socket import WideSocket  # noqa: PLC0415

    if ca_file is None:
        context = httpcore2.default_ssl_context()
    else:
        try:
            context = ssl.create_default_context(cafile=os.fspath(ca_file))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError("tls.ca_file", file=str(ca_file)) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = WideSocket
    return context
