"""The parts of a client, put together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sekisho.adapters.http_client import Address, http_client
from sekisho.adapters.http_line import HttpLine, Patience
from sekisho.adapters.lane_https import HttpsLane
from sekisho.adapters.token_file import read_token
from sekisho.client.client import Client
from sekisho.config.client import load_client
from sekisho.domain.errors import SekishoError


def _unheard(_error: SekishoError, _seconds: float) -> None:
    """Tell nobody."""


def client(
    config: Path | None = None,
    *,
    on_pause: Callable[[SekishoError, float], None] = _unheard,
) -> Client:
    """Return a client for the settings in ``config``, or in the default place."""
    files = load_client(config)
    broker = files.settings.broker
    address = Address(
        url=broker.url, token=read_token(files.token), ca_file=files.ca, proxy=broker.proxy
    )
    patience = Patience(first_s=broker.first_contact_s, on_pause=on_pause)
    return Client(HttpsLane(HttpLine(http_client(address), patience)))
