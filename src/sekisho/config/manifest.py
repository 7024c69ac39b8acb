"""The manifest as its owner writes it: `manifest.toml`, read into `sekisho.domain.manifest`.

Sizes are bytes, or text such as "100 MiB"; times name their unit. Every fault is told at once, with
file and line. The digest names the text itself: what was in force can be shown later.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from sekisho.config.batch import (
    Argument,
    HostName,
    ResourcesTable,
    SchedulerName,
    SchedulerTable,
    batch_systems,
    resource_faults,
    resource_rule,
    scheduler_faults,
    venue_faults,
)
from sekisho.config.form import formed
from sekisho.config.load import (
    Faults,
    examine,
    fault_at,
    invalid,
    read_text,
    table_faults,
)
from sekisho.config.locate import KeyPath
from sekisho.config.ownership import check_ours
from sekisho.config.parameter import ParameterTable, parameter, parameter_faults
from sekisho.config.publish import PublishTable, publish_rule
from sekisho.config.size import Seconds, Size, size_of
from sekisho.domain.access import Submitters
from sekisho.domain.egress import LogRule, OutputRule
from sekisho.domain.errors import UsageError
from sekisho.domain.files import Pattern
from sekisho.domain.ids import COMMAND_PATTERN, SITE_PATTERN, USER_PATTERN
from sekisho.domain.launch import LaunchLimits, Sandbox, check_variable, check_word
from sekisho.domain.limits import MAX_FILES
from sekisho.domain.manifest import ArgTemplate, Command, InputRule, Manifest, Step
from sekisho.domain.resources import LOCAL, Venue

User = Annotated[str, formed("user", USER_PATTERN)]
ParameterName = Annotated[str, formed("parameter", r"[a-z][a-z0-9_]{0,39}")]


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every table of the file."""


class InputTable(Table, frozen=True, kw_only=True):
    path: str
    max_bytes: Size = "1 GiB"
    max_files: Annotated[int, Meta(ge=1, le=MAX_FILES)] = MAX_FILES
    required: bool = True
    read_only: bool = False


class OutputTable(Table, frozen=True, kw_only=True):
    path: str
    max_bytes: Size = "1 GiB"
    max_files: Annotated[int, Meta(ge=1, le=MAX_FILES)] = 1
    required: bool = False


class LogTable(Table, frozen=True, kw_only=True):
    release: bool = False
    max_bytes: Size = "64 KiB"


class LimitsTable(Table, frozen=True, kw_only=True):
    max_file_bytes: Size | None = None
    max_open_files: Annotated[int, Meta(ge=16, le=1 << 30)] | None = None
    max_processes: Annotated[int, Meta(ge=8, le=1 << 22)] | None = None


class SandboxTable(Table, frozen=True, kw_only=True):
    read: list[str] = []
    write: list[str] = []
    network: bool = False
    connect: list[Annotated[int, Meta(ge=1, le=65_535)]] = []
    shared_memory: bool = False


class DescriptionTable(Table, frozen=True, kw_only=True):
    en: str = ""
    ja: str = ""


class StepTable(Table, frozen=True, kw_only=True):
    """What is done beside a command, on its host."""

    argv: Annotated[list[Argument], Meta(min_length=1)]
    time_limit_s: Seconds


class CommandTable(Table, frozen=True, kw_only=True):
    name: Annotated[str, formed("command", COMMAND_PATTERN)]
    argv: Annotated[list[str | list[str]], Meta(min_length=1)]
    time_limit_s: Seconds
    description: DescriptionTable = DescriptionTable()
    parameters: dict[ParameterName, ParameterTable] = {}
    input: list[InputTable] = []
    output: list[OutputTable] = []
    max_output_name_bytes: Size = "64 KiB"
    stdout: LogTable = LogTable()
    stderr: LogTable = LogTable()
    publish: PublishTable | None = None
    environment: dict[str, str] = {}
    limits: LimitsTable = LimitsTable()
    sandbox: SandboxTable | None = None
    host: HostName | None = None
    scheduler: SchedulerName = LOCAL
    resources: ResourcesTable = ResourcesTable()
    before: StepTable | None = None
    after: StepTable | None = None
    licence: list[Argument] = []
    max_running: Annotated[int, Meta(ge=1, le=10_000)] = 1
    idempotent: bool = False
    retention_days: Annotated[float, Meta(ge=0, le=3660)] = 30
    submitters: list[User] | None = None
    enabled: bool = True
    mint_command: Annotated[str, Meta(min_length=1, max_length=2048)] | None = None


class ManifestTable(Table, frozen=True, kw_only=True):
    schema: Literal[1]
    site: Annotated[str, formed("site", SITE_PATTERN)]
    submitters: list[User]
    max_running: Annotated[int, Meta(ge=1, le=10_000)] = 4
    host: HostName = LOCAL
    scheduler: dict[SchedulerName, SchedulerTable] = {}
    command: list[CommandTable] = []


def load_manifest(path: Path) -> Manifest:
    """Return the manifest in the file, or raise ConfigError with every fault, file and line.

    What another user could have written is not the site's word.
    """
    check_ours(path)
    return parse_manifest(read_text(path), path.name)


def parse_manifest(text: str, file: str) -> Manifest:
    """Return the manifest written as ``text``."""
    document, faults = examine(text, file, ManifestTable)
    faults += [fault_at(text, file, where, error) for where, error in _rule_faults(document)]
    if faults:
        raise invalid(faults)
    table = msgspec.convert(document, ManifestTable)
    return Manifest(
        site=table.site,
        submitters=Submitters(frozenset(table.submitters)),
        commands={entry.name: _command(entry, table.host) for entry in table.command},
        max_running=table.max_running,
        batch_systems=batch_systems(table.scheduler),
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )


