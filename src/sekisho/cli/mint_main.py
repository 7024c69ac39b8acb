"""The entries of MInt's old command lines. A token among the arguments is hidden first of all."""

from __future__ import annotations

import sys
from typing import Final, NoReturn

from sekisho.adapters.process_title import hidden

#: Where both old programs have their token, and what stands there when it is none.
_PLACE: Final = 3
_NONE: Final = ("login", "file:")


def remote() -> NoReturn:
    """`mi-system-remote`."""
    given, gone = _taken()
    from sekisho.cli.mint import ended  # noqa: PLC0415 (the token is hidden by now)
    from sekisho.cli.mint_remote import remote as work  # noqa: PLC0415

    ended(work, given, hidden=gone)


def workflow() -> NoReturn:
    """`mi-system-wf`."""
    given, gone = _taken()
    from sekisho.cli.mint import ended  # noqa: PLC0415 (as above)
    from sekisho.cli.mint_wf import workflow as work  # noqa: PLC0415

    ended(work, given, hidden=gone)


def push() -> NoReturn:
    """`execute_remote_command`."""
    from sekisho.cli.mint import ended  # noqa: PLC0415 (as above)
    from sekisho.cli.mint_push import push as work  # noqa: PLC0415

    ended(work, sys.argv[1:], hidden=True)


def _taken() -> tuple[list[str], bool]:
    """Return the arguments, and whether none of them shows a token any more."""
    given = sys.argv[1:]
    token = sys.argv[_PLACE] if len(sys.argv) > _PLACE else _NONE[0]
    return given, token.startswith(_NONE) or hidden(token)
