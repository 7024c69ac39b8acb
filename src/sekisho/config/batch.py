"""The manifest's tables about batch systems, read into `sekisho.domain.resources`.

`[scheduler.NAME]` says how a batch system is asked; `[command.resources]` what a command asks of
it. An amount is a number, or a parameter with the site's own bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from sekisho.config.form import formed
from sekisho.config.load import Faults
from sekisho.config.locate import KeyPath
from sekisho.config.size import Size, size_of
from sekisho.domain.errors import UsageError
from sekisho.domain.launch import check_variable
from sekisho.domain.resources import (
    DIALECTS,
    LOCAL,
    MAX_ELEMENTS,
    Array,
    BatchSystem,
    Bound,
    Listed,
    ResourceRule,
)

Argument = Annotated[
    str, formed("argument", r"[^\x00-\x1f\x7f]*"), Meta(min_length=1, max_length=256)
]
#: A name that a batch system gives to a queue, an account or a licence.
Word = Annotated[str, formed("word", r"[A-Za-z0-9_][A-Za-z0-9_.,:;=@/+-]{0,127}")]
SchedulerName = Annotated[str, formed("scheduler", r"[a-z][a-z0-9_-]{0,39}")]
HOST_PATTERN: Final = r"local|ssh:[A-Za-z0-9_][A-Za-z0-9_.@-]{0,127}"
HostName = Annotated[str, formed("host", HOST_PATTERN)]
Count = Annotated[int, Meta(ge=1, le=100_000_000)]
ElementCount = Annotated[int, Meta(ge=1, le=MAX_ELEMENTS)]
Wait = Annotated[float, Meta(ge=0.1, le=3600)]


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the tables here."""


class SchedulerTable(Table, frozen=True, kw_only=True):
    """A batch system; only what differs from its dialect's usual commands need be said."""

    dialect: Literal["slurm", "pbs", "torque", "sge", "pjsub"]
    submit: list[Argument] = []
    status: list[Argument] = []
    cancel: list[Argument] = []
    environment: dict[str, Argument] = {}
    poll_s: Wait = 2.0
    poll_max_s: Wait = 30.0
    settle_s: Wait = 10.0
    timeout_s: Wait = 60.0


class BoundTable(Table, frozen=True, kw_only=True):
    """A number that a request chooses, by an integer parameter."""

    parameter: str
    max: Count
    min: Count = 1
    unit: Count = 1


class MemoryBoundTable(Table, frozen=True, kw_only=True):
    """A size that a request chooses, as so many units."""

    parameter: str
    max: Size
    min: Size = 1
    unit: Size = "1 MiB"


class ListedTable(Table, frozen=True, kw_only=True):
    """A name that a request chooses, by a parameter of the type choice."""

    parameter: str
    values: Annotated[list[Word], Meta(min_length=1)]


class ArrayTable(Table, frozen=True, kw_only=True):
    """How many times a job runs its command, as an array, and how often at the same time."""

    elements: ElementCount | BoundTable
    at_once: ElementCount | None = None


class ResourcesTable(Table, frozen=True, kw_only=True):
    """What is asked of the batch system for each run."""

    queue: Word | ListedTable | None = None
    account: Word | ListedTable | None = None
    nodes: Count | BoundTable | None = None
    tasks: Count | BoundTable | None = None
    cpus: Count | BoundTable | None = None
    memory: Size | MemoryBoundTable | None = None
    gpus: Count | BoundTable | None = None
    wall_time_s: Count | BoundTable | None = None
    array: ArrayTable | None = None
    licences: list[Word] = []
    directives: list[Argument] = []


def batch_systems(tables: Mapping[str, SchedulerTable]) -> dict[str, BatchSystem]:
    """Return the site's batch systems by name; each dialect is one, unless it is said otherwise."""
    usual = {name: BatchSystem(name=name, dialect=name) for name in DIALECTS}
    return usual | {name: _batch_system(name, table) for name, table in tables.items()}


def _batch_system(name: str, table: SchedulerTable) -> BatchSystem:
    return BatchSystem(
        name=name,
        dialect=table.dialect,
        submit=tuple(table.submit),
        status=tuple(table.status),
        cancel=tuple(table.cancel),
        environment=table.environment,
        poll_s=table.poll_s,
        poll_max_s=max(table.poll_s, table.poll_max_s),
        settle_s=table.settle_s,
        timeout_s=table.timeout_s,
    )


def resource_rule(table: ResourcesTable) -> ResourceRule:
    """Return what ``table`` asks for."""
    return ResourceRule(
        queue=_name(table.queue),
        account=_name(table.account),
        nodes=_amount(table.nodes),
        tasks=_amount(table.tasks),
        cpus=_amount(table.cpus),
        memory=_memory(table.memory),
        gpus=_amount(table.gpus),
        wall_time=_amount(table.wall_time_s),
        array=None if table.array is None else _array(table.array),
        licences=tuple(table.licences),
        directives=tuple(table.directives),
    )


