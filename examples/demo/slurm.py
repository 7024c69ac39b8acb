"""A real Slurm on this machine: one node, loopback only, everything a child of ours.

The clients see it by SLURM_CONF alone; nothing outside its directory is touched.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from examples.demo.daemons import Daemons

_SBIN: Final = "/usr/sbin"
_PROGRAMS: Final = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
_CONF: Final = """\
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={base}/munge/sock
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort={controller}
SlurmdPort={node}
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd.pid
SlurmctldLogFile={base}/slurmctld.log
SlurmdLogFile={base}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerNode=100
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000
MinJobAge={forget_s}
MaxJobCount={most_jobs}
KillWait=2
OverTimeLimit=0
ReturnToService=2
SlurmdTimeout={node_timeout_s}
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    """Return the programs of a Slurm that are not there."""
    path = f"{os.environ.get('PATH', os.defpath)}:{_SBIN}"
    return [name for name in _PROGRAMS if shutil.which(name, path=path) is None]


def a_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Slurm:
    """One running Slurm. ``conf`` is what its clients need to know.

    ``lines`` are more of Slurm's own settings, as they are.
    """

    def __init__(self, base: Path, lines: Sequence[str] = (), **settings: int) -> None:
        self.base = base
        self.conf = base / "slurm.conf"
        self.host = socket.gethostname().split(".")[0]
        self.environment = {"SLURM_CONF": str(self.conf)}
        self._daemons = Daemons(base, self.environment, logs="*.log")
        usual = {"forget_s": 300, "most_jobs": 10_000, "node_timeout_s": 0, "cpus": 8}
        for part in ("state", "spool", "munge"):
            (base / part).mkdir(parents=True)
        key = base / "munge" / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        text = _CONF.format(
            host=self.host,
            user=getpass.getuser(),
            base=base,
            controller=a_port(),
            node=a_port(),
            **(usual | settings),
        )
        self.conf.write_text("\n".join((text, *lines, "")))

    def start(self) -> None:
        munge = self.base / "munge"
        self._start(
            "munged",
            *("-F", "--force", f"--key-file={munge}/key", f"--socket={munge}/sock"),
            *(f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed"),
            "--num-threads=2",
        )
        self._daemons.until((munge / "sock").exists, "munged")
        self.start_controller()
        self.start_node()
        self._daemons.until(lambda: "idle" in self.told("sinfo", "-h", "-o", "%T"), "an idle node")

    def start_controller(self) -> None:
        self._start("slurmctld", "-D", "-f", str(self.conf))

    def start_node(self) -> None:
        self._start("slurmd", "-D", "-f", str(self.conf), "-N", self.host)

    def kill(self, daemon: str) -> None:
        """End ``daemon`` at once, as by a power cut, and wait until it is gone."""
        self._daemons.kill(daemon)

    def stop(self) -> None:
        self._daemons.stop(*self._daemons, within_s=20)
        for step in self._steps():
            os.kill(step, signal.SIGKILL)

    def _steps(self) -> list[int]:
        """Return the processes that still look after a job of this very Slurm."""
        ours = f"SLURM_CONF={self.conf}\0".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (process / "comm").read_text() == "slurmstepd\n":
                    found += [int(process.name)] * (ours in (process / "environ").read_bytes())
        return found

    def told(self, *argv: str, timeout_s: float = 20) -> str:
        """Return what one of Slurm's commands says; nothing when it does not answer."""
        try:
            ended = subprocess.run(
                argv,
                env={**os.environ, **self.environment},
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return ""
        return ended.stdout + ended.stderr

    def _start(self, name: str, *words: str) -> None:
        self._daemons.start(name, f"{_SBIN}/{name}", *words)


@contextmanager
def a_slurm(base: Path, lines: Sequence[str] = (), **settings: int) -> Iterator[Slurm]:
    """Give a running Slurm below ``base``, whose path must be short."""
    with ExitStack() as stack:
        slurm = Slurm(base, lines, **settings)
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        stack.callback(slurm.stop)
        slurm.start()
        yield slurm
