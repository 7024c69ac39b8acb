"""What the old command lines have in common: their words, and how they come to a token.

A token as an argument is accepted here alone, since old scripts pass it so: other users of the
machine can read arguments. `cli.mint_main` overwrites it; a warning says how to do better.
"""

from __future__ import annotations

import getpass
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from sekisho.adapters.mint_line import DEFAULT_PORT
from sekisho.adapters.token_file import read_token
from sekisho.cli import core_dump, output
from sekisho.cli.interrupt import Interrupted, hear_children
from sekisho.cli.session import Session
from sekisho.domain.errors import SekishoError, UsageError
from sekisho.domain.ids import USER_PATTERN
from sekisho.domain.token import Secret

#: How every old program ends when something went wrong.
FAILED: Final = 1
_HELP: Final = ("-h", "--help")
_FILE: Final = "file:"
_PORT: Final = re.compile(r"(https?://(?:\[[^]]*\]|[^/:]+))(:\d+)?(/.*)?")
_Word = tuple[str, str, Callable[[str], object]]
#: By word: what may stand behind its colon, and which fact that is. How often to try again is ours.
_WORDS: Final[Mapping[str, _Word]] = {
    "debug": ("", "debug", lambda _: True),
    "port": (r"\d{1,5}", "port", int),
    "retry": (r"\d+,\d+(\.\d+)?", "", str),
    "no_auth": (r".+", "ca_file", Path),
    "calc_base": (r"/.*", "calc_base", Path),
    "user": (USER_PATTERN, "user", str),
}
_NO_WORD: Final[_Word] = (r"(?!)", "", str)


@dataclass(frozen=True, slots=True, kw_only=True)
class OldWords:
    """The words behind the positions of an old command line."""

    port: int = DEFAULT_PORT
    ca_file: Path | None = None
    calc_base: Path | None = None
    user: str | None = None  #: in whose name an old broker's jobs are taken
    debug: bool = False


def old_words(words: Sequence[str]) -> OldWords:
    """Return what ``words`` say; raise UsageError for one that is unknown, or not possible."""
    found: dict[str, Any] = {}
    for word in words:
        name, mark, value = word.partition(":")
        if word == "no_auth":
            raise UsageError("mint.no_auth")
        pattern, field, kind = _WORDS.get(name, _NO_WORD)
        if mark != ("" if name == "debug" else ":") or re.fullmatch(pattern, value) is None:
            raise UsageError("mint.word", word=word)
        if field:
            found[field] = kind(value)
    return OldWords(**found)


def old_url(base: str, port: int) -> str:
    """Return ``base`` with ``port``, unless it names one itself."""
    found = _PORT.fullmatch(base)
    if found is None:
        raise UsageError("broker.url", url=base[:200])
    return f"{found[1]}{found[2] or f':{port}'}{found[3] or ''}".rstrip("/")


def old_token(session: Session, word: str) -> Secret:
    """Return the token that ``word`` is, or that it leads to: `login`, or `file:/path`."""
    if word == "login":
        return Secret(getpass.getpass(session.say("mint_login"), sys.stderr).strip())
    if (file := token_file(word)) is not None:
        return read_token(file, foreign=True)
    output.note(session, session.say("mint_token"))
    return Secret(word)


def token_file(word: str) -> Path | None:
    """Return the file that ``word`` names as the place of a token; None when it names none."""
    return Path(word.removeprefix(_FILE)) if word.startswith(_FILE) else None


def first_lines(session: Session, site: str, url: str) -> None:
    """Print what old programs print first; never the token."""
    for name, value in (("site id", site), ("base url", url), (" token", "…")):
        output.result(session, f"{name} = {value}")


def ended(work: Callable[[Session, list[str]], int], given: list[str], *, hidden: bool) -> NoReturn:
    """Run an old command line to its end, and end this process as old programs do."""
    core_dump.forbid()
    hear_children()
    session = Session()
    if not hidden:
        output.note(session, session.say("mint_token_open"))
    try:
        status = work(session, given)
    except SekishoError as error:
        output.error(session, error)
        status = FAILED
    except (Interrupted, KeyboardInterrupt):
        status = FAILED
    sys.stdout.flush()
    sys.exit(status)


def need(session: Session, given: Sequence[str], least: int, usage: str) -> None:
    """Raise UsageError when fewer than ``least`` arguments are given; show help when asked to.

    ``usage`` names the text of the catalogue whose first line is the form of the command line.
    """
    lines = f"{Path(sys.argv[0]).name} {session.say(usage)}".splitlines()
    if given and given[0] in _HELP:
        for line in lines:
            output.result(session, line)
        sys.exit(0)
    if len(given) < least:
        output.note(session, lines[0])
        raise UsageError("usage.arguments", why=f"{len(given)} < {least}")


def environ_with(words: OldWords) -> dict[str, str]:
    """Return the environment, with the site's settings that ``words`` override."""
    environ = dict(os.environ)
    if words.calc_base is not None:
        environ["SEKISHO_SITE__WORK_BASE"] = str(words.calc_base)
    if words.ca_file is not None:
        environ["SEKISHO_BROKER__CA_FILE"] = str(words.ca_file.absolute())
    if words.debug:
        environ["SEKISHO_LOG__LEVEL"] = "debug"
    return environ
