"""Words of a line of shell, made safe once, here, for every shell of the sh family, and fish.

sshd hands one string to the user's login shell. In POSIX single quotes nothing is special but the
quote itself, so each word is quoted whole, whatever is in it; a NUL cannot travel and is refused.
In those of fish a backslash is special too, so it stands outside of them, as the quote does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from sekisho.domain.errors import TooLarge, UsageError

#: One argument of a program may have 128 KiB under Linux, and the whole line is one for the shell.
MAX_LINE_BYTES: Final = 100_000
_SPECIAL: Final = re.compile(r"['\\]")


def quoted(argv: Sequence[str]) -> str:
    """Return the command line that a shell takes apart into exactly ``argv``."""
    line = shell_words(argv)
    if "\0" in line:
        raise UsageError("ssh.argument", why="nul")
    if len(line.encode("utf-8", "surrogateescape")) > MAX_LINE_BYTES:
        raise TooLarge(limit=MAX_LINE_BYTES)
    return line


def shell_words(argv: Sequence[str]) -> str:
    """Return ``argv`` as words of a shell's text, of any length."""
    return " ".join("'" + _SPECIAL.sub(r"'\\\g<0>'", word) + "'" for word in argv)
