"""What one call of the command line knows: language, form of output, where the settings are."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from sekisho.cli import output
from sekisho.i18n.catalogue import language, text

if TYPE_CHECKING:
    from sekisho.cli.progress import Reporter
    from sekisho.client.client import Client


@dataclass
class Session:
    """Filled by the options as they are read; passed to every command as its context's object."""

    lang: str = field(default_factory=lambda: language(os.environ))
    debug: bool = False
    json: bool = False
    quiet: bool = False
    config: Path | None = None
    out: TextIO = field(default_factory=lambda: sys.stdout)
    err: TextIO = field(default_factory=lambda: sys.stderr)

    @property
    def silent(self) -> bool:
        return self.json or self.quiet

    def say(self, key: str, **params: object) -> str:
        """Return a line of the command line in the user's language."""
        return text("say", key, self.lang, **params)

    def client(self, show: Reporter | None = None) -> Client:
        """Return a client for the user's settings; ``show`` hears of pauses and files that come.

        Without it, only of a line that is down something is told.
        """
        from sekisho.cli.progress import LineReporter  # noqa: PLC0415 (it imports this module)
        from sekisho.compose.client import client_of  # noqa: PLC0415 (HTTP only when needed)
        from sekisho.config.client import load_client  # noqa: PLC0415

        files = load_client(self.config)
        if files.loose is not None:
            output.note(self, self.say("client_loose", file=str(files.loose)))
        if show is None:
            return client_of(files, on_pause=LineReporter(self).pausing)
        return client_of(files, on_pause=show.pausing, on_bring=show.fetching)
