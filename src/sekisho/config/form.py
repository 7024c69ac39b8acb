"""The forms that texts in settings may have, each with a name.

The name's words are in the catalogue: who wrote a setting is told in words, not by an expression.
"""

from __future__ import annotations

from typing import Any, Final, get_args

import msgspec
from msgspec import Meta

_NAME: Final = "form"


def formed(name: str, pattern: str) -> Meta:
    """Return what makes a type's whole text match ``pattern``, under ``name``."""
    return Meta(pattern=rf"^(?:{pattern})\Z", extra={_NAME: name})


def form_of(shown: str, kind: Any) -> str:
    """Return the name of the pattern that is ``shown`` as Python writes it, in the type ``kind``.

    The pattern itself when it has none.
    """
    names = (
        meta.extra[_NAME] for meta in _metas(kind) if meta.extra and shown == repr(meta.pattern)
    )
    return next(names, shown)


def _metas(kind: Any) -> list[Meta]:
    """Return the constraints of ``kind`` and of all its parts."""
    if isinstance(kind, Meta):
        return [kind]
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return [meta for field in msgspec.structs.fields(kind) for meta in _metas(field.type)]
    return [meta for part in get_args(kind) for meta in _metas(part)]
