"""The site's engineer: keeps the secrets, writes the manifest, joins, runs the agent."""

from __future__ import annotations

import json
import shlex
import sys
import time
from string import Template

from examples.demo import confinement
from examples.demo.operator import SITE, USER
from examples.demo.places import PROGRAMS, REPOSITORY, Places
from examples.demo.shell import DemoFault, Ended, Person, Shell

_CONNECT_SECONDS = 30.0
_LOOK_SECONDS = 0.1

KEYS = "authorized_keys"
COMMAND = "notched-specimen"
MANIFEST = Template("""\
schema = 1
site = "$site"
submitters = ["$user"]

[[command]]
name = "$command"
description.en = "Stress distribution of a notched specimen"
description.ja = "切欠き試験片の応力分布"
argv = [
  "$python", "$program",
  "--site-data", "$secrets",
  "--area", "reduction_of_area.txt",
  "--tensile", "tensile_strength.txt",
  "--yield", "yield_strength.txt",
  "--max-stress", "{max_stress}",
  "--solver", "{solver}",
]
time_limit_s = 120

[command.parameters]
max_stress = { type = "number", minimum = 100, maximum = 600, default = 450 }
solver = { type = "choice", values = ["auto", "calculix", "scikit-fem"], default = "auto" }

[[command.input]]
path = "reduction_of_area.txt"
max_bytes = "1 KiB"

[[command.input]]
path = "tensile_strength.txt"
max_bytes = "1 KiB"

[[command.input]]
path = "yield_strength.txt"
max_bytes = "1 KiB"

[[command.output]]
path = "stress_distribution.csv"
max_bytes = "1 MiB"
required = true

[[command.output]]
path = "stress.png"
max_bytes = "5 MiB"

[[command.output]]
path = "summary.json"
max_bytes = "64 KiB"
required = true

$sandbox$more""")


SLURM = Template("""
[scheduler.cluster]
dialect = "slurm"
poll_s = 0.2
environment = { SLURM_CONF = "$conf" }
""")


#: The computing host, as the gateway's ssh configuration names it.
HPC = "hpc"
FAR = Template("""
[host.$alias]
base = "$base"
ssh_config = "ssh_config"
""")


class Engineer:
    """What the engineer types."""

    def __init__(self, shell: Shell, places: Places) -> None:
        self._shell = shell
        self._places = places
        self._who = Person("engineer", places.site)

    def make_secrets(self) -> list[str]:
        """Make a secret mesh and a secret material model; return the canaries in them."""
        program = str(PROGRAMS / "make_site_data.py")
        there = Person("engineer", self._places.secrets.parent)
        made = self._shell.run(there, ("python", program, self._places.secrets.name))
        canaries: list[str] = json.loads(made.out)["canaries"]
        return canaries

    def join(self) -> str:
        """Make the site, write its manifest, redeem the invitation; return what the check says."""
        broker = ("--broker", self._places.url, "--ca", "broker-ca.pem")
        self._site("init", "--site", SITE, "--user", USER, *broker)
        self._write_manifest()
        self._site("join", "--invitation-file", "invitation")
        return self._site("check", "--quick").out

    def open_gate(self) -> str:
        """Make the site without a broker, and bind the author's key to its gate; return the line.

        Whoever has that key speaks to the gate and to nothing else of this host.
        """
        self._site("init", "--site", SITE, "--user", USER)
        self._write_manifest()
        keys = ("--authorized-keys", KEYS)
        self._site("gate-key", "add", "gate.pub", "--submitter", USER, *keys)
        return (self._places.site / KEYS).read_text("utf-8").strip()

    def agree_on_program(self) -> None:
        """Put the program of the bare site where the author was told, and let a plain key in."""
        program = self._places.program
        words = [sys.executable, PROGRAMS / "site_program.py", "--site-data", self._places.secrets]
        program.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, words))} "$@"\n', "utf-8")
        program.chmod(0o700)
        plain = (self._places.site / "plain.pub").read_text("utf-8")
        with (self._places.site / KEYS).open("a", encoding="utf-8") as keys:
            keys.write(plain)

    def start_agent(self) -> int:
        """Start the agent and wait until the broker knows it; return its process id."""
        log = self._places.site / "agent.log"
        pid = self._shell.start(self._who, ("sekisho", "agent", "--dir", "."), log)
        until = time.monotonic() + _CONNECT_SECONDS
        while "agent_started" not in log.read_text("utf-8"):
            if time.monotonic() > until or not self._shell.alive(pid):
                raise DemoFault("the agent does not run\n" + log.read_text("utf-8"))
            time.sleep(_LOOK_SECONDS)
        return pid

    def log_of(self, job: str) -> str:
        """Return what the site's log says of a job: what ran, what left, at whose request."""
        return self._site("log", "--job", job).out

    def log_verifies(self) -> bool:
        """Say whether the chain of the site's log is unbroken."""
        return self._site("log", "--verify", expect=None).status == 0

    def queue(self) -> list[str]:
        """Return what Slurm says of each of its jobs: number, name, state."""
        argv = ("squeue", "--noheader", "--states=all", "--format=%A %j %T")
        return self._shell.run(self._who, argv).out.splitlines()

    def _write_manifest(self) -> None:
        far = self._places.hpc_port is not None
        text = MANIFEST.substitute(
            site=SITE,
            user=USER,
            command=COMMAND,
            python=sys.executable,
            program=PROGRAMS / "site_program.py",
            secrets=self._places.secrets,
            sandbox="" if far else confinement.sandbox(REPOSITORY, self._places.secrets),
            more=confinement.commands(self._places),
        )
        if self._places.slurm_conf is not None:
            limit = "time_limit_s = 120\n"
            asked = 'scheduler = "cluster"\nresources = { cpus = 1, memory = "1 GiB" }\n'
            asked += f'host = "ssh:{HPC}"\n' if far else ""
            text = text.replace(limit, limit + asked)
            text += SLURM.substitute(conf=self._places.slurm_conf)
        (self._places.site / "manifest.toml").write_text(text, encoding="utf-8")
        if far:
            with (self._places.site / "agent.toml").open("a", encoding="utf-8") as settings:
                settings.write(FAR.substitute(alias=HPC, base=self._places.work_base))

    def _site(self, *words: str, expect: int | None = 0) -> Ended:
        argv = ("sekisho", "site", *words, "--dir", ".")
        return self._shell.run(self._who, argv, expect=expect)
