"""What a command may be given at its start: the names of its variables, and its limits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sekisho.domain.errors import UsageError

NAME_PATTERN: Final = r"[A-Za-z_][A-Za-z0-9_]{0,63}"
#: Variables that a shell sets, interprets or exports by itself; a job cannot be given them.
SHELL_NAMES: Final = frozenset(
    {"_", "CDPATH", "COMP_WORDBREAKS", "DIRSTACK", "ENV", "EUID", "FUNCNAME", "GLOBIGNORE"}
    | {"GROUPS", "HISTCMD", "IFS", "LINENO", "MAILPATH", "OLDPWD", "OPTARG", "OPTERR", "OPTIND"}
    | {"PIPESTATUS", "POSIXLY_CORRECT", "PPID", "PS1", "PS2", "PS3", "PS4", "PWD", "RANDOM"}
    | {"SECONDS", "SHELLOPTS", "SHLVL", "SRANDOM", "TMOUT", "UID"}
)
RESERVED_PREFIXES: Final = ("BASH", "EPOCH", "sekisho_", "SEKISHO_ELEMENT")


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchLimits:
    """What one command may use; None: what the site's user may. Time is the runner's business.

    ``max_file_bytes`` bounds every single file that the command writes, its logs among them; a
    command that goes beyond it ends by SIGXFSZ. ``max_processes`` counts all processes of the
    site's user, and binds nobody who runs as root.
    """

    max_file_bytes: int | None = None
    max_open_files: int | None = None
    max_processes: int | None = None

    def __post_init__(self) -> None:
        least = ((self.max_file_bytes, 4096), (self.max_open_files, 16), (self.max_processes, 1))
        if any(limit is not None and limit < floor for limit, floor in least):
            raise UsageError("launch.limits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """What a command may reach besides its work directory and the system's own programs.

    ``read`` and ``write`` are absolute paths, each with all that is below it; what may be written
    may be read. ``connect`` are TCP ports, of any host; with ``network`` there is no restriction.
    ``shared_memory`` is System V's, with its semaphores and queues: all of the account's.
    """

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    network: bool = False
    connect: tuple[int, ...] = ()
    shared_memory: bool = False

    def __post_init__(self) -> None:
        for path in (*self.read, *self.write):
            if not path.startswith("/") or "/../" in f"{path}/" or "\0" in path:
                raise UsageError("sandbox.path", path=path[:200])
            plain = [part for part in path.split("/") if part not in ("", ".")]
            if plain in ([], ["proc"]):  # shows arguments and variables of every process
                raise UsageError("sandbox.too_wide", path=path)
        if any(not 0 < port < 65_536 for port in self.connect):
            raise UsageError("sandbox.port")


def check_word(text: str) -> None:
    """Raise UsageError(`launch.nul`) for an argument or a value that no program can be given."""
    if "\0" in text:
        raise UsageError("launch.nul")


def check_variable(name: str) -> None:
    """Raise UsageError(`launch.environment`) for a name that a job's environment cannot have."""
    reserved = name in SHELL_NAMES or name.startswith(RESERVED_PREFIXES)
    if reserved or re.fullmatch(NAME_PATTERN, name) is None:
        raise UsageError("launch.environment", name=name[:80])
