"""A site's own credentials: its instance's name, and the token that it made for itself.

The token is durable before the broker hears of its hash, under the name of the invitation: whatever
is lost on the way, the same invitation can be used again, with the same token.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path

from sekisho.adapters.durable import sync_directory, write_file
from sekisho.adapters.token_file import read_token
from sekisho.config.site import SiteFiles
from sekisho.domain.access import Role
from sekisho.domain.ids import ENTROPY_BYTES, make_id
from sekisho.domain.token import ENTROPY_BYTES as TOKEN_BYTES
from sekisho.domain.token import Secret, hash_token, make_token


class DirectoryCredentials:
    """Credentials in the site's directory. Every file is its owner's alone."""

    def __init__(
        self, files: SiteFiles, *, entropy: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self._files = files
        self._entropy = entropy

    def instance(self) -> str:
        """Return this agent's name, made at the first call and kept for ever."""
        file = self._files.instance
        if not file.exists():
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            now_ms = time.time_ns() // 1_000_000
            name = make_id("ins", at_ms=now_ms, entropy=self._entropy(ENTROPY_BYTES))
            write_file(file, f"{name}\n".encode())
        return file.read_text("ascii").strip()

    def begin(self, invitation: Secret) -> Secret:
        """Return the token that this ``invitation`` is used for; the same one at every call."""
        file = self._pending(invitation)
        if not file.exists():
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            token = make_token(Role.SITE, self._entropy(TOKEN_BYTES))
            write_file(file, f"{token.reveal()}\n".encode())
        return read_token(file)

    def finish(self, invitation: Secret) -> None:
        """Make the token of ``invitation`` the site's own: the broker knows it."""
        file = self._pending(invitation)
        write_file(self._files.token, file.read_bytes())
        file.unlink(missing_ok=True)
        sync_directory(file.parent)

    def give_up(self, invitation: Secret) -> None:
        """Forget the token of an ``invitation`` that the broker refused: it is nobody's."""
        file = self._pending(invitation)
        file.unlink(missing_ok=True)
        sync_directory(file.parent)

    def _pending(self, invitation: Secret) -> Path:
        return self._files.state / f"joining-{hash_token(invitation.reveal())[:16]}"
