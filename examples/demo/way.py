"""The author's way to the site by ssh: two keys, ssh's own settings, and what else a key is for."""

from __future__ import annotations

import getpass
import shutil
from dataclasses import dataclass
from pathlib import Path
from string import Template

from examples.demo.author import INPUTS, OUTPUTS, Answer, answer_of, input_words
from examples.demo.host import disconnect
from examples.demo.operator import SITE
from examples.demo.places import PROGRAMS, Places
from examples.demo.shell import Ended, Person, Shell
from examples.fatigue.site_model import FILE_NAME

BARE = "shop"
SOLVE = "solve"
KEYS = {SITE: "gate", BARE: "plain"}
_SETTINGS = Template("""\
[site.$site]
mode = "ssh"
host = "$site"
ssh_config = "ssh_config"

[site.$bare]
mode = "ssh"
kind = "bare"
host = "$bare"
ssh_config = "ssh_config"
base = "$base"

[site.$bare.program]
$solve = [
  "$program", "--area", "$area", "--tensile", "$tensile",
  "--yield", "$proof", "--solver", "{solver}",
]
""")
HOST = Template("""\
Host $name
  HostName 127.0.0.1
  Port $port
  User $user
  IdentityFile $key
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile $known
  GlobalKnownHostsFile /dev/null
""")


@dataclass(frozen=True, slots=True)
class Tried:
    """An attempt to use a key for something else: its name, and whether it succeeded."""

    name: str
    took: bool


class Way:
    """What the author types to get there."""

    def __init__(self, shell: Shell, places: Places) -> None:
        self._shell = shell
        self._places = places
        self._who = Person("author", places.workflow)

    def make_keys(self) -> None:
        """Make a key for each kind of site, and hand the public halves to the site's engineer."""
        for name in KEYS.values():
            argv = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "author", "-f", name)
            self._shell.run(self._who, argv)
            public = f"{name}.pub"
            shutil.copy(self._places.workflow / public, self._places.site / public)

    def set_up(self, host_key: str) -> list[str]:
        """Write the two files that say how the sites are reached; return what sekisho's says."""
        home = self._places.workflow
        shutil.copytree(PROGRAMS / "inputs", home / "inputs")
        kind, data = host_key.split()[:2]
        known = home / "known_hosts"
        known.write_text(f"[127.0.0.1]:{self._places.port} {kind} {data}\n", "ascii")
        rest = {"port": self._places.port, "user": getpass.getuser(), "known": known}
        hosts = [HOST.substitute(name=n, key=home / k, **rest) for n, k in KEYS.items()]
        (home / "ssh_config").write_text("".join(hosts), "utf-8")
        files = dict(zip(("area", "tensile", "proof"), INPUTS, strict=True))
        where = {"base": self._places.bare_base, "program": self._places.program}
        text = _SETTINGS.substitute(site=SITE, bare=BARE, solve=SOLVE, **where, **files)
        (home / "client.toml").write_text(text, "utf-8")
        self._shell.give(SEKISHO_CONFIG=str(home / "client.toml"))
        return text.splitlines()

    def check(self, site: str) -> Ended:
        """Let sekisho look at the way to ``site``."""
        return self._shell.run(self._who, ("sekisho", "site", "check", site), expect=None)

    def submit(self, command: str, solver: str) -> str:
        """Submit a job and go away; return its id."""
        inputs = input_words()
        wishes = [word for name in OUTPUTS for word in ("-o", name)]
        argv = ("sekisho", "submit", SITE, command, *inputs, "-p", f"solver={solver}", *wishes)
        return self._shell.run(self._who, argv, hidden=inputs).out.split()[0]

    def wait(self, job: str, into: str) -> Answer:
        """Go on with a job that was submitted before."""
        argv = ("sekisho", "wait", job, "--into", into, "--json")
        return answer_of(self._shell.run(self._who, argv))

    def solve(self, solver: str, *, command: str = SOLVE, into: str = "bare-results") -> Ended:
        """Run what was agreed with the bare site."""
        inputs = input_words()
        argv = ("sekisho", "run", BARE, command, *inputs, "-p", f"solver={solver}")
        argv = (*argv, "--into", into, "--json")
        return self._shell.run(self._who, argv, expect=None, hidden=inputs)

    def try_key(self, alias: str, canary: str) -> list[Tried]:
        """Try to read a secret, to copy it, and to get further, with the key of ``alias``."""
        secret = str(self._places.secrets / FILE_NAME)
        ssh = ("ssh", "-F", "ssh_config", "-S", "none", "-o", "BatchMode=yes")
        read = self._shell.run(self._who, (*ssh, alias, f"cat {secret}"), expect=None)
        taken = self._places.workflow / f"taken-{alias}"
        scp = ("scp", "-q", "-F", "ssh_config", f"{alias}:{secret}", taken.name)
        self._shell.run(self._who, scp, expect=None)
        beyond = f"127.0.0.1:{self._places.port}"
        further = self._shell.run(self._who, (*ssh, "-W", beyond, alias), expect=None)
        return [
            Tried("shell", canary in read.out + read.err),
            Tried("copy", taken.exists() and canary in taken.read_text("utf-8")),
            Tried("forward", "SSH-2.0" in further.out),
        ]

    def disconnect(self, sockets: Path) -> None:
        """End the connections that sekisho keeps below ``sockets`` for the next job."""
        disconnect(self._shell, self._who, sockets, SITE)
