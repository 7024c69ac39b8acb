"""A real Grid Engine on this machine: one node, loopback only, everything a child of ours.

Its packages cannot be installed beside Slurm's `qsub`, so they are unpacked (`./dev test`). What
is compiled to look below /usr/lib sees them there, in a mount namespace of its own. Both daemons
run in the foreground; clients know them by their environment alone.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.sshd import free_port

_UNPACKED: Final = Path("/opt/sekisho-tests")
PROGRAMS: Final = _UNPACKED / "usr/lib/gridengine"
_SHARE: Final = _UNPACKED / "usr/share/gridengine"
#: Runs what follows with the unpacked packages laid over /usr/lib, seen by nobody else.
_WITHIN: Final = (
    *("unshare", "--mount", "/bin/sh", "-c"),
    'mount -t overlay overlay -o "lowerdir=$0/usr/lib:/usr/lib" /usr/lib && exec "$@"',
    str(_UNPACKED),
)
_WAIT_S: Final = 60.0
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
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {
            "SGE_ROOT": str(base),
            "SGE_CELL": "default",
            "SGE_QMASTER_PORT": str(free_port()),
            "SGE_EXECD_PORT": str(free_port()),
        }
        common = base / "default/common"
        for place in (common, base / "spooldb", base / "qmaster/job_scripts", base / "execd"):
            place.mkdir(parents=True)
        host = socket.gethostname().split(".")[0]
        (common / "act_qmaster").write_text("localhost\n")
        (common / "host_aliases").write_text(f"localhost {host}\n")
        start = (_SHARE / "default-bootstrap").read_text().replace("sgeadmin", "root")
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
            ("managers", "root"),
        ):
            self._must("spooldefaults", kind, str(what))
        self.start_master()
        self._must("qconf", "-as", "localhost")
        self._put("-Ae", _HOST)
        queue = _QUEUE | {"slots": str(self._slots)}
        self._put("-Aq", _with(self.told("qconf", "-sq"), queue))
        self._put("-Msconf", _with(self.told("qconf", "-ssconf"), _SCHEDULING))
        self.start_node()
        self._until(lambda: "lx-" in self.told("qstat", "-f"), "a node")

    def start_master(self) -> None:
        self._start("sge_qmaster", *_WITHIN)
        self._until(lambda: self._asked("qconf", "-sh").returncode == 0, "sge_qmaster")

    def start_node(self) -> None:
        self._start("sge_execd")

    def kill(self, daemon: str) -> None:
        """End ``daemon`` at once, as by a power cut, and wait until it is gone."""
        child = self._children.pop(daemon)
        child.kill()
        child.wait()

    def stop(self) -> None:
        """End every job, then the daemons: the master is slow to say good-bye, so it is killed."""
        if "sge_qmaster" in self._children:
            self.told("qdel", "-f", "-u", "*")
        if (node := self._children.get("sge_execd")) is not None:
            node.terminate()
            node.wait(_WAIT_S)
        for name in list(self._children):
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
            timeout=_WAIT_S,
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

    def _start(self, name: str, *within: str) -> None:
        with (self.base / f"{name}.out").open("ab") as out:
            self._children[name] = subprocess.Popen(
                [*within, str(PROGRAMS / name)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={"PATH": os.environ["PATH"], "SGE_ND": "1", **self.environment},
                start_new_session=True,
            )

    def _until(self, claim: Callable[[], object], what: str) -> None:
        end = time.monotonic() + _WAIT_S
        while not claim():
            if time.monotonic() > end:
                raise TimeoutError(f"no {what}: {self._logs()}")
            time.sleep(0.05)

    def _logs(self) -> str:
        return "".join(log.read_text()[-2000:] for log in self.base.rglob("messages"))


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
