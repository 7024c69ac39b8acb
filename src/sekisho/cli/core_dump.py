"""No picture of this process's memory on a disk: it holds tokens, and contents of files."""

from __future__ import annotations

import resource


def forbid() -> None:
    """Let neither this process nor what it starts leave a core file, however it ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
