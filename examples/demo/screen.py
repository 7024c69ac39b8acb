"""What the demo prints, and the checks that it keeps count of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TextIO

from examples.demo.words import WORDS
from examples.demo.words_ssh import SSH_WORDS

_BOLD, _DIM, _GREEN, _RED, _CYAN, _PLAIN = (f"\x1b[{n}m" for n in (1, 2, 32, 31, 36, 0))
_MAX_LINES = 20
_MAX_LENGTH = 160


@dataclass(frozen=True, slots=True)
class Check:
    """Something that was looked at: its name, whether it is as it must be, what was seen."""

    name: str
    ok: bool
    seen: str


class Screen:
    """Prints the story in one language, and remembers every check."""

    def __init__(self, out: TextIO, lang: str) -> None:
        self._out = out
        self._language = ("en", "ja").index(lang)
        self._coloured = out.isatty()
        self._sections = 0
        self.checks: list[Check] = []

    @property
    def ok(self) -> bool:
        """Whether there were checks and every one of them held."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    def words(self, name: str, **values: object) -> str:
        return (WORDS | SSH_WORDS)[name][self._language].format(**values)

    def title(self, name: str, **values: object) -> None:
        self._print(self._style(self.words(name, **values), _BOLD))

    def section(self, name: str) -> None:
        self._sections += 1
        self._print("\n" + self._style(f"{self._sections}  {self.words(name)}", _BOLD))

    def say(self, name: str, **values: object) -> None:
        self._print(f"   {self.words(name, **values)}")

    def command(self, who: str, line: str) -> None:
        self._print(f"   {self._style(self.words(who), _CYAN)} $ {line}")

    def output(self, lines: Iterable[str]) -> None:
        """Show the first lines of what a command printed."""
        shown = [line.rstrip() for line in lines if line.strip()]
        for line in shown[:_MAX_LINES]:
            self._print(self._style(f"     │ {_cut(line)}", _DIM))
        if len(shown) > _MAX_LINES:
            self._print(self._style(f"     │ … (+{len(shown) - _MAX_LINES})", _DIM))

    def check(self, name: str, *, ok: bool, found: Iterable[object] = (), **seen: object) -> None:
        """Record and print a check; its words are those of ``name`` with ``seen`` put in.

        ``found`` is what should not be there; it is named when the check did not hold.
        """
        bad = "" if ok else "".join(f"\n     {item}" for item in found)
        sentence = self.words(name, **seen) + bad
        self.checks.append(Check(name, ok, sentence))
        self._print(f"   {self._style('✓', _GREEN) if ok else self._style('✗', _RED)} {sentence}")

    def failure(self, text: str) -> None:
        self._print(self._style("\n✗ ", _RED) + text)

    def _style(self, text: str, code: str) -> str:
        return f"{code}{text}{_PLAIN}" if self._coloured else text

    def _print(self, text: str) -> None:
        print(text, file=self._out, flush=True)


def _cut(line: str) -> str:
    return line if len(line) <= _MAX_LENGTH else f"{line[:_MAX_LENGTH]}…"
