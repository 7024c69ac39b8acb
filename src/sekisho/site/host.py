"""A host of the site on which short commands are run: this machine, or one behind a gateway.

Rules: an argument vector, never a line of shell; every call is short and bounded in time and bytes;
whatever must outlive a call is started so by the command itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

MAX_ANSWER_BYTES: Final = 8 << 20
#: What every command finds in its environment besides HOME, LOGNAME and USER of the account.
STANDARD_ENVIRONMENT: Final[Mapping[str, str]] = {
    "LC_ALL": "C",
    "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command left behind. ``code`` is its exit status; 128 + n when signal n ended it."""

    code: int
    stdout: bytes
    stderr: bytes


class Host(Protocol):
    """Run commands there. Safe for many tasks at once."""

    async def run(
        self,
        argv: tuple[str, ...],
        *,
        stdin: bytes = b"",
        cwd: str = "/",
        env: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> Answer:
        """Run ``argv`` to its end and return its answer, whatever its exit code.

        A program that is not there answers with code 127; ``env`` is added to the standard
        environment, and nothing of the agent's own gets in. What the command started in the
        background may live on. Raise Unavailable("host.timeout") when it took longer, and was
        ended if it could be, Unavailable("host.unreachable") when the way there broke: in both
        cases it is unknown whether it did its work. Raise SekishoError("host.too_much") for an
        answer of more than MAX_ANSWER_BYTES.
        """
        ...
