"""What is wrong with the login at a bare host, asked when its answers are not those of our scripts.

Waiting mends neither a login that prints, nor a shell that reads a line in another way than sh.
"""

from __future__ import annotations

import secrets
from typing import Final

from sekisho.adapters.hosts.ssh import SshHost
from sekisho.adapters.hosts.ssh_fault import last_line
from sekisho.domain.errors import SekishoError, Unavailable

#: Each of these is read in another way by some shell that is not of the sh family.
_HARD: Final = 'it\'s\n!x \\\\ $0 "*" `a`'
#: The exit status of a command that a signal has ended is this or above.
_KILLED: Final = 128


def login_fault(host: SshHost) -> SekishoError | None:
    """Return what is wrong with the login, None when nothing is; raise as `SshHost.run` does."""
    word = secrets.token_hex(16)
    done = host.run(["echo", word])
    lines = done.stdout.decode("utf-8", "replace").split("\n")
    if done.code >= _KILLED:
        return None
    if word not in lines:
        return _no_shell(host, done.stdout + done.stderr)
    if others := [line for line in lines if line not in ("", word)] or lines[2:]:
        return Unavailable(
            "bare.noisy",
            host=host.address.host,
            ssh=host.address.by_hand,
            said=last_line(others[0]),
        )
    done = host.run(["printf", "%s", _HARD])
    if done.stdout == _HARD.encode() or done.code >= _KILLED:
        return None
    return _no_shell(host, done.stderr)


def _no_shell(host: SshHost, said: bytes) -> SekishoError:
    words = last_line(said.decode("utf-8", "replace"))
    return Unavailable(
        "bare.no_shell", host=host.address.host, ssh=host.address.by_hand, said=words
    )
