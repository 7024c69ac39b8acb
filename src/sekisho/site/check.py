"""The diagnosis of a site: what a check can find, how bad it is, and who can mend it.

Judgements only; what is judged is looked at by `adapters.probes`. A finding has a stable code; its
sentence is in the catalogue, as for every error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from sekisho.domain.certificate import disbelief
from sekisho.domain.errors import SekishoError
from sekisho.domain.limits import MIN_POLL_SECONDS
from sekisho.domain.manifest import Manifest
from sekisho.wire.v1 import Identity

#: How far clocks may differ: a certificate's or a token's first and last minutes are at stake.
CLOCK_WARNING_SECONDS: Final = 30.0
CLOCK_FAULT_SECONDS: Final = 300.0
#: A silence to ask for: the broker keeps it within 10 %, so at least 26 s, more than a long poll's.
IDLE_SECONDS: Final = 29.0
#: Below this nothing is taken in any more; below the other it is time to say so.
ROOM_FAULT_BYTES: Final = 64 << 20
ROOM_WARNING_BYTES: Final = 1 << 30
_EVERYTHING: Final = frozenset({"**", "**/*", "*"})


class Grade(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"
    SKIPPED = "skipped"


class Ask(StrEnum):
    """Who can mend a fault."""

    SITE = "site"  #: the owner of this site, and of its manifest and machine
    NETWORK = "network"  #: whoever runs this organisation's network
    BROKER = "broker"  #: the operator of the broker


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found. ``detail`` is a bare fact; ``code`` and ``params`` make a sentence."""

    check: str
    grade: Grade = Grade.OK
    code: str = ""
    params: Mapping[str, object] = field(default_factory=dict)
    ask: Ask | None = None
    detail: str = ""


_S, _N, _B = Ask.SITE, Ask.NETWORK, Ask.BROKER
_W, _F = Grade.WARNING, Grade.FAULT
#: Every code that a check of its own can find. Codes of errors are faults; see `_ASK_ABOUT`.
CODES: Final[Mapping[str, tuple[Grade, Ask | None]]] = {
    "check.batch_failed": (_F, _S),
    "check.batch_waits": (_W, _S),
    "check.body_limited": (_F, _N),
    "check.clock_differs": (_W, _S),
    "check.clock_off": (_F, _S),
    "check.directory_missing": (_F, _S),
    "check.directory_open": (_F, _S),
    "check.directory_owner": (_F, _S),
    "check.disk_full": (_F, _S),
    "check.disk_low": (_W, _S),
    "check.dns": (_F, _N),
    "check.file_system": (_F, _S),
    "check.home_open": (_W, _S),
    "check.host_clock": (_W, _S),
    "check.idle_cut": (_F, _N),
    "check.idle_short": (_W, _N),
    "check.modes_powerless": (_W, _S),
    "check.no_clones": (Grade.SKIPPED, None),
    "check.no_command": (_W, _S),
    "check.nobody_served": (_W, _S),
    "check.not_tried": (Grade.SKIPPED, None),
    "check.other_site": (_F, _S),
    "check.program_missing": (_F, _S),
    "check.program_not_executable": (_F, _S),
    "check.proxy_https": (Grade.SKIPPED, None),
    "check.proxy_kind": (_F, _S),
    "check.proxy_login": (_F, _N),
    "check.proxy_refused": (_F, _N),
    "check.quick": (Grade.SKIPPED, None),
    "check.releases_everything": (_W, _S),
    "check.site_clock": (_W, _S),
    "check.site_program_closed": (_F, _S),
    "check.site_program_missing": (_F, _S),
    "check.rsync_unsafe": (_W, _S),
    "check.tcp": (_F, _N),
    "check.tls_broken": (_F, _N),
    "check.tls_early": (_F, _S),
    "check.tls_expired": (_F, _B),
    "check.tls_host": (_F, _B),
    "check.tls_inspected": (_F, _N),
    "check.tls_issuer": (_F, _B),
    "check.tls_unused": (Grade.SKIPPED, None),
    "check.token_role": (_F, _B),
    "check.version_differs": (_W, _B),
}
#: Whom to ask about an error, by how its code begins; about any other, the site's owner.
_ASK_ABOUT: Final = (("auth.", _B), ("broker.url", _S), ("broker.", _N), ("message.", _N))


