"""A real Grid Engine on this machine: one node, loopback only, everything a child of ours.

Its packages cannot be installed beside Slurm's `qsub`, so they are unpacked (`./dev test`). What
is compiled to look below /usr/lib sees them there, in a mount namespace of its own. Both daemons
run in the foreground; clients know them by their environment alone.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from examples.demo.daemons import WAIT_S, Daemons
from tests.mounts import within_mounts
from tests.sshd import free_port

_UNPACKED: Final = Path("/opt/sekisho-tests")
PROGRAMS: Final = _UNPACKED / "usr/lib/gridengine"
_SHARE: Final = _UNPACKED / "usr/share/gridengine"
#: Runs what follows with the unpacked packages laid over /usr/lib, seen by nobody else.
_WITHIN: Final = within_mounts(
    'mount -t overlay overlay -o "lowerdir=$0/usr/lib:/usr/lib" /usr/lib', str(_UNPACKED)
)
_HOST: Final = (
    "hostname localhost\nload_scaling NONE\ncomplex_values NONE\nuser_lists NONE\n"
    "xuser_lists NONE\nprojects NONE\nxprojects NONE\nusage_scaling NONE\nreport_variables NONE\n"
)
_QUEUE: Final = {
    "qname": "main.q",
    "hostlist": "localhost",
    "pe_list": "NONE",
    "shell_start_mode": "unix_behavior",
    "shell": "/bin/sh",
    "load_thresholds": "NONE",
    "notify": "00:00:02",
}
_SCHEDULING: Final = {
    "schedule_interval": "0:0:1",
    "flush_submit_sec": "1",
    "flush_finish_sec": "1",
}
_CONFIGURATION: Final = {
    "min_uid": "0",
    "min_gid": "0",
    "mailer": "/bin/true",
    "load_report_time": "00:00:01",
    "max_unheard": "00:00:05",
}


class GridEngine:
    """One running Grid Engine below ``base``. ``environment`` is what its clients need to know."""

    def __init__(self, base: Path, *, slots: int = 8, most_jobs: int = 0) -> None:
        self.base = base
        self._slots = slots
        self.environment = {
            "SGE_ROOT": str(base),
            "SGE_CELL": "default",
            "SGE_QMASTER_PORT": str(free_port()),
            "SGE_EXECD_PORT": str(free_port()),
        }
        told = self.environment | {"SGE_ND": "1"}
        self._daemons = Daemons(base, told, logs="messages")
        common = base / "default/common"
        for place in (common, base / "spooldb", base / "qmaster/job_scripts", base / "execd"):
            place.mkdir(parents=True)
        host = socket.gethostname().split(".")[0]
        (common / "act_qmaster").write_text("localhost\n")
        (common / "host_aliases").write_text(f"localhost {host}\n")
        start = (_SHARE / "default-bootstrap").read_text().replace("sgeadmin", getpass.getuser())
        start = start.replace("/var/spool/gridengine", str(base))
        (common / "bootstrap").write_text(start.replace("/usr/sbin", str(PROGRAMS)))
        usual = (_SHARE / "default-configuration").read_text()
        settings = _CONFIGURATION | {"execd_spool_dir": f"{base}/execd", "max_jobs": str(most_jobs)}
        (base / "configuration").write_text(_with(usual, settings))

    def start(self) -> None:
        self._must("spoolinit", "berkeleydb", "libspoolb", str(self.base / "spooldb"), "init")
        resources = _SHARE / "util/resources"
        for kind, what in (
            ("configuration", self.base / "configuration"),
            ("complexes", resources / "centry"),
            ("usersets", resources / "usersets"),
            ("managers", getpass.getuser()),
        ):
            self._must("spooldefaults", kind, str(what))
        self.start_master()
        self._must("qconf", "-as", "localhost")
        self._put("-Ae", _HOST)
        queue = _QUEUE | {"slots": str(self._slots)}
        self._put("-Aq", _with(self.told("qconf", "-sq"), queue))
        self._put("-Msconf", _with(self.told("qconf", "-ssconf"), _SCHEDULING))
        self.start_node()
        self._daemons.until(lambda: "lx-" in self.told("qstat", "-f"), "a node")

    def start_master(self) -> None:
        self._daemons.start("sge_qmaster", *_WITHIN, PROGRAMS / "sge_qmaster")
        self._daemons.until(lambda: self._asked("qconf", "-sh").returncode == 0, "sge_qmaster")

    def start_node(self) -> None:
        self._daemons.start("sge_execd", PROGRAMS / "sge_execd")

    def kill(self, daemon: str) -> None:
        """End ``daemon`` at once, as by a power cut, and wait until it is gone."""
        self._daemons.kill(daemon)

    def stop(self) -> None:
        """End every job, then the daemons: the master is slow to say good-bye, so it is killed."""
        if "sge_qmaster" in self._daemons:
            self.told("qdel", "-f", "-u", "*")
        if "sge_execd" in self._daemons:
            self._daemons.stop("sge_execd")
        for name in self._daemons:
            self.kill(name)

    def told(self, *argv: str) -> str:
        """Return what one of its commands says on both streams."""
        ended = self._asked(*argv)
        return ended.stdout + ended.stderr

    def _asked(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        within = _WITHIN if name.startswith("spool") else ()
        return subprocess.run(
            [*within, str(PROGRAMS / name), *words],
            env={"PATH": os.environ["PATH"], **self.environment},
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )

    def _must(self, *argv: str) -> None:
        ended = self._asked(*argv)
        if ended.returncode != 0:
            raise RuntimeError(f"{argv}: {ended.stdout}{ended.stderr}")

    def _put(self, flag: str, text: str) -> None:
        file = self.base / "said"
        file.write_text(text)
        self._must("qconf", flag, str(file))


def _with(text: str, settings: Mapping[str, str]) -> str:
    """Return Grid Engine's ``text`` of names and values with other values."""
    for name, value in settings.items():
        text, found = re.subn(rf"(?m)^{name}\b.*$", f"{name} {value}", text)
        if found != 1:
            raise ValueError(f"{name}: {text}")
    return text


@contextmanager
def a_gridengine(base: Path, *, slots: int = 8, most_jobs: int = 0) -> Iterator[GridEngine]:
    """Give a running Grid Engine below ``base``, whose path must be short."""
    with ExitStack() as stack:
        engine = GridEngine(base, slots=slots, most_jobs=most_jobs)
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        stack.callback(engine.stop)
        engine.start()
        yield engine
