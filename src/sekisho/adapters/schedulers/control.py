"""The control directories of batch jobs, on whatever host they are: a few short constant scripts.

Nothing but a POSIX shell is needed there. The job runs as the same user and may put anything into
its control directory: what is read is one line each, and counts only with the job's token.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from sekisho.adapters.hosts.process_tree import WRAPPER
from sekisho.adapters.hosts.quote import shell_words
from sekisho.adapters.schedulers.dialect import LOG, why_in
from sekisho.adapters.schedulers.traces import ArrayTraces, Latch, Traces, element_token
from sekisho.domain.errors import SekishoError, StorageFull, Unavailable
from sekisho.site.host import Answer, Host
from sekisho.site.scheduler import Gone, LaunchSpec, Observation, Pending, Running, Ticket

_HERE: Final = Path(__file__).parent
#: The script of every batch job: constant, so that a site can look at it once.
SCRIPT_TEXT: Final = (_HERE / "batch_head.sh").read_text("utf-8") + WRAPPER.read_text("utf-8")
_READ: Final = (_HERE / "records.sh").read_text("utf-8")
_READ_ARRAYS: Final = (_HERE / "elements.sh").read_text("utf-8")
#: Exit status 3: a wrapper was there already, and nothing must be submitted any more.
#: A cut line looks like the end of what is read, and whoever was cut off may come late: a file
#: gets its name when it is whole, and has no name in common with another's before.
_PLACE: Final = (
    'umask 077; cd "$1" || exit 1; for latch in latch [0-9]*/latch; do '
    'if [ -e "$latch" ] || [ -L "$latch" ]; then exit 3; fi; done; '
    '{ printf %s "$2" >"script.$$" && mv -f "script.$$" script && cat >"launch.$$"; } || '
    '{ rm -f "script.$$" "launch.$$"; exit 4; }; '
    '[ "$(wc -c <"launch.$$")" -eq "$3" ] || { rm -f "launch.$$"; exit 5; }; '
    'mv -f "launch.$$" launch'
)
#: The directories of an array's elements are made here alone, and stay after a power cut: where
#: there is none, no wrapper can take a latch.
_PLACE_ELEMENTS: Final = (
    ' && n=0 && names= && while [ "$n" -lt "$4" ]; do names="$names $n"; n=$((n + 1)); done && '
    "mkdir -p $names && { sync . 2>/dev/null || sync; }"
)
_TAKEN: Final = 3
_NOT_WRITTEN: Final = 4
_TORN: Final = 5
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
_REVOKE_ELEMENTS: Final = (
    'cd "$1" || exit 1; n=0; taken=0; while [ "$n" -lt "$2" ]; do latch=$n/latch; n=$((n + 1)); '
    '[ -L "$latch" ] || [ -d "$latch" ] || ln -s revoked "$latch" 2>/dev/null; '
    '[ -L "$latch" ] || taken=3; done; sync -f . 2>/dev/null || sync; exit "$taken"'
)
_N: Final = '"$sekisho_element"'
#: By these a command learns which element it is, of how many.
ELEMENT: Final = "SEKISHO_ELEMENT"
ELEMENTS: Final = "SEKISHO_ELEMENTS"
_LINE: Final = re.compile(r"(at|start|exit) (\d{1,6}) (.*)")
_LETTERS: Final = re.compile(r"[mfrt]+")
#: At most so many directories in one command line; an answer about arrays is longer.
_MANY: Final = 200
_MANY_ARRAYS: Final = 8


class Control:
    """The control directories on one host."""

    def __init__(self, host: Host, timeout_s: float) -> None:
        self._host = host
        self._timeout_s = timeout_s

    async def place(self, spec: LaunchSpec, element: str = "", first: int = 0) -> bool:
        """Write what a batch job of ``spec`` needs; False: one of its wrappers was there before.

        ``element`` is where a shell finds the number of an array's element, ``first`` its least.
        """
        count = spec.resources.elements
        script = _PLACE if count is None else _PLACE + _PLACE_ELEMENTS
        launch = launch_text(spec, element, first).encode()
        sizes = str(len(launch)), str(count or 0)
        answer = await self._shell(script, spec.control_dir, SCRIPT_TEXT, *sizes, stdin=launch)
        if answer.code == _NOT_WRITTEN:
            raise StorageFull("site.disk_full")
        if answer.code == _TORN:
            raise Unavailable("host.unreachable", why="cut")
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

    async def read_arrays(self, tickets: Collection[Ticket]) -> dict[str, ArrayTraces]:
        """Return what is in the elements' directories of each of ``tickets``, all of arrays."""
        counts = sorted({(ticket.control_dir, ticket.elements or 0) for ticket in tickets})
        found: dict[str, ArrayTraces] = {}
        for first in range(0, len(counts), _MANY_ARRAYS):
            part = counts[first : first + _MANY_ARRAYS]
            words = [str(word) for pair in part for word in pair]
            found |= _array_traces(part, await self._shell(_READ_ARRAYS, *words))
        return found

    async def look(self, tickets: Collection[Ticket]) -> dict[str, Traces | ArrayTraces]:
        """Return what is in the directories of ``tickets`` of both kinds."""
        arrays = [ticket for ticket in tickets if ticket.elements is not None]
        plain = sorted({ticket.control_dir for ticket in tickets if ticket.elements is None})
        return {**await self.read(plain), **await self.read_arrays(arrays)}

    async def log_of(self, directory: str) -> str:
        """Return the end of what the batch system wrote about the job there."""
        answer = await self._shell(f'tail -c 4096 "$1/{LOG}" 2>/dev/null', directory)
        return answer.stdout.decode("utf-8", "replace")

    async def revoke(self, directory: str, elements: int | None = None) -> bool:
        """Make sure that no wrapper will ever start there; False: one has taken the latch."""
        words = () if elements is None else (str(elements),)
        answer = await self._shell(_REVOKE_ELEMENTS if words else _REVOKE, directory, *words)
        if answer.code not in (0, _TAKEN):
            raise Unavailable("host.unreachable", why=f"revoke: {answer.code}")
        return answer.code == 0

    async def given_up(
        self, ticket: Ticket, traces: Traces | ArrayTraces, why: str | None
    ) -> Observation:
        """Say what became of a job that is not there, and for which no end can be believed.

        Never that it did not start, if it could. ``why``: what the batch system told of it.
        """
        if traces.startable:
            await self.revoke(ticket.control_dir, ticket.elements)
            after = (await self.look([ticket]))[ticket.control_dir]
            if after.taken != traces.taken:  # it has just begun after all
                return Running() if traces.started else Pending()
            traces = after
        fate = traces.fate(ticket.token, why)
        if isinstance(fate, Gone) and why is None:
            return Gone(why_in(await self.log_of(ticket.control_dir)), fate.part)
        return fate

    async def _shell(self, script: str, *words: str, stdin: bytes = b"") -> Answer:
        return await self._host.run(
            ("/bin/sh", "-c", script, "sekisho", *words), stdin=stdin, timeout_s=self._timeout_s
        )


