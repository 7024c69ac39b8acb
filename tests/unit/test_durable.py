"""What a durable write says when it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from sekisho.adapters.durable import write_file


def test_a_file_that_cannot_be_made_is_told_by_its_own_name(tmp_path: Path) -> None:
    """Kills: the name of the temporary file, which nobody has typed."""
    with pytest.raises(FileNotFoundError) as refused:
        write_file(tmp_path / "nowhere" / "taro.token", b"x")
    assert refused.value.filename == str(tmp_path / "nowhere" / "taro.token")
