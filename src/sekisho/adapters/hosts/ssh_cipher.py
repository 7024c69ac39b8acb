"""Which cipher a connection of ours asks for first.

OpenSSH puts ChaCha20 first, which costs twice the processor of AES-GCM where that is in hardware.
Both are in its own list, and whoever has chosen ciphers, user or system, has chosen for us too.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

_FAST: Final = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
_LINE: Final = re.compile(r"^ciphers (\S+)$", re.MULTILINE)
_AES: Final = re.compile(r"^(?:flags|Features)\s*:.*\baes\b", re.MULTILINE)
_ASK_S: Final = 10.0


def cipher_options(configured: Sequence[str], host: str) -> list[str]:
    """Return the words for ssh: none when ciphers are configured, or AES is not in hardware."""
    if not _aes_in_hardware():
        return []
    order = preferred(_asked((*configured, "--", host)), _default())
    return [] if order is None else ["-o", f"Ciphers={order}"]


def preferred(effective: str | None, default: str | None) -> str | None:
    """Return the list with AES-GCM first, if ``effective`` is what OpenSSH does by itself."""
    if effective is None or effective != default:
        return None
    there = effective.split(",")
    fast = [name for name in _FAST if name in there]
    return ",".join([*fast, *(name for name in there if name not in fast)]) if fast else None


@cache
def _default() -> str | None:
    return _asked(("-F", "none", "--", "localhost"))


def _asked(words: Sequence[str]) -> str | None:
    """Return the ciphers that ssh would offer; None when it does not say."""
    try:
        argv = ["ssh", "-G", *words]
        said = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_ASK_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _LINE.search(said.stdout.decode("utf-8", "replace"))
    return found[1] if found and said.returncode == 0 else None


@cache
def _aes_in_hardware() -> bool:
    try:
        return _AES.search(Path("/proc/cpuinfo").read_text("utf-8", "replace")) is not None
    except OSError:
        return False
