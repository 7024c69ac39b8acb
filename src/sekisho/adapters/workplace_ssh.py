"""Work directories on another host: `<base>/<job>/<attempt>/{work,control,before,after}` there.

On the gateway, in a `LocalWorkplace` of this host's own, lie only what is fetched before it goes
there, a quarantine of what was released, and the staged copy of that. What was decided is copied
out of the quarantine by the same code as for a job of the gateway itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from sekisho.adapters.hosts.far_files import FarFiles, Wish
from sekisho.adapters.hosts.rsync import Rsync, Target
from sekisho.adapters.staging import Tail
from sekisho.adapters.workplace_local import CONTROL, WORK, LocalWorkplace
from sekisho.domain.egress import STDERR_NAME, STDOUT_NAME, Fault, Found, LogRule, Withheld
from sekisho.domain.errors import StorageFull
from sekisho.domain.files import RelPath
from sekisho.domain.ids import check_job_id
from sekisho.site.workplace import CollectCaps, Collected, Place, Staged
from sekisho.transfer.holes import sparse

#: So many earlier jobs there are looked at for equal inputs.
_EARLIER: Final = 3
_LOGS: Final = (("stdout", STDOUT_NAME), ("stderr", STDERR_NAME))
_NO_CAPS: Final = CollectCaps()


class SshWorkplace:
    """`Workplace` on a host that is reached by ssh. ``spare_bytes`` of its disk stay free."""

    def __init__(
        self,
        files: FarFiles,
        local: LocalWorkplace,
        *,
        caps: CollectCaps = _NO_CAPS,
        spare_bytes: int = 64 << 20,
    ) -> None:
        self._files = files
        self._local = local
        self._caps = caps
        self._spare_bytes = spare_bytes

    def place(self, job: str, attempt: int) -> Place:
        here = self._local.place(job, attempt)
        there = f"{self._files.base}/{job}/{attempt}"
        return replace(
            here,
            work_dir=f"{there}/{WORK}",
            control_dir=f"{there}/{CONTROL}",
            input_dir=here.work_dir,
        )

    def prepare(self, job: str, attempt: int) -> Place:
        self._local.prepare(job, attempt)
        self._files.prepare(job, attempt, self._spare_bytes)
        return self.place(job, attempt)

    def fill(self, place: Place) -> None:
        inputs = Path(place.input_dir)
        if not any(inputs.iterdir()):
            return
        if self._files.sight.rsync and not self._files.host.noisy:
            there = Rsync(self._files.host.ssh)
            bases = [f"../../../{job}/1/{WORK}" for job in self._earlier(place.job)]
            try:
                target = Target(
                    place=place.work_dir, bases=bases, verify=True, sparse=sparse(inputs)
                )
                there.push(inputs, target, lambda _: None)
            except StorageFull as error:
                raise StorageFull("site.disk_full") from error
        else:
            for file in sorted(inputs.rglob("*")):
                if file.is_file():
                    name = RelPath.parse(str(file.relative_to(inputs)))
                    self._files.put(place.job, place.attempt, name, file)
        shutil.rmtree(inputs)
        inputs.mkdir(mode=0o700)

    def collect(self, place: Place) -> Collected:
        return self._files.survey(place.job, place.attempt, self._caps)

    def glimpse(self, place: Place, files: Sequence[Found]) -> tuple[tuple[RelPath, bytes], ...]:
        """As the port says; nothing without a Python there: a shell cannot hold on to a file."""
        if not files or not self._files.sight.python:
            return ()
        wishes = [Wish(WORK, str(found.path), found.size) for found in files]
        with TemporaryDirectory(dir=Path(place.input_dir).parent) as here:
            withheld = self._files.copy(place.job, place.attempt, wishes, Path(here))
            seen = [found.path for n, found in enumerate(files) if n not in withheld]
            return tuple((path, Path(here, WORK, *path.parts).read_bytes()) for path in seen)

    def stage(
        self, place: Place, release: Sequence[Found], logs: tuple[LogRule, LogRule] | None
    ) -> Staged:
        wishes = [Wish(WORK, str(found.path), found.size) for found in release]
        for (name, told), rule in zip(_LOGS, logs or (), strict=False):
            if rule.release:
                tail = Tail(name, RelPath.parse(told), rule.max_bytes, place.elements)
                wishes += [Wish(CONTROL, log, tail.share, end=True) for log in tail.names]
        if self._local.over(release) or not wishes:
            return self._local.stage(place, release, None)
        self._local.check_room(2 * sum(wish.size for wish in wishes))
        quarantine = Path(place.input_dir).parent
        self._local.prepare(place.job, place.attempt)
        with suppress(FileNotFoundError):
            shutil.rmtree(place.input_dir)
        Path(place.input_dir).mkdir(mode=0o700)
        withheld = self._files.copy(place.job, place.attempt, wishes, quarantine)
        why = {
            self._told(wishes[n]): reason
            for n, reason in withheld.items()
            if not (wishes[n].end and reason == "gone")  # a log that was never written
        }
        staged = self._local.stage(place, release, logs)
        shutil.rmtree(place.input_dir)
        return _explained(staged, why)

    def staged(self, place: Place) -> Staged:
        return self._local.staged(place)

    def purge(self, job: str) -> bool:
        gone = self._files.purge(check_job_id(job))
        return self._local.purge(job) and gone

    def _earlier(self, job: str) -> list[str]:
        return [other for other in reversed(self._local.jobs()) if other != job][:_EARLIER]

    @staticmethod
    def _told(wish: Wish) -> str:
        name = wish.path.rpartition("/")[2]
        return dict(_LOGS)[name] if wish.folder == CONTROL else wish.path


def _explained(staged: Staged, why: dict[str, str]) -> Staged:
    """Return ``staged`` with the reasons that the other host had for what did not come."""
    seen = {item.path for item in staged.withheld}
    withheld = [replace(item, why=why.get(item.path, item.why)) for item in staged.withheld]
    faults = list(staged.faults)
    for path, reason in why.items():
        if path not in seen:
            withheld.append(Withheld(path, reason))
            faults.append(Fault("output.changed", (("output", path),)))
    return replace(staged, withheld=tuple(withheld), faults=tuple(faults))
