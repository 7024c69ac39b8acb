"""Names and ids: what they look like, and how an id is made.

An id has a prefix and an underscore and sorts by time of making; a name (site, user, command) has
no underscore-prefix form, so that an id is never taken for a name. Both are safe in paths and argv.
"""

from __future__ import annotations

import re
from typing import Final

from sekisho.domain.errors import UsageError

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case
_ID_LENGTH: Final = 26
ENTROPY_BYTES: Final = 10

JOB_ID_PATTERN: Final = r"job_[0-9a-hjkmnp-tv-z]{26}"
INSTANCE_PATTERN: Final = r"ins_[0-9a-hjkmnp-tv-z]{26}"
SITE_PATTERN: Final = r"[a-z][a-z0-9-]{0,39}"
USER_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9.@-]{0,63}"
COMMAND_PATTERN: Final = r"[a-z][a-z0-9-]{0,63}"


def make_id(prefix: str, *, at_ms: int, entropy: bytes) -> str:
    """Return ``prefix_`` + 26 characters: 48 bits of milliseconds since 1970, 80 random bits."""
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(len(entropy))
    number = (at_ms & ((1 << 48) - 1)) << 80 | int.from_bytes(entropy)
    digits = [_ALPHABET[number >> (5 * n) & 31] for n in reversed(range(_ID_LENGTH))]
    return f"{prefix}_{''.join(digits)}"


def job_number(job_id: str) -> int:
    """Return the 128 bits that ``job_id`` writes; see `make_id`."""
    number = 0
    for digit in check_job_id(job_id).removeprefix("job_"):
        number = number << 5 | _ALPHABET.index(digit)
    return number & ((1 << 128) - 1)


def numbered_job(number: int) -> str:
    """Return the job id that writes the 128 bits of ``number``."""
    entropy = (number & ((1 << 80) - 1)).to_bytes(ENTROPY_BYTES)
    return make_id("job", at_ms=number >> 80, entropy=entropy)


def check_job_id(text: str) -> str:
    """Return ``text`` when it is a job id, else raise UsageError."""
    return _check("job_id", JOB_ID_PATTERN, text)


def check_site(text: str) -> str:
    """Return ``text`` when it is a site's name, else raise UsageError."""
    return _check("site", SITE_PATTERN, text)


def check_user(text: str) -> str:
    """Return ``text`` when it is a user's name, else raise UsageError."""
    return _check("user", USER_PATTERN, text)


def check_command(text: str) -> str:
    """Return ``text`` when it is a command's name, else raise UsageError."""
    return _check("command", COMMAND_PATTERN, text)


def _check(kind: str, pattern: str, text: str) -> str:
    if re.fullmatch(pattern, text) is None:
        raise UsageError("name.invalid", kind=kind, name=text[:80])
    return text
