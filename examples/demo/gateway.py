"""The story through a gateway: the agent stays there, the solver runs behind ssh and Slurm.

Mesh, material model and solver are on the computing host, and nothing of them on the gateway.
"""

from __future__ import annotations

import getpass
from pathlib import Path

from examples.demo import proof
from examples.demo.engineer import HPC, KEYS
from examples.demo.host import Host, disconnect, sockets
from examples.demo.places import Places
from examples.demo.screen import Screen
from examples.demo.shell import Person, Shell
from examples.demo.story import Story, Told
from examples.demo.way import HOST


class GatewayStory(Story):
    """Tells the story with a computing host at ``places.hpc``."""

    def __init__(self, screen: Screen, shell: Shell, places: Places) -> None:
        super().__init__(screen, shell, places)
        self._port = places.hpc_port or 0
        self._host = Host(shell, places.hpc, self._port)
        self._who = Person("engineer", places.site)
        self._sockets = places.root

    def tell(self, solver: str) -> Told:
        with sockets() as self._sockets:
            self._shell.give(XDG_RUNTIME_DIR=str(self._sockets))
            try:
                return super().tell(solver)
            finally:
                self._disconnect()

    def _set_up_site(self) -> list[str]:
        self._screen.section("gateway_way")
        key = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "gateway", "-f", "hpc_key")
        self._shell.run(self._who, key)
        site = self._places.site
        (self._places.hpc / KEYS).write_text((site / "hpc_key.pub").read_text("utf-8"), "utf-8")
        self._host.start()
        kind, data = self._host.public_key.split()[:2]
        known = site / "known_hosts"
        known.write_text(f"[127.0.0.1]:{self._port} {kind} {data}\n", "ascii")
        facts = {"port": self._port, "user": getpass.getuser(), "known": known}
        text = HOST.substitute(name=HPC, key=site / "hpc_key", **facts)
        (site / "ssh_config").write_text(text, "utf-8")
        return super()._set_up_site()

    def _look_at_slurm(self) -> None:
        super()._look_at_slurm()
        self._screen.check("gateway_login", ok=self._host.logins == 1, logins=self._host.logins)

    def _look_for_secrets(self, canaries: list[str]) -> None:
        super()._look_for_secrets(canaries)
        gateway: tuple[Path, ...] = (self._places.site,)
        leaks = [file for text in canaries for file in proof.files_with(text, gateway)]
        files, _ = proof.count_files(gateway)
        self._screen.check("gateway_clean", ok=not leaks, files=files, found=leaks)

    def _stop(self) -> None:
        self._chapters.stop(part=self._disconnect)

    def _disconnect(self) -> None:
        disconnect(self._shell, self._who, self._sockets, HPC)
