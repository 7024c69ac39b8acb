"""Names for a shell that completes a command line: quick, silent in any trouble."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from threading import Thread
from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import CompletionItem

from sekisho.domain.errors import SekishoError

if TYPE_CHECKING:
    from sekisho.client.client import Client
    from sekisho.config.client import ClientFiles

#: Nobody waits longer for a key that was pressed.
_BROKER_SECONDS: Final = 2.0
#: So many of the newest jobs are offered.
_JOBS: Final = 50


def site_names(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the sites of the settings, and those of the broker if it answers soon."""
    with suppress(SekishoError, OSError):
        files = _settings(ctx)
        there = _asked(files, lambda client: (site.id for site in client.sites()))
        found = {*files.settings.site, *there}
        return sorted(name for name in found if name.startswith(incomplete))
    return []


def job_ids(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the user's newest jobs, if they are told soon."""
    with suppress(SekishoError, OSError):
        newest = _asked(_settings(ctx), lambda client: (job.id for job in client.jobs()))
        return [job for job in newest if job.startswith(incomplete)]
    return []


def paths(
    _ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Let the shell complete the name of a file or folder itself."""
    return [CompletionItem(incomplete, type="file")]


def _settings(ctx: click.Context) -> ClientFiles:
    from sekisho.config.client import load_client  # noqa: PLC0415 (only while completing)

    return load_client(ctx.find_root().params.get("config"))


def _asked(files: ClientFiles, question: Callable[[Client], Iterable[str]]) -> list[str]:
    """Return what is told soon in answer to ``question``; nothing in any trouble."""
    found: list[str] = []
    asking = Thread(target=_ask, args=(files, question, found), daemon=True)
    asking.start()
    asking.join(_BROKER_SECONDS)
    return list(found)


def _ask(files: ClientFiles, question: Callable[[Client], Iterable[str]], found: list[str]) -> None:
    from sekisho.compose.client import client_of  # noqa: PLC0415

    with suppress(SekishoError, OSError), client_of(files) as client:
        found += islice(question(client), _JOBS)
