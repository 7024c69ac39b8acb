"""Where everybody keeps what is theirs: three directories, as if they were three machines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = REPOSITORY / "examples" / "fatigue"


@dataclass(frozen=True, slots=True)
class Places:
    """The directories of one demo below ``root``, and the port of its broker."""

    root: Path
    port: int
    slurm_conf: Path | None = None  #: of the Slurm that starts the site's command
    hpc_port: int | None = None  #: of the sshd of a computing host: then the site is its gateway

    @property
    def broker(self) -> Path:
        return self.root / "broker"

    @property
    def site(self) -> Path:
        return self.root / "site"

    @property
    def hpc(self) -> Path:
        """What would be another machine: the computing host behind the gateway."""
        return self.root / "hpc"

    @property
    def workflow(self) -> Path:
        return self.root / "workflow"

    @property
    def secrets(self) -> Path:
        """The site's mesh and material model."""
        return (self.site if self.hpc_port is None else self.hpc) / "secrets"

    @property
    def work_base(self) -> Path:
        """Where the site's work directories are."""
        return self.site / "work" if self.hpc_port is None else self.hpc / "jobs"

    @property
    def program(self) -> Path:
        """What a bare site and its author have agreed on."""
        return self.site / "solve.sh"

    @property
    def bare_base(self) -> Path:
        """Where the work directories of jobs without a gate are."""
        return self.site / "shop"

    @property
    def results(self) -> Path:
        return self.workflow / "results"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def make(self) -> None:
        """Make the directories, for the user alone."""
        hpc = () if self.hpc_port is None else (self.hpc,)
        for place in (self.root, self.broker, self.site, self.workflow, *hpc):
            place.mkdir(mode=0o700, exist_ok=True)
