"""What OpenSSH and rsync say when they fail, as our errors. The one place that reads their words.

`ssh` ends with 255 for every fault of its own; which one, only its last lines on stderr tell, in
English as long as the locale is C. What cannot be told apart is `ssh.unreachable`: tried again.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from typing import TYPE_CHECKING, Final

from sekisho.domain.errors import (
    ConfigError,
    Refused,
    SekishoError,
    Unauthenticated,
    Unavailable,
    Unreachable,
)

if TYPE_CHECKING:
    from sekisho.adapters.hosts.ssh import SshAddress

SSH_FAULT: Final = 255
_MAX_SAID: Final = 300
#: In this order: a changed key is also a verification that failed.
_MEANINGS: Final[tuple[tuple[str, str], ...]] = (
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED|Offending .* key in", "changed"),
    (r"Host key verification failed|host key is known for", "host_key"),
    (r"Bad configuration option|Can't open user config file|terminating, \d+ bad conf", "config"),
    (r"Bad owner or permissions on|no argument after keyword|Unsupported option", "config"),
    (r"Permission denied|Too many authentication failures|No supported authentication", "auth"),
    (r"Session open refused by peer|session request failed", "busy"),
)
#: Nobody was there, or nobody who speaks ssh.
_AWAY: Final = re.compile(rb"connect to host|resolve hostname|kex_exchange|banner exchange")


def fault_of(address: SshAddress, said: bytes) -> SekishoError:
    """Return what ``ssh`` meant with ``said`` when it ended with 255."""
    host, by_hand = address.host, address.by_hand
    text = said.decode("utf-8", "replace")
    meaning = next((kind for words, kind in _MEANINGS if re.search(words, text)), "")
    match meaning:
        case "changed":
            return Refused("ssh.host_key_changed", host=host, command=_forgetting(host, text))
        case "host_key":
            return Refused("ssh.host_key", host=host, ssh=by_hand)
        case "config":
            return ConfigError("ssh.config", host=host, said=last_line(text))
        case "auth":
            return Unauthenticated("ssh.auth", host=host, ssh=by_hand)
        case "busy":
            return Unavailable("ssh.busy", host=host)
        case _:
            return unreachable(address, last_line(text))


def unreachable(address: SshAddress, said: str = "") -> Unreachable:
    """Return that nobody answers at ``address`` now."""
    return Unreachable("ssh.unreachable", host=address.host, ssh=address.by_hand, said=said)


def _forgetting(host: str, text: str) -> str:
    """Return the command that forgets a changed key; it is kept under address and port."""
    file = re.search(r"^Offending \S+ key in (.+):\d+\s*$", text, re.MULTILINE)
    name = re.search(r"^Host key for (\S+) has changed", text, re.MULTILINE)
    where = ["-f", last_line(file[1])] if file else []
    return shlex.join(["ssh-keygen", *where, "-R", last_line(name[1]) if name else host])


def reached(said: bytes) -> bool:
    """Say whether ``ssh`` came so far that a server may have had something asked."""
    return _AWAY.search(said) is None


def last_line(text: str) -> str:
    """Return the last line that says something, without what a terminal would obey."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    seen = "".join(c for c in (lines or [""])[-1] if unicodedata.category(c)[0] != "C")
    return seen[:_MAX_SAID]