def found(check: str, code: str, **params: object) -> Finding:
    """Return the finding ``code``, with its grade and whom to ask."""
    grade, ask = CODES[code]
    return Finding(check=check, grade=grade, code=code, params=params, ask=ask)


def ok(check: str, detail: str = "") -> Finding:
    return Finding(check=check, detail=detail)


def fault(check: str, error: SekishoError) -> Finding:
    """Return the finding that ``error`` is."""
    ask = next((who for start, who in _ASK_ABOUT if error.code.startswith(start)), Ask.SITE)
    return Finding(check=check, grade=Grade.FAULT, code=error.code, params=error.params, ask=ask)


def clean(findings: Iterable[Finding]) -> bool:
    """Say whether nothing stands in the way of the site's work."""
    return all(finding.grade is not Grade.FAULT for finding in findings)


def judge_manifest(manifest: Manifest) -> Iterator[Finding]:
    """Find what is allowed in a manifest, but hardly meant."""
    if not manifest.commands:
        yield found("manifest", "check.no_command")
    if not manifest.submitters.users:
        yield found("manifest", "check.nobody_served")
    for command in manifest.commands.values():
        for rule in command.outputs:
            if rule.path.text in _EVERYTHING:
                yield found(
                    "manifest",
                    "check.releases_everything",
                    command=command.name,
                    output=rule.path.text,
                )


def judge_room(check: str, file: str, free_bytes: int) -> Finding:
    free_mib = free_bytes >> 20
    if free_bytes < ROOM_FAULT_BYTES:
        return found(check, "check.disk_full", file=file, free_mib=free_mib)
    if free_bytes < ROOM_WARNING_BYTES:
        return found(check, "check.disk_low", file=file, free_mib=free_mib)
    return ok(check, f"{file}: {free_mib} MiB")


def judge_clock(ahead_s: float) -> Finding:
    """Judge by how many seconds this machine's clock is ahead of the broker's."""
    seconds = round(ahead_s)
    if abs(ahead_s) > CLOCK_FAULT_SECONDS:
        return found("clock", "check.clock_off", seconds=seconds)
    if abs(ahead_s) > CLOCK_WARNING_SECONDS:
        return found("clock", "check.clock_differs", seconds=seconds)
    return ok("clock", f"{ahead_s:+.1f} s")


def judge_identity(identity: Identity, site: str | None) -> Finding:
    """Judge whom the broker takes us for; ``site`` is the manifest's, None when it has faults."""
    if identity.role != "site":
        return found("token", "check.token_role", role=identity.role)
    if site is not None and identity.name != site:
        return found("token", "check.other_site", joined=identity.name, site=site)
    return ok("token", identity.name)


def judge_idle(elapsed_s: float) -> Finding:
    """Judge a path that cut a silent connection after ``elapsed_s``: the agent polls shorter."""
    bearable = elapsed_s >= 2 * MIN_POLL_SECONDS
    code = "check.idle_short" if bearable else "check.idle_cut"
    return found("idle", code, seconds=round(elapsed_s, 1))


def judge_version(theirs: str, ours: str) -> Finding:
    """Releases that differ in more than their last number may not know all of each other."""
    if theirs.split(".")[:2] != ours.split(".")[:2]:
        return found("version", "check.version_differs", broker=theirs, agent=ours)
    return ok("version", theirs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a server showed of itself, believed or not."""

    issuer: str
    names: tuple[str, ...]
    begins: str
    ends: str


def judge_certificate(
    verify_code: int, why: str, shown: Certificate, host: str, *, inspected: bool
) -> Finding:
    """Say why the certificate ``shown`` by ``host`` is not believed.

    ``inspected``: an authority that this machine trusts, but not the one of the settings, made it.
    """
    match disbelief(verify_code):
        case "issuer":
            code = "check.tls_inspected" if inspected else "check.tls_issuer"
            return found("tls", code, host=host, issuer=shown.issuer)
        case "host":
            return found("tls", "check.tls_host", host=host, names=", ".join(shown.names))
        case "expired":
            return found("tls", "check.tls_expired", host=host, ended=shown.ends)
        case "early":
            return found("tls", "check.tls_early", host=host, begins=shown.begins)
    return found("tls", "check.tls_broken", host=host, why=why)
