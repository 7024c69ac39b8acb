"""Names of files in settings: what they may be, and where the files are."""

from __future__ import annotations

import os.path
from pathlib import Path
from typing import Annotated, TypeAlias

from sekisho.config.form import formed

FileName: TypeAlias = Annotated[str, formed("file", r"[^\x00]*")]


def located(base: Path, name: str) -> Path:
    """Return the file ``name``, which begins at ``base`` unless it is absolute or begins with ~.

    The ``~`` of a user who does not exist stands for itself: there is no such file.
    """
    return base / os.path.expanduser(name)  # noqa: PTH111 (the other raises for such a user)
