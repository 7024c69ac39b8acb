"""A site's diagnosis, put together: every check in its order, each found by itself.

A fault ends only the checks that cannot be tried without what is missing, and they say so.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sekisho.adapters.http_client import Address, base_url, sender
from sekisho.adapters.http_line import HttpLine
from sekisho.adapters.journal_directory import DirectoryJournal
from sekisho.adapters.patience import Patience
from sekisho.adapters.probes_batch import probe_batch
from sekisho.adapters.probes_broker import BrokerProbe
from sekisho.adapters.probes_far import probe_far
from sekisho.adapters.probes_files import (
    probe_directory,
    probe_home,
    probe_programs,
    probe_sharing,
)
from sekisho.adapters.probes_network import NetworkProbe
from sekisho.adapters.token_file import read_token
from sekisho.adapters.way import way_to
from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.compose.hosts import Hosts
from sekisho.compose.schedulers import batch_scheduler
from sekisho.config.manifest import load_manifest
from sekisho.config.site import MANIFEST_NAME, SiteFiles, load_site
from sekisho.domain.errors import ConfigError, SekishoError
from sekisho.domain.manifest import Command, Manifest
from sekisho.domain.resources import LOCAL, ResourceRule, Venue
from sekisho.site.check import Finding, Grade, fault, found, judge_manifest, ok

#: The network's layers in their order: none is worth trying above one that is broken.
_LAYERS: Final = ("dns", "tcp", "proxy", "tls")


@dataclass(slots=True)
class Diagnosis:
    """Examines the site in ``home``; ``manifest`` is the one in force, if it can be read."""

    home: Path
    environ: Mapping[str, str]
    quick: bool = False
    manifest: Manifest | None = None
    _files: SiteFiles | None = None

    def run(self) -> Iterator[Finding]:
        """Return what every check found, as soon as it is found."""
        yield from self._settings()
        yield from self._manifest()
        yield from self._places()
        yield from self._broker()

    def _settings(self) -> Iterator[Finding]:
        try:
            self._files = load_site(self.home, dict(self.environ))
        except ConfigError as error:
            yield fault("settings", error)
        else:
            yield probe_home(self.home)

    def _manifest(self) -> Iterator[Finding]:
        file = self._files.manifest if self._files else self.home / MANIFEST_NAME
        try:
            self.manifest = load_manifest(file)
        except ConfigError as error:
            yield fault("manifest", error)
            yield found("programs", "check.not_tried", first="manifest")
            return
        yield ok("manifest", f"{file}, sha256:{self.manifest.digest}")
        yield from judge_manifest(self.manifest)
        yield from probe_programs(self.manifest)

    def _places(self) -> Iterator[Finding]:
        if self._files is None:
            yield found("work", "check.not_tried", first="settings")
            yield found("state", "check.not_tried", first="settings")
            return
        yield from probe_directory("work", self._files.work_base)
        if self.manifest is not None:
            yield from probe_sharing(self.manifest, self._files.work_base)
        yield from probe_directory("state", self._files.state)
        hosts = Hosts(self._files, LocalWorkplace(self._files.work_base))
        away = yield from self._hosts(hosts)
        yield from self._batch(hosts, away)
        owner = DirectoryJournal(self._files.state).owner()
        yield ok("agent", "-" if owner is None else f"pid {owner}")

    def _hosts(self, hosts: Hosts) -> Generator[Finding, None, set[str]]:
        """Look at every computing host that a command names; return those that are not there."""
        commands = list(self.manifest.commands.values()) if self.manifest else []
        away = set()
        for name in sorted({command.venue.host for command in commands} - {LOCAL}):
            try:
                far = hosts.far(name)
            except SekishoError as error:
                yield fault("host", error)
                away.add(name)
                continue
            for finding in probe_far(far, [c for c in commands if c.venue.host == name]):
                yield finding
                if finding.check == "host" and finding.grade is Grade.FAULT:
                    away.add(name)
        return away

    def _batch(self, hosts: Hosts, away: set[str]) -> Iterator[Finding]:
        """Try every batch system once for each way in which commands use it."""
        commands = self.manifest.commands.values() if self.manifest else ()
        tried: list[tuple[Venue, ResourceRule]] = []
        for command in commands:
            way = command.venue, command.resources
            if command.venue.scheduler == LOCAL or way in tried:
                continue
            tried.append(way)
            yield from self._tried(command, hosts, away)

    def _tried(self, command: Command, hosts: Hosts, away: set[str]) -> Iterator[Finding]:
        host, scheduler = command.venue.host, command.venue.scheduler
        if self.quick or self.manifest is None:
            yield found("batch", "check.quick")
        elif host in away:
            yield found("batch", "check.not_tried", first="host")
        else:
            system = batch_scheduler(hosts.host(host), self.manifest.batch_systems[scheduler])
            yield from probe_batch(command, system, hosts.workplace(host))

    def _broker(self) -> Iterator[Finding]:
        asked = ("token", "clock", "version", "body", "idle")
        if self._files is None:
            yield from _not_tried("settings", *_LAYERS, *asked)
            return
        broken = yield from self._network(self._files)
        try:
            token = read_token(self._files.token)
        except ConfigError as error:
            yield fault("token", error)
            yield from _not_tried("token", *asked[1:])
            return
        if broken is not None:
            yield from _not_tried(broken, *asked)
            return
        broker = self._files.settings.broker
        address = Address(url=broker.url, token=token, ca_file=self._files.ca, proxy=broker.proxy)
        with closing(HttpLine(sender(address), Patience(limit_s=0))) as line:
            yield from self._requests(
                BrokerProbe(line, self.manifest.site if self.manifest else None)
            )

    def _network(self, files: SiteFiles) -> Generator[Finding, None, str | None]:
        """Yield what the layers show; return the first that is broken."""
        try:
            url = base_url(files.settings.broker.url)
            probe = NetworkProbe(way_to(url, files.settings.broker.proxy), files.ca)
        except SekishoError as error:
            yield fault("dns", error)
            yield from _not_tried("dns", *_LAYERS[1:])
            return "dns"
        broken: str | None = None
        looks: dict[str, Callable[[], Finding]] = {
            "dns": probe.dns,
            "tcp": probe.tcp,
            "proxy": probe.proxy,
            "tls": probe.tls,
        }
        for layer in _LAYERS:
            if broken is not None:
                yield found(layer, "check.not_tried", first=broken)
                continue
            finding = _guarded(layer, looks[layer])
            yield finding
            broken = layer if finding.grade is Grade.FAULT else None
        return broken

    def _requests(self, probe: BrokerProbe) -> Iterator[Finding]:
        known = list(probe.identity())
        yield from known
        if known[0].grade is Grade.FAULT and known[0].code not in _KNOWN_TO_BROKER:
            yield from _not_tried("token", "body", "idle")
            return
        yield probe.body()
        yield found("idle", "check.quick") if self.quick else probe.idle()


#: Faults of a token that the broker accepts nevertheless: requests get through.
_KNOWN_TO_BROKER: Final = frozenset({"check.other_site"})


def _guarded(layer: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except SekishoError as error:  # a file of authorities that cannot be read
        return fault(layer, error)


def _not_tried(first: str, *checks: str) -> Iterator[Finding]:
    for check in checks:
        yield found(check, "check.not_tried", first=first)
