"""Every `sekisho …` that a document or a message names is a command, with options that it has.

The blocks of commands are executed by `test_pages.py`; this is about those within sentences.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import pytest

from sekisho.cli.main import cli
from sekisho.cli.session import Session

ROOT: Final = Path(__file__).parents[2]
FILES: Final = sorted(
    [
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
        *(ROOT / "src/sekisho/i18n").glob("??.toml"),
    ]
)
#: In backquotes; what a text says in place of a word is left out by `named`.
NAMED: Final = re.compile(r"`sekisho ([^`]+)`")
NEXT: Final = re.compile(r"[|;#)]| > |&&")
ELLIPSES: Final = {"…", "{command}"}


def named(text: str) -> Iterator[list[str]]:
    """Yield the words after `sekisho` of each call in ``text``."""
    for call in NAMED.findall(text):
        words = shlex.split(NEXT.split(call.replace("\\", ""))[0])
        if not ELLIPSES & set(words):
            yield words


def options(command: click.Command) -> set[str]:
    return {"-h", "--help"}.union(*(param.opts for param in command.params))


def wrong(words: list[str]) -> str | None:
    """Return the first of ``words`` that is no command and no option; nothing if all are."""
    command: click.Command = cli
    context = click.Context(cli, obj=Session())
    for word in words:
        if word.startswith("-"):
            if word.partition("=")[0] not in options(command):
                return word
        elif isinstance(command, click.Group):
            found = command.get_command(context, word)
            if found is None:
                return word
            command = found
    return None


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_a_text_tells_to_type_can_be_typed(file: Path) -> None:
    calls = list(named(file.read_text("utf-8")))
    assert [(words, bad) for words in calls if (bad := wrong(words)) is not None] == []


def test_a_wrong_call_would_be_found() -> None:
    """The control; and that the texts have calls at all."""
    assert wrong(["broker", "sites"]) == "sites"
    assert wrong(["run", "tohoku", "hello", "--inputs", "x"]) == "--inputs"
    assert wrong(["site", "gate-key", "add", "k.pub", "--submitter", "taro"]) is None
    assert sum(len(list(named(file.read_text("utf-8")))) for file in FILES) > 200
