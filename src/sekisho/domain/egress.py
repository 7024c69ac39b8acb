"""The egress policy: what may leave a site is what was requested *and* what a rule permits.

Rule 1: `Cleared` is made here and nowhere else, and it is the only thing a mailbox sends.
Rule 2: a decision looks at names and sizes only; exactly what it releases is then copied out of
        the job's reach, and the copy is sent. All else is withheld; why is for the site's log.
Rule 3: what leaves as a reason is a code, with words of the submitter, or the number or the path
        (as the manifest writes it) of the rule that was broken: nothing that was found or computed.
Rule 4: while a command runs nothing leaves, unless its manifest says `publish`; then the same
        decision is made over the files named there, and of its progress a whole percentage leaves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Generic, TypeVar

from sekisho.domain.errors import SekishoError, UsageError
from sekisho.domain.files import Pattern, RelPath
from sekisho.domain.limits import MAX_SNAPSHOT_BYTES, MAX_SNAPSHOT_FILES, MIN_PUBLISH_SECONDS

T = TypeVar("T")
#: How long the names of all that leaves are together, unless a command says otherwise.
NAME_BYTES: Final = 64 << 10
_SEAL: Final = object()

STDOUT_NAME: Final = "計算標準出力.txt"
STDERR_NAME: Final = "計算標準エラー出力.txt"


class Cleared(Generic[T]):
    """A value that passed the egress policy. Only this module can make one."""

    __slots__ = ("value",)

    def __init__(self, value: T, *, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("only the egress policy clears")
        self.value: T = value


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRule:
    """Files that may leave: names that match ``path``, with limits on each and on all together."""

    path: Pattern
    max_bytes: int  #: of one file
    max_files: int = 1
    required: bool = False  #: without it the job has failed, whatever its exit code


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRule:
    """Whether what the command prints may leave: the last ``max_bytes``, or nothing."""

    release: bool = False
    max_bytes: int = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishRule:
    """What may leave while the command runs: small files, and how far it says that it is.

    Looked at every ``every``; only what has changed is sent. ``progress`` is a file of the command
    that holds one number from 0 to 100.
    """

    every: timedelta
    files: tuple[OutputRule, ...] = ()
    progress: RelPath | None = None

    @property
    def max_bytes(self) -> int:
        """The most that one snapshot can hold of files."""
        return sum(rule.max_bytes * rule.max_files for rule in self.files)


def check_publish(rule: PublishRule) -> PublishRule:
    """Return ``rule`` if each snapshot that it allows is small enough to be one."""
    if rule.every.total_seconds() < MIN_PUBLISH_SECONDS:
        raise UsageError("manifest.publish", why="every")
    if not rule.files and rule.progress is None:
        raise UsageError("manifest.publish", why="empty")
    if sum(each.max_files for each in rule.files) > MAX_SNAPSHOT_FILES:
        raise UsageError("manifest.publish", why="files")
    if rule.max_bytes > MAX_SNAPSHOT_BYTES:
        raise UsageError("manifest.publish", why="bytes")
    return rule


#: The longest text that is read as a progress.
PROGRESS_BYTES: Final = 32
_PERCENTAGE: Final = re.compile(rb"\s{0,8}([0-9]{1,3})(\.[0-9]{0,9})?\s{0,8}")


def percentage(text: bytes) -> int | None:
    """Return the whole percentage that ``text`` tells, rounded down; None for anything else."""
    match = _PERCENTAGE.fullmatch(text)
    if match is None or float(match[1] + (match[2] or b"")) > 100:
        return None
    return int(match[1])


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file in the work directory, as seen by the collector."""

    path: RelPath
    size: int


@dataclass(frozen=True, slots=True)
class Withheld:
    """A file that does not leave, and why. For the site's log; never sent."""

    path: str
    why: str


