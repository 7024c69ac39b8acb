"""Secrets by file: read from a file that is the reader's alone, never shown."""

from __future__ import annotations

import codecs
import os
import stat
from pathlib import Path
from typing import Final

from sekisho.config.ownership import read_by_others
from sekisho.domain.errors import ConfigError
from sekisho.domain.token import Secret, is_token

_MAX_BYTES: Final = 4096


def read_token(file: Path, *, foreign: bool = False) -> Secret:
    """Return the token in ``file``; raise ConfigError if it is missing, no token, or not private.

    A ``foreign`` one, of another system, may be any text.
    """
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ConfigError("token.file_missing", file=str(file)) from error
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise ConfigError("config.unreadable", file=str(file), why=why) from error
    try:
        seen = os.fstat(fd)
        if not stat.S_ISREG(seen.st_mode):
            raise ConfigError("token.file_missing", file=str(file))
        if read_by_others(file, seen.st_mode):
            raise ConfigError("token.file_open", file=str(file), mode=f"{seen.st_mode & 0o777:o}")
        said = os.read(fd, _MAX_BYTES).removeprefix(codecs.BOM_UTF8)
    finally:
        os.close(fd)
    text = said.decode("ascii", "replace").strip()
    if not text or not (foreign or is_token(text)):
        raise ConfigError("token.malformed", file=str(file))
    return Secret(text)
