"""The hosts on which a site's commands run: this machine, and those that its settings name.

One object for each host, so that all jobs share its connection, its logins and its backoff.
"""

from __future__ import annotations

from sekisho.adapters.hosts.far import FarHost
from sekisho.adapters.hosts.far_files import FarFiles
from sekisho.adapters.hosts.host_local import LocalHost
from sekisho.adapters.hosts.ssh import SshAddress, SshHost
from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.adapters.workplace_ssh import SshWorkplace
from sekisho.config.site import HostTable, SiteFiles
from sekisho.domain.errors import Unavailable
from sekisho.domain.resources import LOCAL, SSH
from sekisho.site.host import Host
from sekisho.site.workplace import Workplace


class Hosts:
    """Finds hosts, and the directories of jobs there, by the name that a command gives.

    ``local`` keeps the jobs' directories on this machine. Every method raises
    Unavailable(`host.unknown`) for a host that the settings do not have.
    """

    def __init__(self, files: SiteFiles, local: LocalWorkplace) -> None:
        self._files = files
        self._local = local
        self._far: dict[str, FarFiles] = {}

    def host(self, name: str) -> Host:
        return LocalHost() if name == LOCAL else self.far(name).host

    def workplace(self, name: str) -> Workplace:
        if name == LOCAL:
            return self._local
        spare = self._table(name).spare_bytes
        return SshWorkplace(self.far(name), self._local, spare_bytes=spare)

    def far(self, name: str) -> FarFiles:
        """Return the directories of jobs on the computing host ``name``."""
        table = self._table(name)
        if name not in self._far:
            config = None if table.ssh_config is None else self._files.at(table.ssh_config)
            address = SshAddress(
                host=name.removeprefix(SSH),
                config_file=config,
                logins_per_minute=table.logins_per_minute,
            )
            self._far[name] = FarFiles(FarHost(SshHost(address)), table.base)
        return self._far[name]

    def _table(self, name: str) -> HostTable:
        table = self._files.settings.host.get(name.removeprefix(SSH))
        if table is None or not name.startswith(SSH):
            raise Unavailable("host.unknown", host=name)
        return table
