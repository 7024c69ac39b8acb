"""Click's own words exist in Japanese: exactly those that the installed click can say to a user."""

from __future__ import annotations

import ast
import importlib
import inspect
import string
from collections.abc import Iterator
from pathlib import Path

import click

from sekisho.cli.click_words import MODULES, click_words

#: What only a programmer hears, or nobody: said when a command is declared wrongly, or never used.
NOT_FOR_USERS = {
    "%(prog)s, version %(version)s",
    "Arguments take exactly one parameter declaration, got {length}: {decls}.",
    "Boolean option {decl!r} cannot use the same flag for true/false.",
    "Could not determine name for option with declarations {decls!r}",
    "DeprecationWarning: The command {name!r} is deprecated.{extra_message}",
    "DeprecationWarning: The {param_type} {name!r} is deprecated.{extra_message}",
    "Invalid start character for option ({option})",
    "Name '{name}' defined twice",
    "No options defined but a name was passed ({name}). Did you mean to declare an argument"
    " instead? Did you mean to pass '--{name}'?",
    "Unknown color {colour!r}",
}
#: Given to the look-up as values.
BY_VALUE = {"required"}


def said() -> Iterator[str]:
    """Yield every text that click looks up; of one and many, the text for many."""
    for name in MODULES:
        tree = ast.parse(inspect.getsource(importlib.import_module(f"click.{name}")))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                which = {"_": 0, "ngettext": 1}.get(node.func.id)
                if which is not None and isinstance(text := node.args[which], ast.Constant):
                    yield str(text.value)


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_what_click_says_to_users_is_there_in_japanese() -> None:
    assert set(said()) - NOT_FOR_USERS | BY_VALUE == click_words("ja").keys()
    assert set(said()) >= NOT_FOR_USERS


def test_no_translation_asks_for_what_click_does_not_give() -> None:
    for english, japanese in click_words("ja").items():
        assert fields(japanese) <= fields(english)


def test_every_module_of_click_that_speaks_is_among_them() -> None:
    """Kills: a new module whose words stay English."""
    folder = Path(click.__file__).parent
    speak = {p.stem for p in folder.glob("*.py") if "from gettext import" in p.read_text("utf-8")}
    silent = {"_winconsole", "_termui_impl", "shell_completion", "utils"}  # not reached by our use
    assert speak - silent == set(MODULES)
