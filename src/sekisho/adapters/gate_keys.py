"""Gate keys in an `authorized_keys` file: lines that open the gate, and nothing else.

A line of ours is recognised by its forced command; lines of others stay as they are, byte for byte.
"""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import os
import re
import shlex
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from sekisho.adapters import durable
from sekisho.domain.errors import ConfigError, Conflict, NotFound, UsageError
from sekisho.domain.ids import check_user

MODULE: Final = "sekisho.cli.gate"
_MAX_FILE_BYTES: Final = 64 << 20
_KEY: Final = re.compile(
    r"(?P<kind>(?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+) (?P<data>[A-Za-z0-9+/]+={0,2})"
    r"(?: (?P<note>[^\x00-\x1f\x7f]*))?"
)
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f\"\\!]")  #: to sshd, or to some login shell in quotes
_FROM: Final = re.compile(r"[A-Za-z0-9.:*?!,/\[\]_-]{1,300}")
_OURS: Final = re.compile(r'restrict,command="(?P<command>[^"\\]*)"(?P<options>[^ ]*) (?P<key>.+)')


@dataclass(frozen=True, slots=True, kw_only=True)
class GateKey:
    """One line of ours. ``fingerprint`` is that of `ssh-keygen -l`."""

    fingerprint: str
    submitter: str
    options: str
    note: str


def fingerprint_of(key: str) -> str:
    """Return the fingerprint of a public key line, or raise UsageError(`gate.key_invalid`)."""
    found = _KEY.fullmatch(key.strip())
    if found is None:
        raise UsageError("gate.key_invalid")
    try:
        blob = base64.b64decode(found["data"], validate=True)
    except binascii.Error as error:
        raise UsageError("gate.key_invalid") from error
    kind = found["kind"].encode()
    exact = base64.b64encode(blob).decode() == found["data"]
    if not exact or not blob.startswith(len(kind).to_bytes(4) + kind):
        raise UsageError("gate.key_invalid")
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def line_for(
    key: str, *, home: Path, submitter: str, sources: str | None, expires: datetime | None
) -> str:
    """Return the line that lets ``key`` open the gate of the site in ``home`` for ``submitter``."""
    fingerprint_of(key)
    argv = [sys.executable, "-I", "-m", MODULE, "--dir", str(home), "--submitter"]
    command = shlex.join([*argv, check_user(submitter)])
    if _UNSAFE.search(command):
        raise UsageError("gate.path_unsafe")
    options = f'restrict,command="{command}"'
    if sources is not None:
        if _FROM.fullmatch(sources) is None:
            raise UsageError("gate.from_invalid")
        options += f',from="{sources}"'
    if expires is not None:  # in local time: older sshd know no other
        options += f',expiry-time="{expires.astimezone():%Y%m%d%H%M}"'
    return f"{options} {key.strip()}"


def gate_keys(file: Path) -> list[GateKey]:
    """Return the gate keys in ``file``."""
    return [found for line in _lines(file) if (found := _parsed(line)) is not None]


def add_key(file: Path, line: str) -> None:
    """Add ``line``; raise Conflict when its key is in the file already, in whatever line.

    A second line of the same key could open more than the gate: sshd takes the first that matches.
    """
    ours = _OURS.fullmatch(line)
    key = _KEY.fullmatch(ours["key"]) if ours is not None else None
    if key is None:
        raise UsageError("gate.key_invalid")
    lines = _lines(file)
    if any(key["data"] in other for other in lines):
        raise Conflict("gate.key_present")
    _write(file, [*lines, line])


def remove_key(file: Path, fingerprint: str) -> None:
    """Remove the gate key with ``fingerprint``; raise NotFound when there is none."""
    lines = _lines(file)
    kept = []
    for line in lines:
        found = _parsed(line)
        if found is None or found.fingerprint != fingerprint:
            kept.append(line)
    if len(kept) == len(lines):
        raise NotFound("gate.key_unknown")
    _write(file, kept)


def _parsed(line: str) -> GateKey | None:
    found = _OURS.fullmatch(line)
    if found is None or f" -m {MODULE} " not in found["command"]:
        return None
    key = _KEY.fullmatch(found["key"])
    try:
        words = shlex.split(found["command"])
        fingerprint = fingerprint_of(found["key"])
    except (ValueError, UsageError):
        return None
    return GateKey(
        fingerprint=fingerprint,
        submitter=words[-1],
        options=found["options"].lstrip(","),
        note=(key["note"] if key else None) or "",
    )


def _lines(file: Path) -> list[str]:
    """Return the lines; what is no UTF-8 in them survives."""
    try:
        with file.open("rb") as stream:
            data = stream.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise durable.translated(error) from error
    if len(data) > _MAX_FILE_BYTES:  # such as a device without an end
        why = os.strerror(errno.EFBIG)
        raise ConfigError("config.unreadable", file=str(file), why=why)
    text = data.decode("utf-8", "surrogateescape")
    return text.removesuffix("\n").split("\n") if text else []


def _write(file: Path, lines: list[str]) -> None:
    """Write the lines where sshd looks, readable by whom they were readable by."""
    data = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = file.resolve()  # a link stays one
        old = place.stat() if place.exists() else None
        durable.write_file(place, data, mode=0o600 if old is None else old.st_mode & 0o777)
        if old is not None and old.st_uid != os.geteuid():
            os.chown(place, old.st_uid, old.st_gid)
    except OSError as error:
        raise durable.translated(error) from error