def _array(table: ArrayTable) -> Array:
    amount = table.elements
    elements = amount if isinstance(amount, int) else _bound(amount)
    return Array(elements=elements, at_once=table.at_once)


def _name(name: str | ListedTable | None) -> str | Listed | None:
    if isinstance(name, ListedTable):
        return Listed(parameter=name.parameter, values=tuple(name.values))
    return name


def _amount(amount: int | BoundTable | None) -> int | Bound | None:
    return _bound(amount) if isinstance(amount, BoundTable) else amount


def _bound(table: BoundTable) -> Bound:
    return Bound(parameter=table.parameter, least=table.min, most=table.max, unit=table.unit)


def _memory(memory: int | str | MemoryBoundTable | None) -> int | Bound | None:
    if isinstance(memory, MemoryBoundTable):
        return Bound(
            parameter=memory.parameter,
            least=size_of(memory.min),
            most=size_of(memory.max),
            unit=size_of(memory.unit),
        )
    return None if memory is None else size_of(memory)


def scheduler_faults(document: dict[str, Any]) -> Faults:
    """Find what is wrong with the batch systems beyond types."""
    tables = document.get("scheduler")
    for name, table in (tables if isinstance(tables, dict) else {}).items():
        if name == LOCAL:
            yield ("scheduler", name), UsageError("manifest.scheduler_local")
        variables = table.get("environment") if isinstance(table, dict) else None
        for variable in variables if isinstance(variables, dict) else ():
            try:
                check_variable(variable)
            except UsageError as error:
                yield ("scheduler", name, "environment", variable), error


def venue_faults(entry: dict[str, Any], document: dict[str, Any], at: KeyPath) -> Faults:
    """Find what is wrong with where a command is to run."""
    name, tables = entry.get("scheduler", LOCAL), document.get("scheduler")
    known = {LOCAL, *DIALECTS, *(tables if isinstance(tables, dict) else ())}
    if isinstance(name, str) and name not in known:
        yield (*at, "scheduler"), UsageError("manifest.scheduler", scheduler=name)
    if entry.get("host", document.get("host", LOCAL)) != LOCAL and "sandbox" in entry:
        yield (*at, "sandbox"), UsageError("manifest.sandbox_host")
    if name == LOCAL and "resources" in entry:
        yield (*at, "resources"), UsageError("manifest.resources_local")
    yield from _array_faults(entry, tables, at)
    step_keys = (("before", "argv"), ("after", "argv"))
    tables = [(entry.get(name), (name, key)) for name, key in step_keys]
    vectors = [(t.get("argv"), where) for t, where in tables if isinstance(t, dict)]
    for vector, where in [(entry.get("licence"), ("licence",)), *vectors]:
        if isinstance(vector, list) and vector and not str(vector[0]).startswith("/"):
            yield (*at, *where), UsageError("launch.path")


def _array_faults(entry: dict[str, Any], systems: object, at: KeyPath) -> Faults:
    """Find a limit that the batch system has no word for."""
    name, resources = entry.get("scheduler", LOCAL), entry.get("resources")
    array = resources.get("array") if isinstance(resources, dict) else None
    system = systems.get(name) if isinstance(systems, dict) and isinstance(name, str) else None
    dialect = system.get("dialect") if isinstance(system, dict) else name
    if dialect == "pjsub" and isinstance(array, dict) and "at_once" in array:
        at_once = (*at, "resources", "array", "at_once")
        yield at_once, UsageError("manifest.at_once", dialect=dialect)


def resource_faults(entry: dict[str, Any], at: KeyPath) -> Faults:
    """Find a bound within which nothing lies."""
    try:
        rule = resource_rule(msgspec.convert(entry.get("resources", {}), ResourcesTable))
    except msgspec.ValidationError:
        return  # told already, with the key
    for key in ("nodes", "tasks", "cpus", "memory", "gpus", "wall_time_s"):
        bound = getattr(rule, key.removesuffix("_s"))
        if isinstance(bound, Bound) and not bound.least <= bound.most:
            yield (*at, "resources", key), UsageError("setting.bounds")
    if rule.array is not None and isinstance(bound := rule.array.elements, Bound):
        where = (*at, "resources", "array", "elements")
        if not bound.least <= bound.most:
            yield where, UsageError("setting.bounds")
        if bound.most > MAX_ELEMENTS:
            yield where, UsageError("setting.range", bound=f"<= {MAX_ELEMENTS}")
