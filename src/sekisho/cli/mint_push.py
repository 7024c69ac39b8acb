"""`execute_remote_command`: the old SSH scripts' command line, for a bare site.

What is run is one program with its arguments. No shell reads them, so a line that needs one (pipes,
variables, `;`) is refused: put it into a script at the site, and name that.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sekisho.cli.follow import Following, follow
from sekisho.cli.mint import FAILED, need
from sekisho.cli.progress import reporter
from sekisho.cli.session import Session
from sekisho.client.spec import JobSpec
from sekisho.compose.client import client_of
from sekisho.config.client import ClientFiles, ClientSettings, SshSite
from sekisho.domain.errors import UsageError

_SITE: Final = "remote"
_COMMAND: Final = "command"
_SHELL: Final = re.compile(r"[|;&<>$`*?(){}\n]")
#: Looks a program up as a login would, without reading its arguments as shell text.
_BY_PATH: Final = ("/bin/sh", "-c", 'exec "$0" "$@"')


def push(session: Session, given: list[str]) -> int:
    """Run one command at a host; return the exit status."""
    need(session, given, 2, "mint_push_help")
    words = dict(_pair(word) for word in given)
    if unknown := words.keys() - {"client_name", "client_cmd", "client_files", "ssh_config"}:
        raise UsageError("mint.word", word=min(unknown))
    if not {"client_name", "client_cmd"} <= words.keys():
        raise UsageError("usage.arguments", why="client_name:, client_cmd:")
    site = SshSite(
        mode="ssh",
        kind="bare",
        host=words["client_name"],
        ssh_config=words.get("ssh_config"),
        program={_COMMAND: list(_argv(words["client_cmd"]))},
    )
    files = ClientFiles(
        settings=ClientSettings(site={_SITE: site}), file=Path.cwd() / _SITE, token=None, ca=None
    )
    listed = [Path(name) for name in words.get("client_files", "").split(",") if name]
    spec = JobSpec(site=_SITE, command=_COMMAND, inputs={f.name: f for f in listed}, outputs=["**"])
    with reporter(session) as show, client_of(files, on_pause=show.pausing) as client:
        job = client.submit(spec, reading=show.reading, progress=show.sending, on_known=show.known)
        status = follow(session, show, job, Following(into=Path(), on_interrupt="cancel"))
    return 0 if status == 0 else FAILED


def _pair(word: str) -> tuple[str, str]:
    name, mark, value = word.partition(":")
    if not mark:
        raise UsageError("mint.word", word=word)
    return name, value


def _argv(command: str) -> Sequence[str]:
    if _SHELL.search(command):
        raise UsageError("mint.shell_text", text=command[:200])
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise UsageError("mint.shell_text", text=command[:200]) from error
    return argv if argv and argv[0].startswith("/") else (*_BY_PATH, *argv)
