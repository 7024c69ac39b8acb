"""The manifest: a site's own word on what may run, what comes in and what may leave.

Rule 1: a request names a command; the argument vector is built here, from the site's template and
        typed values, one list element at a time. There is no shell and no free text.
Rule 2: what the manifest does not mention is refused: commands, parameters, inputs, submitters.
Rule 3: `admit` decides everything that can be known before a start, so that nothing is run in vain.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from sekisho.domain.access import Submitters
from sekisho.domain.egress import NAME_BYTES, LogRule, OutputRule, PublishRule
from sekisho.domain.errors import Refused, UsageError
from sekisho.domain.files import Pattern, RelPath
from sekisho.domain.launch import LaunchLimits, Sandbox, check_word
from sekisho.domain.limits import MAX_FILES, SHORT_LIST_BYTES
from sekisho.domain.parameter import Parameter, Value
from sekisho.domain.resources import BatchSystem, ResourceRule, Resources, Venue, granted

_PLACEHOLDER: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
WORK_VARIABLE: Final = "CALC_DIR"
DEFAULT_PATH: Final = "/usr/local/bin:/usr/bin:/bin"

#: One element of an argv template: a text with ``{name}`` in it, or a group that is left out as a
#: whole when a parameter in it has no value.
ArgTemplate = str | tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRule:
    """Files that may come in: up to ``max_files`` whose names match, each at most ``max_bytes``.

    ``read_only``: the command does not change them, so its submitter's jobs may have one copy.
    """

    path: Pattern
    max_bytes: int
    max_files: int = MAX_FILES
    required: bool = True
    read_only: bool = False

    @property
    def most_files(self) -> int:
        """Return how many files can match at once."""
        return 1 if self.path.literal else self.max_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What the site has done beside a command: a fixed vector, without a submitter's word in it."""

    argv: tuple[str, ...]
    time_limit: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One registered command. Sizes in bytes; ``argv[0]`` is an absolute path."""

    name: str
    argv: tuple[ArgTemplate, ...]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    inputs: tuple[InputRule, ...] = ()
    outputs: tuple[OutputRule, ...] = ()
    max_output_name_bytes: int = NAME_BYTES  #: of all names that leave: they carry data, too
    stdout: LogRule = field(default_factory=LogRule)
    stderr: LogRule = field(default_factory=LogRule)
    publish: PublishRule | None = None  #: None: nothing leaves before the end
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: LaunchLimits = field(default_factory=LaunchLimits)
    sandbox: Sandbox | None = None  #: None: the command may reach what the site's user may
    time_limit: timedelta
    max_running: int = 1
    idempotent: bool = False
    retention: timedelta = timedelta(days=30)
    venue: Venue = field(default_factory=Venue)
    resources: ResourceRule = field(default_factory=ResourceRule)
    before: Step | None = None  #: in the work directory, with the inputs; then the command
    after: Step | None = None  #: when the command ended well; then its outputs are looked at
    licence: tuple[str, ...] = ()  #: a program that exits with 0 when a licence is free
    submitters: Submitters | None = None  #: None: those of the site
    enabled: bool = True
    mint_command: str | None = None  #: what an old MInt client calls it, exactly
    description: Mapping[str, str] = field(default_factory=dict)

    @property
    def program(self) -> str:
        """Return the file that is started: one that no parameter chooses."""
        return str(self.argv[0])

    def only_reads(self, path: RelPath) -> bool:
        """Say whether every rule by which the input ``path`` may come in is ``read_only``."""
        rules = [rule for rule in self.inputs if rule.path.matches(path)]
        return bool(rules) and all(rule.read_only for rule in rules)

    def __post_init__(self) -> None:
        first = self.argv[0] if self.argv else ""
        if isinstance(first, tuple) or not first.startswith("/") or "{" in first:
            raise UsageError("manifest.argv", command=self.name)  # without a group, the next is it
        elements = [e for a in self.argv for e in (a if isinstance(a, tuple) else (a,))]
        for word in (*elements, *self.environment.values()):
            check_word(word)
        used = {n for e in elements for n in _PLACEHOLDER.findall(e)}
        if unknown := used - self.parameters.keys():
            raise UsageError("manifest.placeholder", command=self.name, parameter=min(unknown))
        if unused := self.parameters.keys() - used - self.resources.parameters:
            raise UsageError("manifest.unused_parameter", command=self.name, parameter=min(unused))
        self.resources.check(self.parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that one site serves. ``digest`` names this very text."""

    site: str
    submitters: Submitters
    commands: Mapping[str, Command]
    max_running: int = 4
    batch_systems: Mapping[str, BatchSystem] = field(default_factory=dict)
    digest: str = ""


#: The parameter that gets the free text of an old MInt client, if a command declares it. Old
#: agents never used that text.
MINT_PARAMETER: Final = "mint_parameters"


def mint_order(manifest: Manifest, mint_command: str, text: str) -> tuple[str, Mapping[str, Value]]:
    """Return name and parameters of the command that old MInt clients call ``mint_command``.

    Without one, the text itself, which is no command's name, so that `admit` refuses it.
    """
    for command in manifest.commands.values():
        if command.mint_command == mint_command:
            wanted = text and MINT_PARAMETER in command.parameters
            return command.name, {MINT_PARAMETER: text} if wanted else {}
    return f" {mint_command}"[:64], {}


