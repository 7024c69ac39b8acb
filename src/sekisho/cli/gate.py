"""`python -m sekisho.cli.gate --dir DIR --submitter USER`: what a gate key runs, and all it runs.

Written into `authorized_keys` by `sekisho site gate-key add`. It reads nothing of its environment
and nothing of what the caller typed; the streams carry the protocol, everything else that it has
to say goes to the site's own log.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final, NoReturn

PROTOCOL_STATUS: Final = 76
_USAGE: Final = 64


def main(argv: list[str]) -> int:
    """Serve one caller until it is gone; return the exit status."""
    match argv:
        case ["--dir", folder, "--submitter", user]:
            pass
        case _:
            return _USAGE
    os.umask(0o077)
    os.environ.clear()
    os.chdir("/")
    return _serve(Path(folder), user)


def _serve(folder: Path, user: str) -> int:
    from sekisho.adapters.logging_setup import set_up_logging  # noqa: PLC0415 (after the clearing)
    from sekisho.compose.gate import gate, ignore_terminal_signals  # noqa: PLC0415
    from sekisho.config.site import load_site  # noqa: PLC0415
    from sekisho.domain.errors import SekishoError, SyncFailed  # noqa: PLC0415
    from sekisho.domain.ids import check_user  # noqa: PLC0415

    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    try:
        files = load_site(folder)
        (files.state / "push").mkdir(mode=0o700, parents=True, exist_ok=True)
        _say_to(files.state / "push" / "gate.log")
        set_up_logging("info", "json")
        ignore_terminal_signals()
        the_gate, conversation = gate(files, check_user(user), incoming, outgoing)
        the_gate.visit()
        conversation.serve()
    except SyncFailed as error:
        return error.exit_status
    except SekishoError as error:
        _note(error)
        return PROTOCOL_STATUS
    except BrokenPipeError:
        return 0
    return 0


def _say_to(file: Path) -> None:
    """Send what Python itself or a library says to the site's log, never to the caller."""
    said = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.close(said)
    os.close(null)


def _note(error: Exception) -> None:
    import structlog  # noqa: PLC0415

    structlog.get_logger().warning("gate_ended", code=getattr(error, "code", "internal"))


def run() -> NoReturn:
    """Be the program. Nothing is flushed twice and no handler of anybody's runs at the end."""
    status = 70
    try:
        status = main(sys.argv[1:])
    finally:
        os._exit(status)


if __name__ == "__main__":
    run()
