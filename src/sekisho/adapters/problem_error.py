"""From a problem that the other side tells to the error that it means, whatever it came over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sekisho.domain.errors import (
    Conflict,
    IntegrityError,
    InvalidTransition,
    NotFound,
    QuotaExceeded,
    Refused,
    SekishoError,
    StaleEpoch,
    StorageFull,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UsageError,
)
from sekisho.wire.v1 import Problem

_BY_CODE: Final[Mapping[str, type[SekishoError]]] = {
    kind.code: kind for kind in (InvalidTransition, StaleEpoch, StorageFull)
}
_BY_STATUS: Final[Mapping[int, type[SekishoError]]] = {
    400: UsageError,
    401: Unauthenticated,
    403: Refused,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: IntegrityError,
    429: QuotaExceeded,
    507: StorageFull,
}


def problem_error(problem: Problem, status: int) -> SekishoError:
    """Return the error of the problem's code, or of its status; Unavailable for an unknown one."""
    kind = _BY_CODE.get(problem.code) or _BY_STATUS.get(status, Unavailable)
    return kind(problem.code, **{k: v for k, v in problem.params.items() if k.isidentifier()})
