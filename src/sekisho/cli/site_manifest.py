"""The effective manifest in print: for whoever must decide whether it may be in force."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from sekisho.cli.output import word
from sekisho.cli.session import Session
from sekisho.domain.egress import LogRule, OutputRule
from sekisho.domain.launch import LaunchLimits, Sandbox
from sekisho.domain.manifest import ArgTemplate, Command, InputRule, Manifest
from sekisho.domain.parameter import Parameter
from sekisho.domain.resources import Bound, Listed, ResourceRule, Venue


def described(session: Session, manifest: Manifest) -> Iterator[str]:
    """Return the lines that say what may run here, what comes in, and what may leave."""
    served = ", ".join(sorted(manifest.submitters.users)) or "-"
    yield session.say("manifest_head", site=manifest.site, digest=manifest.digest)
    yield session.say("manifest_served", users=served, limit=manifest.max_running)
    for command in manifest.commands.values():
        yield ""
        yield _title(session, command)
        for key, values in _rows(session, command):
            yield f"    {session.say(f'manifest_{key}')}: {values}"


def _title(session: Session, command: Command) -> str:
    description = command.description.get(session.lang, "")
    off = "" if command.enabled else f" [{session.say('manifest_off')}]"
    return f"  {command.name}{off}  {description}".rstrip()


def _rows(session: Session, command: Command) -> Iterator[tuple[str, str]]:
    yield "runs", " ".join(_argument(element) for element in command.argv)
    for name, parameter in command.parameters.items():
        yield "takes", f"{name}: {_parameter(parameter)}"
    for arrival in command.inputs:
        yield "receives", _input(session, arrival)
    for rule in command.outputs:
        yield "releases", _output(session, rule)
    yield "names", f"≤ {_size(command.max_output_name_bytes)}"
    yield "stdout", _log(session, command.stdout)
    yield "stderr", _log(session, command.stderr)
    yield "reach", _reach(session, command.sandbox)
    yield from _venue(command)
    if command.environment:
        yield "environment", " ".join(sorted(command.environment))
    if command.mint_command is not None:
        yield "mint", command.mint_command
    if command.submitters is not None:
        yield "only", ", ".join(sorted(command.submitters.users)) or "-"
    most = _stated(command.limits)
    if most:
        yield "most", ", ".join(f"{name}={value}" for name, value in most.items())
    yield (
        "limits",
        session.say(
            "manifest_bounds",
            seconds=f"{command.time_limit.total_seconds():g}",
            running=command.max_running,
            days=f"{command.retention.total_seconds() / 86_400:g}",
            again=session.say("yes" if command.idempotent else "no"),
        ),
    )


def _venue(command: Command) -> Iterator[tuple[str, str]]:
    if command.venue != Venue():
        yield "venue", f"{command.venue.scheduler} ({command.venue.host})"
    if asked := _asked(command.resources):
        yield "resources", ", ".join(f"{name}={amount}" for name, amount in asked.items())
    if command.licence:
        yield "licence", " ".join(map(word, command.licence))


def _argument(element: ArgTemplate) -> str:
    if isinstance(element, str):
        return word(element)
    return f"[{' '.join(map(word, element))}]"


def _parameter(parameter: Parameter) -> str:
    kind = type(parameter).__name__.lower()
    bounds = ", ".join(f"{key}={value}" for key, value in _stated(parameter).items())
    return f"{kind} ({bounds})" if bounds else kind


def _stated(rule: Parameter | LaunchLimits | ResourceRule) -> dict[str, Any]:
    """Return what ``rule`` says, without what it leaves open."""
    fields = {field.name: getattr(rule, field.name) for field in dataclasses.fields(rule)}
    return {name: value for name, value in fields.items() if value is not None}


def _asked(rule: ResourceRule) -> dict[str, Any]:
    """Return what is asked of a batch system, a bound amount as its parameter and bounds."""
    stated = {name: _amount(value) for name, value in _stated(rule).items()}
    return {name: value for name, value in stated.items() if value != ""}


def _amount(value: Any) -> str:
    if isinstance(value, Bound):
        return f"{{{value.parameter}}} * {value.unit} ({value.least}..{value.most})"
    if isinstance(value, Listed):
        return f"{{{value.parameter}}} ({' '.join(value.values)})"
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _input(session: Session, rule: InputRule) -> str:
    need = session.say("manifest_required" if rule.required else "manifest_optional")
    shared = f", {session.say('manifest_read_only')}" if rule.read_only else ""
    many = "" if rule.path.literal else f", {session.say('manifest_files', count=rule.max_files)}"
    return f"{rule.path.text} ≤ {_size(rule.max_bytes)}{many}, {need}{shared}"


def _output(session: Session, rule: OutputRule) -> str:
    need = session.say("manifest_required" if rule.required else "manifest_optional")
    many = session.say("manifest_files", count=rule.max_files)
    return f"{rule.path.text} ≤ {_size(rule.max_bytes)}, {many}, {need}"


def _reach(session: Session, grants: Sandbox | None) -> str:
    """Say what the kernel lets the command reach besides its work directory."""
    if grants is None:
        return session.say("manifest_unconfined")
    ports = ", ".join(f"tcp/{port}" for port in grants.connect)
    network = session.say("manifest_network") if grants.network else ports
    memory = session.say("manifest_shared_memory") if grants.shared_memory else ""
    words = (*grants.read, *(f"{path} (rw)" for path in grants.write), network, memory)
    return ", ".join(word for word in words if word) or session.say("manifest_nothing")


def _log(session: Session, rule: LogRule) -> str:
    if not rule.release:
        return session.say("manifest_kept")
    return session.say("manifest_tail", size=_size(rule.max_bytes))


def _size(count: int) -> str:
    """Return a number of bytes in the largest unit that divides it."""
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count and count % (1 << power) == 0:
            return f"{count >> power} {unit}"
    return f"{count} B"


def facts_of(manifest: Manifest) -> dict[str, Any]:
    """Return the same for a program: the manifest's own keys and values."""
    return {
        "site": manifest.site,
        "digest": manifest.digest,
        "submitters": sorted(manifest.submitters.users),
        "max_running": manifest.max_running,
        "commands": [_command_facts(command) for command in manifest.commands.values()],
    }


