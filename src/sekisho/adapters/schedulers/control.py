"""The control directories of batch jobs, on whatever host they are: a few short constant scripts.

Nothing but a POSIX shell is needed there. The job runs as the same user and may put anything into
its control directory: what is read is one line each, and counts only with the job's token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from sekisho.adapters.hosts.process_tree import WRAPPER
from sekisho.adapters.hosts.quote import shell_words
from sekisho.adapters.schedulers.dialect import LOG, why_in
from sekisho.domain.errors import SekishoError, Unavailable
from sekisho.site.host import Answer, Host
from sekisho.site.scheduler import Gone, LaunchSpec, NotStarted, Observation, Pending

_HERE: Final = Path(__file__).parent
#: The script of every batch job: constant, so that a site can look at it once.
SCRIPT_TEXT: Final = (_HERE / "batch_head.sh").read_text("utf-8") + WRAPPER.read_text("utf-8")
_READ: Final = (_HERE / "records.sh").read_text("utf-8")
#: Exit status 3: a wrapper was there already, and nothing must be submitted any more.
#: A cut line looks like the end of what is read, and whoever was cut off may come late: a file
#: gets its name when it is whole, and has no name in common with another's before.
_PLACE: Final = (
    'umask 077; cd "$1" || exit 1; if [ -e latch ] || [ -L latch ]; then exit 3; fi; '
    'printf %s "$2" >"script.$$" && mv -f "script.$$" script && '
    '{ cat >"launch.$$" && [ "$(wc -c <"launch.$$")" -eq "$3" ] && mv -f "launch.$$" launch || '
    '{ rm -f "launch.$$"; exit 1; }; }'
)
_TAKEN: Final = 3
#: What a command leaves behind becomes the wrapper's child, and is ended by it. Where there is no
#: Python, that is the batch system's business alone.
#: Python ignores some signals by itself; a shell, those of its background commands.
_SUBREAPER: Final = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0); "
    "[signal.signal(n, signal.SIG_DFL) for n in (2, 3, signal.SIGPIPE, signal.SIGXFSZ)]; "
    "os.execv(sys.argv[1], sys.argv[1:])"
)
_ADOPT: Final = """\
if python3 -I -S -c 'import ctypes; ctypes.CDLL(None).prctl' 2>/dev/null; then
    exec python3 -I -S -c {code} {wrapped}
fi
exec {wrapped}"""
#: A link cannot be made where a latch is, nor a latch where a link is.
_REVOKE: Final = (
    'ln -s revoked "$1/latch" 2>/dev/null; [ -L "$1/latch" ] || exit 3; '
    'sync "$1" 2>/dev/null || sync'
)
_LINE: Final = re.compile(r"(at|start|exit) (\d{1,6}) (.*)")
#: At most so many directories in one command line.
_MANY: Final = 200

Latch = Literal["missing", "fresh", "revoked", "taken"]


@dataclass(frozen=True, slots=True)
class Traces:
    """What wrappers left in one control directory; the records as they stand, not yet believed."""

    latch: Latch
    start: str = ""
    exit: str = ""


class Control:
    """The control directories on one host."""

    def __init__(self, host: Host, timeout_s: float) -> None:
        self._host = host
        self._timeout_s = timeout_s

    async def place(self, spec: LaunchSpec) -> bool:
        """Write what a batch job of ``spec`` needs; False: one of its wrappers was there before."""
        launch = launch_text(spec).encode()
        answer = await self._shell(
            _PLACE, spec.control_dir, SCRIPT_TEXT, str(len(launch)), stdin=launch
        )
        if answer.code not in (0, _TAKEN):
            raise SekishoError("launch.failed", step="control_dir", error=str(answer.code))
        return answer.code == 0

    async def read(self, directories: Sequence[str]) -> dict[str, Traces]:
        """Return what is in each of ``directories``."""
        found: dict[str, Traces] = {}
        for first in range(0, len(directories), _MANY):
            part = directories[first : first + _MANY]
            answer = await self._shell(_READ, *part)
            found |= _traces(part, answer)
        return found

    async def log_of(self, directory: str) -> str:
        """Return the end of what the batch system wrote about the job there."""
        answer = await self._shell(f'tail -c 4096 "$1/{LOG}" 2>/dev/null', directory)
        return answer.stdout.decode("utf-8", "replace")

    async def revoke(self, directory: str) -> bool:
        """Make sure that no wrapper will ever start there; False: one has taken the latch."""
        answer = await self._shell(_REVOKE, directory)
        if answer.code not in (0, _TAKEN):
            raise Unavailable("host.unreachable", why=f"revoke: {answer.code}")
        return answer.code == 0

    async def given_up(self, directory: str, traces: Traces, why: str | None) -> Observation:
        """Say what became of a job that is not there, and for which no end can be believed.

        Never that it did not start, if it could. ``why``: what the batch system told of it.
        """
        if traces.latch in ("taken", "missing"):
            return Gone(why or why_in(await self.log_of(directory)))
        if traces.latch == "fresh" and not await self.revoke(directory):
            return Pending()  # it has just begun after all
        return NotStarted(why)

    async def _shell(self, script: str, *words: str, stdin: bytes = b"") -> Answer:
        return await self._host.run(
            ("/bin/sh", "-c", script, "sekisho", *words), stdin=stdin, timeout_s=self._timeout_s
        )


def launch_text(spec: LaunchSpec) -> str:
    """Return the shell text that sets the limits and becomes the wrapper, in a made environment.

    Every word of the command and its environment is quoted whole.
    """
    limits = spec.limits
    lines = ["umask 077", "ulimit -c 0 2>/dev/null"]
    if limits.max_file_bytes is not None:
        lines.append(f"ulimit -f {limits.max_file_bytes // 512} || exit 74")
    if limits.max_open_files is not None:
        lines.append(f"ulimit -n {limits.max_open_files} || exit 74")
    wrapped = (
        *("/usr/bin/env", "-i", *(f"{name}={value}" for name, value in spec.env.items())),
        *("/bin/sh", f"{spec.control_dir}/script", spec.control_dir, spec.token),
        *(str(limits.max_processes or "-"), "--", *spec.argv),
    )
    lines.append(f"cd {shell_words((spec.work_dir,))} || exit 74")
    lines.append(_ADOPT.format(code=shell_words((_SUBREAPER,)), wrapped=shell_words(wrapped)))
    return "\n".join(lines) + "\n"


def _traces(directories: Sequence[str], answer: Answer) -> dict[str, Traces]:
    """Take the answer of records.sh apart; anything else than its lines is no answer."""
    said: list[dict[str, str]] = [{} for _ in directories]
    *lines, end, rest = ["", *answer.stdout.decode("utf-8", "replace").split("\n")]
    if (end, rest) != ("end", ""):
        raise Unavailable("host.unreachable", why="records")
    for line in lines[1:]:
        found = _LINE.fullmatch(line)
        if found is None or int(found[2]) >= len(said):
            raise Unavailable("host.unreachable", why="records")
        said[int(found[2])][found[1]] = found[3]
    if answer.code != 0 or not all("at" in each for each in said):
        raise Unavailable("host.unreachable", why="records")
    return {
        directory: Traces(_latch(each["at"]), each.get("start", ""), each.get("exit", ""))
        for directory, each in zip(directories, said, strict=True)
    }


def _latch(word: str) -> Latch:
    match word:
        case "missing" | "fresh" | "revoked" | "taken":
            return word
        case _:
            raise Unavailable("host.unreachable", why="records")
