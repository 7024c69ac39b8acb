"""What people at the site want, as files in the state directory; the present manifest.

A file can be looked at and changed by anybody who may administer the site, with any tool, and needs
no open port. Everything is read anew at each question, so that a change counts at once.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from sekisho.config.manifest import load_manifest
from sekisho.config.site import SiteFiles, disabled_commands
from sekisho.domain.errors import ConfigError
from sekisho.domain.manifest import Manifest
from sekisho.site.desk import Word

log = structlog.get_logger()


class DirectoryDesires:
    """The site's word. A manifest that has become faulty is not used: the last good one holds."""

    def __init__(self, files: SiteFiles, manifest: Manifest) -> None:
        self._files = files
        self._manifest = manifest
        self._stamp: tuple[int, int, int] | None = None
        self._denied: frozenset[str] = frozenset()

    def paused(self) -> bool:
        return self._files.paused.exists()

    def deny(self, commands: frozenset[str]) -> None:
        if commands != self._denied:
            log.info("commands_denied", commands=sorted(commands))
        self._denied = commands

    def capacity(self) -> int:
        return self._current().max_running

    def word(self) -> Word:
        return Word(self._current(), self._denied | disabled_commands(self._files.disabled))

    def _current(self) -> Manifest:
        stamp = _stamp(self._files.manifest)
        if stamp is not None and stamp != self._stamp:
            self._stamp = stamp
            self._reread()
        return self._manifest

    def _reread(self) -> None:
        try:
            manifest = load_manifest(self._files.manifest)
        except ConfigError as error:
            faults = error.params.get("faults", [error.code])
            log.error("manifest_rejected", faults=faults)  # noqa: TRY400 (not a fault of ours)
            return
        if manifest.digest != self._manifest.digest:
            log.info("manifest_changed", digest=manifest.digest)
        self._manifest = manifest


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        seen = file.stat()
    except OSError:
        return None
    return seen.st_ctime_ns, seen.st_size, seen.st_ino