def _command_facts(command: Command) -> dict[str, Any]:
    only = command.submitters
    return {
        "name": command.name,
        "enabled": command.enabled,
        "description": dict(command.description),
        "argv": [list(e) if isinstance(e, tuple) else e for e in command.argv],
        "parameters": {
            name: {"type": type(parameter).__name__.lower(), **_stated(parameter)}
            for name, parameter in command.parameters.items()
        },
        "inputs": [_rule_facts(rule) for rule in command.inputs],
        "outputs": [_rule_facts(rule) for rule in command.outputs],
        "max_output_name_bytes": command.max_output_name_bytes,
        "stdout": dataclasses.asdict(command.stdout),
        "stderr": dataclasses.asdict(command.stderr),
        "environment": sorted(command.environment),
        "limits": dataclasses.asdict(command.limits),
        "sandbox": None if command.sandbox is None else dataclasses.asdict(command.sandbox),
        "host": command.venue.host,
        "scheduler": command.venue.scheduler,
        "resources": _asked(command.resources),
        "licence": list(command.licence),
        "submitters": None if only is None else sorted(only.users),
        "time_limit_s": command.time_limit.total_seconds(),
        "max_running": command.max_running,
        "retention_days": command.retention.total_seconds() / 86_400,
        "idempotent": command.idempotent,
    }


def _rule_facts(rule: InputRule | OutputRule) -> dict[str, Any]:
    fields = {f.name: getattr(rule, f.name) for f in dataclasses.fields(rule)}
    return {**fields, "path": rule.path.text}
