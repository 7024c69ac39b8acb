"""What to run where: the submitter's words, checked as far as they can be on this side."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from sekisho.domain.errors import UsageError
from sekisho.domain.files import Pattern
from sekisho.domain.ids import check_command, check_site
from sekisho.domain.limits import MAX_QUEUE_TIME
from sekisho.domain.parameter import Value

_NO_TIME: Final = timedelta()
PathLike = str | os.PathLike[str]
#: Local files or folders: by the name that they shall have at the site, or under their own names.
Inputs = Mapping[str, PathLike] | Sequence[PathLike]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One request to run one command once. ``outputs`` are names or patterns of files."""

    site: str
    command: str
    parameters: Mapping[str, Value] = field(default_factory=dict)
    inputs: Inputs = ()
    outputs: Sequence[str] = ()
    queue_limit: timedelta | None = None  #: None: as the broker has it

    def __post_init__(self) -> None:
        check_site(self.site)
        check_command(self.command)
        for pattern in self.outputs:
            Pattern(pattern)
        if self.queue_limit is not None and not _NO_TIME < self.queue_limit <= MAX_QUEUE_TIME:
            raise UsageError("job.queue_limit", days=MAX_QUEUE_TIME.days)

    def entries(self) -> list[tuple[str, Path]]:
        """Return the inputs as (name at the site, local place)."""
        if isinstance(self.inputs, Mapping):
            return [(name, Path(place)) for name, place in self.inputs.items()]
        return [(Path(place).absolute().name, Path(place)) for place in self.inputs]