@dataclass(frozen=True, slots=True)
class Arrival:
    """An input file as announced: its name and size in bytes."""

    path: RelPath
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """What a request says of its inputs: how many, their bytes, and those of the list of them.

    The list, once it is here, is held to it.
    """

    files: int
    bytes: int
    list_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a submitter asks for, as far as a manifest judges it."""

    submitter: str
    command: str
    parameters: Mapping[str, Value]
    inputs: Sequence[Arrival] | None  #: None: not known yet; they are judged when they are
    outputs: Sequence[Pattern]
    announced: Announced | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """An order that the manifest allows, with what it allows for it."""

    command: Command
    argv: tuple[str, ...]
    resources: Resources = field(default_factory=Resources)


def admit(manifest: Manifest, order: Order, *, disabled: frozenset[str] = frozenset()) -> Admission:
    """Return what may be run for ``order``, or raise Refused with the first reason against it.

    ``disabled`` are commands switched off from the broker's side, which can only take away.
    Whether a command exists is told only to submitters that the site serves.
    """
    if not manifest.submitters.include(order.submitter):
        raise Refused("submitter.not_listed", submitter=order.submitter)
    command = manifest.commands.get(order.command)
    if command is None:
        raise Refused("command.unknown", command=order.command)
    if command.submitters is not None and not command.submitters.include(order.submitter):
        raise Refused("command.unknown", command=order.command)
    if not command.enabled or order.command in disabled:
        raise Refused("command.disabled", command=order.command)
    if order.announced is not None:
        _check_announced(command, order.announced)
    if order.inputs is not None:
        _check_inputs(command, order.inputs)
    _check_requested(command, order.outputs)
    texts = _texts(command, order.parameters)
    resources = granted(command.resources, texts, command.time_limit)
    return Admission(command=command, argv=_vector(command, texts), resources=resources)


def bind(command: Command, given: Mapping[str, Value]) -> tuple[str, ...]:
    """Return the argument vector of ``command`` for the values ``given``.

    Every value is one of the manifest's parameters and passes its type; a parameter without a
    default must be given unless it only occurs in groups.
    """
    return _vector(command, _texts(command, given))


def _texts(command: Command, given: Mapping[str, Value]) -> dict[str, str | None]:
    if unknown := given.keys() - command.parameters.keys():
        raise Refused("parameter.unknown", parameter=min(unknown))
    texts: dict[str, str | None] = {}
    for name, parameter in command.parameters.items():
        value = given.get(name, parameter.default)
        if value is not None:
            texts[name] = parameter.render(name, value)
    return texts


def _vector(command: Command, texts: Mapping[str, str | None]) -> tuple[str, ...]:
    argv: list[str] = []
    for element in command.argv:
        argv.extend(_expand(element, texts))
    return tuple(argv)


def _expand(element: ArgTemplate, texts: Mapping[str, str | None]) -> list[str]:
    parts = element if isinstance(element, tuple) else (element,)
    names = [name for part in parts for name in _PLACEHOLDER.findall(part)]
    for name in names:
        if name not in texts:
            if isinstance(element, tuple):
                return []
            raise Refused("parameter.missing", parameter=name)
        if texts[name] is None:  # a switch that is off
            return []
    return [_fill(part, texts) for part in parts]


def _fill(part: str, texts: Mapping[str, str | None]) -> str:
    return _PLACEHOLDER.sub(lambda m: texts[m[1]] or "", part)


def _check_announced(command: Command, announced: Announced) -> None:
    """Refuse inputs whose list is long, and which cannot fit whatever is in it.

    A short list is worth its fetching: then it can be said which of the files is wrong.
    """
    if announced.list_bytes <= SHORT_LIST_BYTES:
        return
    most = {rule.path.text: rule.most_files for rule in command.inputs}
    largest = max((rule.max_bytes for rule in command.inputs), default=0)
    if announced.files > (limit := min(sum(most.values()), MAX_FILES)):
        raise Refused("input.too_many", limit=limit)
    if announced.bytes > (limit := largest * announced.files):
        raise Refused("input.too_much", limit=limit)


def _check_inputs(command: Command, inputs: Sequence[Arrival]) -> None:
    keys = {i.path.key for i in inputs}
    if len(keys) != len(inputs):
        raise Refused("input.duplicate")
    counts = [0] * len(command.inputs)
    for arrival in inputs:
        matching = [n for n, r in enumerate(command.inputs) if r.path.matches(arrival.path)]
        if not matching:
            raise Refused("input.unexpected", input=str(arrival.path))
        if arrival.size > (limit := max(command.inputs[n].max_bytes for n in matching)):
            raise Refused("input.too_large", input=str(arrival.path), limit=limit)
        for n in matching:
            counts[n] += 1
    _check_counts(command.inputs, counts)


def _check_counts(rules: Sequence[InputRule], counts: Sequence[int]) -> None:
    """Refuse when not as many of the inputs match a rule, of each its count, as it says."""
    for rule, count in zip(rules, counts, strict=True):
        if rule.required and not count:
            raise Refused("input.missing", input=rule.path.text)
        if count > rule.max_files:
            raise Refused("input.too_many_matching", input=rule.path.text, limit=rule.max_files)


def _check_requested(command: Command, requested: Sequence[Pattern]) -> None:
    """Refuse now, not after hours of work, a file asked for by name that no rule permits."""
    for pattern in requested:
        if pattern.literal:
            path = RelPath.parse(pattern.text)
            if not any(rule.path.matches(path) for rule in command.outputs):
                raise Refused("output.not_permitted", output=pattern.text)


def environment(command: Command, work_directory: str) -> dict[str, str]:
    """Return the whole environment of a job: the manifest's names, PATH and CALC_DIR; no others."""
    named = {
        name: value.replace("{" + WORK_VARIABLE + "}", work_directory)
        for name, value in command.environment.items()
    }
    return {"PATH": DEFAULT_PATH, **named, WORK_VARIABLE: work_directory}
