"""One thing that is wrong with a file of settings, told by a code as every error is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class SettingFault:
    """``key`` of ``file`` is wrong as ``code`` says; ``line`` 0 when it has no place there."""

    file: str
    line: int
    key: str
    code: str
    params: Mapping[str, object] = field(default_factory=dict, compare=False)

    @property
    def place(self) -> str:
        """Return what leads a reader there: `FILE:LINE`, or `FILE` alone."""
        return f"{self.file}:{self.line}" if self.line else self.file

    def __str__(self) -> str:
        params = ", ".join(f"{name}={value}" for name, value in sorted(self.params.items()))
        return f"{self.place}: {self.key}: {self.code}" + (f" ({params})" if params else "")
