"""The names of sites for a shell that completes a command line: quick, silent in any trouble."""

from __future__ import annotations

from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, Final

import click

from sekisho.domain.errors import SekishoError

if TYPE_CHECKING:
    from sekisho.config.client import ClientFiles

#: Nobody waits longer for a key that was pressed.
_BROKER_SECONDS: Final = 2.0


def site_names(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the sites of the settings, and those of the broker if it answers soon."""
    from sekisho.config.client import load_client  # noqa: PLC0415 (only while completing)

    found: list[str] = []
    with suppress(SekishoError, OSError):
        files = load_client(ctx.find_root().params.get("config"))
        found += files.settings.site
        asking = Thread(target=_ask, args=(files, found), daemon=True)
        asking.start()
        asking.join(_BROKER_SECONDS)
    return sorted({name for name in list(found) if name.startswith(incomplete)})


def _ask(files: ClientFiles, found: list[str]) -> None:
    from sekisho.compose.client import client_of  # noqa: PLC0415

    with suppress(SekishoError, OSError), client_of(files) as client:
        found += [site.id for site in client.sites()]
