"""`python -m sekisho.cli.gate --dir DIR --submitter USER`: what a gate key runs, and all it runs.

Written into `authorized_keys` by `sekisho site gate-key add`. It reads nothing of its environment
and nothing of what the caller typed; the streams carry the protocol, everything else that it has
to say goes to the site's own log.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, NoReturn

from sekisho.cli import core_dump

PROTOCOL_STATUS: Final = 76
PIPE_BYTES: Final = 1 << 20
_USAGE: Final = 64


def main(argv: list[str]) -> int:
    """Serve one caller until it is gone; return the exit status."""
    match argv:
        case ["--dir", folder, "--submitter", user]:
            pass
        case _:
            return _USAGE
    core_dump.forbid()
    os.umask(0o077)
    os.environ.clear()
    os.chdir("/")
    return _serve(Path(folder), user)


def _serve(folder: Path, user: str) -> int:
    incoming, outgoing = _streams()
    import structlog  # noqa: PLC0415 (after the clearing of the environment, as all below)

    from sekisho.adapters.logging_setup import set_up_logging  # noqa: PLC0415
    from sekisho.compose.gate import gate, ignore_terminal_signals  # noqa: PLC0415
    from sekisho.config.site import load_site  # noqa: PLC0415
    from sekisho.domain.errors import ConfigError, SekishoError  # noqa: PLC0415
    from sekisho.domain.ids import check_user  # noqa: PLC0415

    set_up_logging("info", "json")
    log = structlog.get_logger()
    try:
        files = load_site(folder)
        _say_to(files.state / "push")
        ignore_terminal_signals()
        the_gate, conversation = gate(files, check_user(user), incoming, outgoing)
        the_gate.visit()
        conversation.serve()
        if chores_due(files.state / "push" / "tidied"):
            the_gate.tidy()
    except ConfigError as error:
        log.warning("gate_closed", code=error.code, user=user, **error.params)
        _turn_away(incoming, outgoing)
        return error.exit_status
    except SekishoError as error:
        log.warning("gate_ended", code=error.code, user=user)
        return PROTOCOL_STATUS
    except BrokenPipeError:
        return 0
    except Exception:  # boundary: the caller hears nothing of it, the site's people read it
        log.exception("gate_crashed", user=user)
        return 70
    return 0


def _turn_away(incoming: IO[bytes], outgoing: IO[bytes]) -> None:
    """Say that the gate is closed: else the caller takes it for a cut line."""
    from sekisho.adapters.gate_stdio import turn_away  # noqa: PLC0415
    from sekisho.domain.errors import SekishoError, Unavailable  # noqa: PLC0415
    from sekisho.wire.stdio import Packets  # noqa: PLC0415

    with suppress(SekishoError, OSError):
        turn_away(Packets(incoming, outgoing), Unavailable("gate.closed"))


def chores_due(stamp: Path, every_s: float = 600.0) -> bool:
    """Say whether it is time to tidy; whoever hears yes is the one to do it."""
    try:
        if time.time() - stamp.stat().st_mtime < every_s:
            return False
    except FileNotFoundError:
        pass
    stamp.touch(0o600)
    return True


def _streams() -> tuple[IO[bytes], IO[bytes]]:
    """Return the connection's streams; nothing else in this process can write to them any more."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    for stream in (incoming, outgoing):
        with suppress(OSError, AttributeError):  # not here, or enough of them: then it is slower
            fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for place in (0, 1, 2):
        os.dup2(null, place)
    os.close(null)
    return incoming, outgoing


def _say_to(push: Path) -> None:
    """Send what we, Python itself or a library say to the site's log."""
    push.mkdir(mode=0o700, parents=True, exist_ok=True)
    said = os.open(push / "gate.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.close(said)


def run() -> NoReturn:
    """Be the program. Nothing is flushed twice and no handler of anybody's runs at the end."""
    status = 70
    try:
        status = main(sys.argv[1:])
    finally:
        os._exit(status)


if __name__ == "__main__":
    run()