def _rule_faults(document: dict[str, Any]) -> Faults:
    """Find what is wrong beyond types, also in a document that has faults of type elsewhere."""
    yield from scheduler_faults(document)
    entries = document.get("command")
    seen: dict[str, set[str]] = {"name": set(), "mint_command": set()}
    for n, entry in enumerate(entries if isinstance(entries, list) else []):
        if not isinstance(entry, dict):
            continue
        at: KeyPath = ("command", n)
        for key, texts in seen.items():
            text = entry.get(key)
            if isinstance(text, str):  # any other is told already
                if text in texts:
                    yield (*at, key), UsageError("setting.duplicate", value=text)
                texts.add(text)
        parameters = list(parameter_faults(entry, at))
        others = [
            *_pattern_faults(entry, at),
            *_variable_faults(entry, at),
            *table_faults(entry, at, "limits", LimitsTable, _limits),
            *table_faults(entry, at, "sandbox", SandboxTable, _sandbox),
            *venue_faults(entry, document, at),
            *table_faults(entry, at, "publish", PublishTable, publish_rule),
            *resource_faults(entry, at),
        ]
        yield from parameters + others
        if not parameters:
            yield from _argv_faults(entry, at, alone=bool(others))


def _pattern_faults(entry: dict[str, Any], at: KeyPath) -> Faults:
    for key in ("input", "output"):
        rules = entry.get(key)
        for n, rule in enumerate(rules if isinstance(rules, list) else []):
            path = rule.get("path") if isinstance(rule, dict) else None
            try:
                if isinstance(path, str):
                    Pattern(path)
            except UsageError as error:
                yield (*at, key, n, "path"), error


def _variable_faults(entry: dict[str, Any], at: KeyPath) -> Faults:
    names = entry.get("environment")
    for name, value in names.items() if isinstance(names, dict) else ():
        try:
            check_variable(name)
            check_word(str(value))
        except UsageError as error:
            yield (*at, "environment", name), error


def _argv_faults(entry: dict[str, Any], at: KeyPath, *, alone: bool) -> Faults:
    """Judge the whole entry, or, when something else in it is wrong, the vector by itself."""
    vector = {k: entry[k] for k in ("name", "argv", "parameters", "resources") if k in entry}
    for given in ([] if alone else [entry]) + [vector | {"time_limit_s": 1}]:
        try:
            _command(msgspec.convert(given, CommandTable), LOCAL)
        except msgspec.ValidationError:
            continue  # told already, with the key
        except UsageError as error:
            yield (*at, "argv"), error
        return


def _command(entry: CommandTable, host: str) -> Command:
    return Command(
        name=entry.name,
        argv=tuple(_template(element) for element in entry.argv),
        parameters={name: parameter(name, p) for name, p in entry.parameters.items()},
        inputs=tuple(
            InputRule(
                path=Pattern(i.path),
                max_bytes=size_of(i.max_bytes),
                max_files=i.max_files,
                required=i.required,
                read_only=i.read_only,
            )
            for i in entry.input
        ),
        outputs=tuple(
            OutputRule(
                path=Pattern(o.path),
                max_bytes=size_of(o.max_bytes),
                max_files=o.max_files,
                required=o.required,
            )
            for o in entry.output
        ),
        max_output_name_bytes=size_of(entry.max_output_name_bytes),
        stdout=LogRule(release=entry.stdout.release, max_bytes=size_of(entry.stdout.max_bytes)),
        stderr=LogRule(release=entry.stderr.release, max_bytes=size_of(entry.stderr.max_bytes)),
        environment=entry.environment,
        limits=_limits(entry.limits),
        publish=None if entry.publish is None else publish_rule(entry.publish),
        sandbox=None if entry.sandbox is None else _sandbox(entry.sandbox),
        venue=Venue(host=entry.host or host, scheduler=entry.scheduler),
        resources=resource_rule(entry.resources),
        before=_step(entry.before),
        after=_step(entry.after),
        licence=tuple(entry.licence),
        time_limit=timedelta(seconds=entry.time_limit_s),
        max_running=entry.max_running,
        idempotent=entry.idempotent,
        retention=timedelta(days=entry.retention_days),
        submitters=None if entry.submitters is None else Submitters(frozenset(entry.submitters)),
        enabled=entry.enabled,
        mint_command=entry.mint_command,
        description=msgspec.structs.asdict(entry.description),
    )


def _step(table: StepTable | None) -> Step | None:
    if table is None:
        return None
    return Step(argv=tuple(table.argv), time_limit=timedelta(seconds=table.time_limit_s))


def _limits(table: LimitsTable) -> LaunchLimits:
    most = table.max_file_bytes
    return LaunchLimits(
        max_file_bytes=None if most is None else size_of(most),
        max_open_files=table.max_open_files,
        max_processes=table.max_processes,
    )


def _sandbox(table: SandboxTable) -> Sandbox:
    return Sandbox(
        read=tuple(table.read),
        write=tuple(table.write),
        network=table.network,
        connect=tuple(table.connect),
        shared_memory=table.shared_memory,
    )


def _template(element: str | list[str]) -> ArgTemplate:
    return element if isinstance(element, str) else tuple(element)
