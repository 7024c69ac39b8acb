"""Click's own words (`Usage:`, `Missing option`, …) in the user's language.

Click 8 looks its words up with gettext, in whatever catalogue the process has for the domain
`messages`, by the process's environment. We have one catalogue and `--lang`, so the look-up itself
is replaced, in the modules of click that speak.
"""

from __future__ import annotations

import importlib
import tomllib
from functools import cache
from pathlib import Path
from typing import Final

from sekisho import i18n

MODULES: Final = ("core", "decorators", "exceptions", "formatting", "parser", "termui", "types")


@cache
def click_words(lang: str) -> dict[str, str]:
    """Return click's texts in ``lang`` by their English; empty for English."""
    file = Path(i18n.__file__).with_name(f"click_{lang}.toml")
    return tomllib.loads(file.read_text("utf-8")) if file.exists() else {}


def speak(lang: str) -> None:
    """Make click speak ``lang`` from now on."""
    words = click_words(lang)

    def say(text: str) -> str:
        return words.get(text, text)

    def say_many(one: str, many: str, number: int) -> str:
        return words.get(many, one if number == 1 else many)

    for name in MODULES:
        module = vars(importlib.import_module(f"click.{name}"))
        for look_up, ours in (("_", say), ("ngettext", say_many)):
            if look_up in module:
                module[look_up] = ours
