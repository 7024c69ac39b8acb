"""Which broker is meant: the option that every command about a broker takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from sekisho.adapters.logging_setup import silence
from sekisho.broker.desk import Desk
from sekisho.compose import broker as compose
from sekisho.config.broker import load_broker

config_option = click.option(
    "-c",
    "--config",
    envvar="SEKISHO_BROKER_CONFIG",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
)


@contextmanager
def open_desk(config: Path) -> Iterator[Desk]:
    """Give the services over the broker's data, beside a broker that may be serving it."""
    silence()
    with compose.desk(load_broker(config)) as desk:
        yield desk
