"""The exit statuses of every `sekisho` command, in one table; the words are in the catalogue.

`sekisho run`, `wait` and `fetch` end as the command at the site did: with its exit code, or 128
plus the signal that ended it. For what did not come from the command there are these:
"""

from __future__ import annotations

from typing import Final

from sekisho.i18n.catalogue import text

DONE: Final = 0
#: Something is still open, or was left running: try again later.
LATER: Final = 75
GOES_ON: Final = 81
USAGE: Final = 64
SIGNAL_BASE: Final = 128

STATUSES: Final = (0, 1, 64, 65, 66, 69, 70, 71, 73, 74, 75, 76, 77, 78, 80, 81, 82)


def table(lang: str) -> list[tuple[str, str]]:
    """Return every status with its meaning."""
    keys = [*map(str, STATUSES), "128+n"]
    return [(key, text("exit", key, lang)) for key in keys]
