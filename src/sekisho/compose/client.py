"""The parts of a client, put together."""

from __future__ import annotations

import os
from pathlib import Path

from sekisho.adapters.job_notes import JobNotes, state_directory
from sekisho.adapters.lane_routed import RoutedLane
from sekisho.adapters.patience import OnPause, Patience
from sekisho.adapters.remembered_directory import RememberedDirectory, cache_directory
from sekisho.client.client import Client, Line
from sekisho.config.client import BrokerSettings, ClientFiles, load_client
from sekisho.domain.errors import ConfigError, SekishoError
from sekisho.transfer.progress import Progress, unseen


def _unheard(_error: SekishoError | None, _seconds: float) -> None:
    """Tell nobody."""


def client(
    config: Path | None = None,
    *,
    on_pause: OnPause = _unheard,
    on_bring: Progress = unseen,
) -> Client:
    """Return a client for the settings in ``config``, or in the default place.

    ``on_bring`` sees the outputs of a bare site come back, before its jobs have ended.
    """
    return client_of(load_client(config), on_pause=on_pause, on_bring=on_bring)


def client_of(
    files: ClientFiles,
    *,
    on_pause: OnPause = _unheard,
    on_bring: Progress = unseen,
) -> Client:
    """Return a client for settings that are at hand."""
    broker = files.settings.broker
    known = [
        RememberedDirectory(cache_directory(os.environ) / kind) for kind in ("chunks", "results")
    ]
    way = None if broker is None else _https(files, broker, on_pause)
    if not files.settings.site:
        if way is None:
            raise ConfigError("client.no_way", file=str(files.file))
        return Client(way, *known)
    from sekisho.compose.push import push_lane  # noqa: PLC0415 (only who pushes needs ssh)

    notes = JobNotes(state_directory(os.environ))
    patience = Patience(on_pause=on_pause)
    lanes = {
        name: push_lane(name, files, notes, patience, on_bring) for name in files.settings.site
    }
    return Client(RoutedLane(lanes, way, notes), *known)


def _https(files: ClientFiles, broker: BrokerSettings, on_pause: OnPause) -> Line:
    from sekisho.adapters.http_client import Address, sender  # noqa: PLC0415 (HTTP is slow
    from sekisho.adapters.http_line import HttpLine  # noqa: PLC0415  to load, and not always used)
    from sekisho.adapters.lane_https import HttpsLane  # noqa: PLC0415
    from sekisho.adapters.token_file import read_token  # noqa: PLC0415

    if files.token is None:
        raise ConfigError("client.no_way", file=str(files.file))
    address = Address(
        url=broker.url, token=read_token(files.token), ca_file=files.ca, proxy=broker.proxy
    )
    patience = Patience(first_s=broker.first_contact_s, on_pause=on_pause)
    return HttpsLane(HttpLine(sender(address), patience, broker.max_mbit_s))