#: Parameters of a refusal that may leave: the submitter's own words, and of the manifest the name,
#: the limit and the path of the parameter or rule that was broken.
_CLEARED_PARAMS: Final = frozenset(
    {"command", "parameter", "input", "output", "submitter", "why", "limit"}
)
#: All that a reason may name: also elements of an array, a step of the site and how it ended.
REASON_PARAMS: Final = _CLEARED_PARAMS | {"count", "elements", "step", "exit_code"}


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a job that ended well has failed all the same; by its form, no site data is in it."""

    code: str
    params: tuple[tuple[str, str | int], ...] = ()

    def __post_init__(self) -> None:
        if strange := {name for name, _ in self.params} - REASON_PARAMS:
            raise ValueError(f"{self.code} would tell {min(strange)}")


@dataclass(frozen=True, slots=True)
class Decision:
    """The policy's answer over everything that was found."""

    release: tuple[RelPath, ...] = ()
    withheld: tuple[Withheld, ...] = ()
    faults: tuple[Fault, ...] = field(default=())
    name_bytes: int = 0  #: how long the names of what would leave are together


def decide(
    rules: Sequence[OutputRule],
    requested: Sequence[Pattern],
    found: Sequence[Found],
    max_name_bytes: int = NAME_BYTES,
) -> Decision:
    """Return what of ``found`` leaves: requested ∩ permitted, within every limit of its rule.

    A file belongs to the first rule that matches it. A limit that is passed releases nothing of
    that rule: half of a result is worse than none. Nor does anything leave when all names together
    are longer than ``max_name_bytes``: they are chosen by the command, and carry what it likes.
    """
    groups: dict[int, list[Found]] = {}
    withheld: list[Withheld] = []
    for file in sorted(found, key=lambda f: f.path.parts):
        n = next((n for n, rule in enumerate(rules) if rule.path.matches(file.path)), None)
        if n is None:
            withheld.append(Withheld(str(file.path), "not_permitted"))
        elif not any(pattern.matches(file.path) for pattern in requested):
            withheld.append(Withheld(str(file.path), "not_requested"))
        else:
            groups.setdefault(n, []).append(file)
    release: list[RelPath] = []
    faults: list[Fault] = []
    for n, files in sorted(groups.items()):
        if fault := _over(rules[n], files):
            faults.append(fault)
            withheld.extend(Withheld(str(f.path), fault.code) for f in files)
        else:
            release.extend(f.path for f in files)
    names = [str(path) for path in release]
    name_bytes = sum(len(name.encode()) for name in names)
    if name_bytes > max_name_bytes:
        faults.append(over := Fault("output.names", (("limit", max_name_bytes),)))
        withheld.extend(Withheld(name, over.code) for name in names)
        release = []
    faults.extend(_missing(rules, requested, found))
    release.sort(key=lambda path: path.parts)
    return Decision(tuple(release), tuple(withheld), tuple(faults), name_bytes)


def _over(rule: OutputRule, files: Sequence[Found]) -> Fault | None:
    if len(files) > rule.max_files:
        return Fault("output.too_many", (("output", rule.path.text), ("limit", rule.max_files)))
    if any(f.size > rule.max_bytes for f in files):
        return Fault("output.too_large", (("output", rule.path.text), ("limit", rule.max_bytes)))
    return None


def _missing(
    rules: Sequence[OutputRule], requested: Sequence[Pattern], found: Sequence[Found]
) -> list[Fault]:
    """Return what was asked for by name, or is required, and is not there or not permitted.

    Whether something that is not permitted exists makes no difference to the answer.
    """
    there = {str(f.path) for f in found}
    named = {p.text for p in requested if p.literal}
    refused = {text for text in named if not _permitted(rules, RelPath.parse(text))}
    absent = (named - refused) - there
    for rule in rules:
        if rule.required and not any(rule.path.matches(f.path) for f in found):
            absent.add(rule.path.text)
    return [
        Fault(code, (("output", text),))
        for code, texts in (("output.missing", absent), ("output.not_permitted", refused))
        for text in sorted(texts)
    ]


def _permitted(rules: Sequence[OutputRule], path: RelPath) -> bool:
    return any(rule.path.matches(path) for rule in rules)


def clear_reason(error: SekishoError) -> Fault:
    """Return the part of ``error`` that may leave: its code and the cleared parameters."""
    kept = {
        name: value
        for name, value in error.params.items()
        if name in _CLEARED_PARAMS and isinstance(value, str | int)
    }
    return Fault(error.code, tuple(sorted(kept.items())))


def clear(value: T) -> Cleared[T]:
    """Seal what a decision released.

    Called by the runner's release step alone, after the decision is in the site's log (a test
    walks the source and names every caller).
    """
    return Cleared(value, seal=_SEAL)