def launch_text(spec: LaunchSpec, element: str = "", first: int = 0) -> str:
    """Return the shell text that sets the limits and becomes the wrapper, in a made environment.

    Every word of the command and its environment is quoted whole. See `Control.place`.
    """
    limits = spec.limits
    lines = ["umask 077", "ulimit -c 0 2>/dev/null"]
    if limits.max_file_bytes is not None:
        lines.append(f"ulimit -f {limits.max_file_bytes // 512} || exit 74")
    if limits.max_open_files is not None:
        lines.append(f"ulimit -n {limits.max_open_files} || exit 74")
    made = ("/usr/bin/env", "-i", *(f"{name}={value}" for name, value in spec.env.items()))
    script = ("/bin/sh", f"{spec.control_dir}/script")
    rest = (str(limits.max_processes or "-"), "--", *spec.argv)
    words = [shell_words((*made, *script, spec.control_dir, spec.token, *rest))]
    if (count := spec.resources.elements) is not None:
        lines.append(_numbered(element if count > 1 else str(first), first, count))
        words = [
            *(shell_words(made), f"{ELEMENT}={_N}", shell_words((f"{ELEMENTS}={count}",))),
            *(shell_words(script), shell_words((f"{spec.control_dir}/",)) + _N),
            *(shell_words((element_token(spec.token, ""),)) + _N, shell_words(rest)),
        ]
    lines.append(f"cd {shell_words((spec.work_dir,))} || exit 74")
    lines.append(_ADOPT.format(code=shell_words((_SUBREAPER,)), wrapped=" ".join(words)))
    return "\n".join(lines) + "\n"


def _numbered(element: str, first: int, count: int) -> str:
    """Return the lines that find out which of ``count`` elements this is, or end."""
    return (
        f"sekisho_element={element}\n"
        "case $sekisho_element in '' | *[!0-9]* | 0?* | ??????*) exit 74 ;; esac\n"
        f"sekisho_element=$((sekisho_element - {first}))\n"
        f'[ "$sekisho_element" -ge 0 ] && [ "$sekisho_element" -lt {count} ] || exit 74'
    )


def _traces(directories: Sequence[str], answer: Answer) -> dict[str, Traces]:
    """Take the answer of records.sh apart; anything else than its lines is no answer."""
    said = [dict(lines) for lines in _lines(len(directories), answer)]
    return {
        directory: Traces(_latch(each["at"]), each.get("start", ""), each.get("exit", ""))
        for directory, each in zip(directories, said, strict=True)
    }


def _array_traces(arrays: Sequence[tuple[str, int]], answer: Answer) -> Mapping[str, ArrayTraces]:
    """Take the answer of elements.sh apart, as strictly."""
    found: dict[str, ArrayTraces] = {}
    for (directory, count), lines in zip(arrays, _lines(len(arrays), answer), strict=True):
        letters = dict(lines)["at"]
        if len(letters) != count or _LETTERS.fullmatch(letters) is None:
            raise Unavailable("host.unreachable", why="records")
        exits = sorted(text for kind, text in lines if kind == "exit")
        found[directory] = ArrayTraces(letters, tuple(exits))
    return found


def _lines(count: int, answer: Answer) -> list[list[tuple[str, str]]]:
    """Return what is said of each of ``count`` directories, or raise Unavailable."""
    said: list[list[tuple[str, str]]] = [[] for _ in range(count)]
    *lines, end, rest = ["", *answer.stdout.decode("utf-8", "replace").split("\n")]
    if (end, rest) != ("end", ""):
        raise Unavailable("host.unreachable", why="records")
    for line in lines[1:]:
        found = _LINE.fullmatch(line)
        if found is None or int(found[2]) >= count:
            raise Unavailable("host.unreachable", why="records")
        said[int(found[2])].append((found[1], found[3]))
    if answer.code != 0 or not all("at" in dict(each) for each in said):
        raise Unavailable("host.unreachable", why="records")
    return said


def _latch(word: str) -> Latch:
    match word:
        case "missing" | "fresh" | "revoked" | "taken":
            return word
        case _:
            raise Unavailable("host.unreachable", why="records")
