"""Ways to a host that the user's own ssh configuration knows: whole jobs go each of them.

Nothing of ours names a way: jump host, proxy, certificate, agent and second factor are ssh's.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.gated import SITE as GATED
from tests.gated import gate_line
from tests.sshd import Sshd, make_key, serving
from tests.two_sites import BARE, TwoSites, a_double, two_sites

NAME = "far.invalid"  #: only a proxy knows where that is


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[TwoSites]:
    with two_sites(tmp_path) as made:
        yield made


def whole_jobs(sites: TwoSites, place: Path) -> None:
    """Take one job with files through each of both sites."""
    with sites.client() as client:
        for site in (GATED, BARE):
            content = os.urandom(300_000)
            job = client.submit(a_double(place, site, content))
            job.result(place / f"back-{site}")
            assert (place / f"back-{site}" / "out.txt").read_bytes() == content * 2


def test_a_port_and_keys_of_the_configuration(sites: TwoSites, tmp_path: Path) -> None:
    whole_jobs(sites, tmp_path)
    assert sites.house.server.logins == 2  # one for each key


def test_a_jump_host(sites: TwoSites, tmp_path: Path) -> None:
    with serving(tmp_path / "bastion") as bastion:
        sites.way, sites.others = ["ProxyJump bastion"], bastion.alias("bastion")
        whole_jobs(sites, tmp_path)
        assert (bastion.logins, sites.house.server.logins) == (2, 2)


def test_a_jump_over_two_hosts(sites: TwoSites, tmp_path: Path) -> None:
    with serving(tmp_path / "one") as one, serving(tmp_path / "two") as two:
        sites.way = ["ProxyJump two"]
        sites.others = one.alias("one") + two.alias("two", extra=["ProxyJump one"])
        whole_jobs(sites, tmp_path)
        assert (one.logins, two.logins, sites.house.server.logins) == (2, 2, 2)


def test_a_proxy_command_through_a_bastion(sites: TwoSites, tmp_path: Path) -> None:
    with serving(tmp_path / "bastion") as bastion:
        config = shlex.quote(str(tmp_path / "ssh_config"))
        sites.way = [f"ProxyCommand ssh -F {config} -W %h:%p bastion"]
        sites.others = bastion.alias("bastion")
        whole_jobs(sites, tmp_path)
        assert (bastion.logins, sites.house.server.logins) == (2, 2)


def test_a_socks_proxy(sites: TwoSites, tmp_path: Path) -> None:
    with socks(sites.house.server.port) as (port, asked):
        sites.way = [f"HostName {NAME}", f"ProxyCommand nc.openbsd -X 5 -x 127.0.0.1:{port} %h %p"]
        whole_jobs(sites, tmp_path)
    assert asked == [f"{NAME}:{sites.house.server.port}"] * 2


@contextmanager
def socks(port: int) -> Iterator[tuple[int, list[str]]]:
    """Give the port of a SOCKS 5 proxy, and whom it was asked for; it leads to ``port`` only."""
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as door:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    near, _ = door.accept()
                    threading.Thread(target=lead, args=(near,), daemon=True).start()

        def lead(near: socket.socket) -> None:
            with near, near.makefile("rb", buffering=0) as said, suppress(OSError):
                count = exactly(said.read, 2)[1]
                exactly(said.read, count)
                near.sendall(b"\5\0")
                assert exactly(said.read, 4) == b"\5\1\0\3"  # a name, for the proxy to look up
                name = exactly(said.read, exactly(said.read, 1)[0]).decode()
                asked.append(f"{name}:{int.from_bytes(exactly(said.read, 2))}")
                with socket.create_connection(("127.0.0.1", port)) as far:
                    near.sendall(b"\5\0\0\1\0\0\0\0\0\0")
                    back = threading.Thread(target=pump, args=(far, near), daemon=True)
                    back.start()
                    pump(near, far)
                    back.join(60)

        threading.Thread(target=serve, daemon=True).start()
        yield door.getsockname()[1], asked


def exactly(read: Callable[[int], bytes], count: int) -> bytes:
    found = b""
    while len(found) < count:
        more = read(count - len(found))
        if not more:
            raise OSError
        found += more
    return found


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


# ------------------------------------------------------------------------- certificates


def signed(authority: Path, key: Path, *options: str) -> None:
    """Make a certificate for ``key``, beside it."""
    argv = ["ssh-keygen", "-q", "-s", str(authority), "-I", "trial", *options, f"{key}.pub"]
    subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL)


def certificates_seen(server: Sshd) -> int:
    words = server.log.read_text("utf-8", "replace").splitlines()
    return sum("Accepted publickey" in line and "CERT" in line for line in words)


def test_certificates_instead_of_listed_keys(tmp_path: Path) -> None:
    """A site may list its authority, bound to the gate like any key: whoever it signed is in."""
    authority = make_key(tmp_path / "authority")
    lines = [f"TrustedUserCAKeys {authority}.pub"]
    with two_sites(tmp_path, lines=lines) as sites:
        house = sites.house
        gates = make_key(tmp_path / "gates")
        user = house.server.user
        signed(authority, house.plain, "-n", user)
        signed(gates, house.key, "-n", user)
        text = gates.with_suffix(".pub").read_text()
        house.server.authorize(f"cert-authority,{gate_line(house.site, text)}")
        whole_jobs(sites, tmp_path)
        assert certificates_seen(house.server) == house.server.logins == 2
        refused = subprocess.run(
            ["ssh", "-F", str(tmp_path / "ssh_config"), "-T", "gate-host", "echo", "inside"],
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert b"inside" not in refused.stdout


def test_a_certificate_that_itself_names_the_gate(tmp_path: Path) -> None:
    authority = make_key(tmp_path / "authority")
    with two_sites(tmp_path, lines=[f"TrustedUserCAKeys {authority}.pub"]) as sites:
        house = sites.house
        line = gate_line(house.site, house.key.with_suffix(".pub").read_text())
        command = line.partition('command="')[2].partition('"')[0]
        user = house.server.user
        bound = ("-O", "clear", "-O", f"force-command={command}")
        signed(authority, house.key, "-n", user, *bound)
        signed(authority, house.plain, "-n", user)
        house.server.authorize()
        whole_jobs(sites, tmp_path)
        assert certificates_seen(house.server) == 2


def test_a_host_that_shows_a_certificate_of_a_known_authority(
    sites: TwoSites, tmp_path: Path
) -> None:
    server = sites.house.server
    authority = make_key(tmp_path / "authority")
    signed(authority, server.place / "host", "-h", "-n", "far")
    server.stop()
    config = server.place / "sshd_config"
    config.write_text(f"HostCertificate {server.place}/host-cert.pub\n{config.read_text()}")
    server.start()
    known = tmp_path / "known"
    known.write_text(f"@cert-authority far {authority.with_suffix('.pub').read_text()}")
    sites.way = [f"UserKnownHostsFile {known}", "HostKeyAlias far"]
    whole_jobs(sites, tmp_path)


# -------------------------------------------------------------------- agents, factors


def test_keys_that_only_an_agent_has(sites: TwoSites, tmp_path: Path) -> None:
    place = sites.runtime / "agent"
    with subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(place)], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    ) as agent:
        try:
            while not place.exists():
                assert agent.poll() is None
            keys = (sites.house.key, sites.house.plain)
            subprocess.run(
                ["ssh-add", "-q", *map(str, keys)],
                env={**os.environ, "SSH_AUTH_SOCK": str(place)},
                check=True,
                stdin=subprocess.DEVNULL,
            )
            for key in keys:  # the public half stays, to say which one is meant
                key.unlink()
            sites.way = [f"IdentityAgent {place}"]
            whole_jobs(sites, tmp_path)
        finally:
            agent.terminate()
    assert sites.house.server.logins == 2
