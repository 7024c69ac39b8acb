"""What a bearer token looks like: a prefix for its role, 256 random bits, a short checksum.

The checksum lets a scanner, or our own egress, tell a real leaked token from a look-alike. A token
is kept by its hash only; whoever made it holds the only copy.
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64encode
from typing import Final

from sekisho.domain.access import PREFIXES, Role

ENTROPY_BYTES: Final = 32
_CHECK_LENGTH: Final = 6
_FORM: Final = re.compile(r"sk[a-z]_[A-Za-z0-9_-]{49}")


class Secret:
    """A text that never shows itself by accident."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text, for the one place that must have it."""
        return self._text

    def __repr__(self) -> str:
        return "…"


def make_token(role: Role, entropy: bytes) -> Secret:
    """Return a token for ``role`` made of 32 random bytes."""
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(len(entropy))
    body = PREFIXES[role] + urlsafe_b64encode(entropy).rstrip(b"=").decode()
    return Secret(body + _check(body))


def hash_token(text: str) -> str:
    """Return what a token is kept and looked up by. It has 256 random bits: no salt is needed."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def is_token(text: str) -> bool:
    """Say whether ``text`` was made as a token of some role."""
    if _FORM.fullmatch(text) is None or text[:4] not in PREFIXES.values():
        return False
    return _check(text[:-_CHECK_LENGTH]) == text[-_CHECK_LENGTH:]


def _check(body: str) -> str:
    digest = hashlib.sha256(body.encode()).digest()
    return urlsafe_b64encode(digest).decode()[:_CHECK_LENGTH]
