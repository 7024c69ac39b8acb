"""File systems that clone files, for tests that run where there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sekisho.adapters import reflink


def let_clone(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let files be cloned in ``folder``: where they cannot be, a copy stands for the clone.

    `tests/integration/test_cloning_disks.py` runs who calls this where they can be.
    """
    if not reflink.can_clone(folder):
        monkeypatch.setattr(reflink, "clone", _copied)


def let_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no file be cloned, wherever this runs."""
    monkeypatch.setattr(reflink, "clone", lambda _from, _to: False)


def _copied(from_fd: int, to_fd: int) -> bool:
    size = os.fstat(from_fd).st_size
    os.ftruncate(to_fd, size)
    start = 0
    while start < size:
        start += os.copy_file_range(from_fd, to_fd, size - start, start, start)
    return True
