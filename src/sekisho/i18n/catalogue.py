"""The catalogue: from a code and its parameters to a sentence in the reader's language."""

from __future__ import annotations

import errno
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from sekisho.domain.setting import SettingFault

LANGUAGES: Final = ("en", "ja")
DEFAULT_LANGUAGE: Final = "en"
#: Tables of the catalogue that are not error codes.
TABLES: Final = ("help", "say", "state", "column", "exit", "mint", "type", "form", "why", "kind")
_VARIABLES: Final = ("LC_ALL", "LC_MESSAGES", "LANG")


@dataclass(frozen=True, slots=True)
class Sentence:
    """``what`` happened, and what the reader can do ``next`` (or nothing)."""

    what: str
    next: str


def language(environ: Mapping[str, str]) -> str:
    """Return the language that a user's environment asks for."""
    wanted = next((environ[name] for name in _VARIABLES if environ.get(name)), "")
    return next((tag for tag in LANGUAGES if wanted.startswith(tag)), DEFAULT_LANGUAGE)


@cache
def catalogue(lang: str) -> Mapping[str, Any]:
    """Return the whole catalogue of one language."""
    return tomllib.loads(Path(__file__).with_name(f"{lang}.toml").read_text("utf-8"))


def sentence(code: str, params: Mapping[str, object], lang: str) -> Sentence:
    """Return what ``code`` means. An unknown code, of a newer other side, is shown as it is."""
    entry = None if code in TABLES else catalogue(lang).get(code)
    words = _Words(params, lang)
    if entry is None:
        shown = ", ".join(f"{name}={words[name]}" for name in sorted(params))
        return Sentence(f"{code} ({shown})" if shown else code, "")
    what = entry["what"]
    if "elements" in params and "{elements}" not in what:  # any end may be that of some elements
        what += catalogue(lang)["say"]["elements"]
    return Sentence(what.format_map(words).rstrip(), entry["next"].format_map(words))


def text(table: str, key: str, lang: str, **params: object) -> str:
    """Return a text of the command line; ``key`` itself when the catalogue has none."""
    found = catalogue(lang)[table].get(key)
    return key if found is None else str(found).format_map(_Words(params, lang))


class _Words(dict[str, str]):
    """Parameters as words. One that was not given is an ellipsis: a sentence never fails."""

    def __init__(self, params: Mapping[str, object], lang: str) -> None:
        super().__init__({name: _shown(name, value, lang) for name, value in params.items()})

    def __missing__(self, name: str) -> str:
        return "…"


def _shown(name: str, value: object, lang: str) -> str:
    match value:
        case None:
            return ""
        case list() | tuple():
            return "".join(f"\n  {_shown(name, item, lang)}" for item in value)
        case SettingFault():
            what = sentence(value.code, value.params, lang).what
            return f"{value.place}: {value.key}: {what}"
        case str() if name.endswith("_type"):
            return " | ".join(text("type", part, lang) for part in value.split(" | "))
        case str() if name in ("why", "kind", "state", "form"):  # the system's, or a word of ours
            number = getattr(errno, value, None) if name == "why" and value.isupper() else None
            return text(name, value if number is None else os.strerror(number), lang)
        case _:
            return str(value)
