"""The machines that a page speaks of: folders with a login session each, and real servers.

Host names are replaced in one way, for every page: the address of the documents' broker by the
loopback address with a port that is free, and listening everywhere by listening there; that of its
database by a real server's; and a disk of a machine's own by a folder.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sysconfig
import threading
from contextlib import ExitStack
from pathlib import Path

import trustme

from tests.docs.page import ROOT, Block, Directive, pieces
from tests.postgres import a_database
from tests.sshd import serving

BROKER = "broker.example.jp:50443"
DATABASE = "postgresql://sekisho:PASSWORD@db.example.jp/sekisho"
DISK = "/scratch"
READY = {"broker": "broker_ready", "site": "agent_started"}
SECONDS = 600
_PASSED = ("PIP_", "SSL_", "http", "HTTP", "no_proxy", "NO_PROXY", "REQUESTS_")


class Machines:
    """Runs pages below ``root``. Leave the context to stop every server."""

    def __init__(self, root: Path) -> None:
        self._root = root
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._servers: list[subprocess.Popen[str]] = []
        self._others = ExitStack()
        self._database = DATABASE
        self.output: list[str] = []

    def __enter__(self) -> Machines:
        return self

    def __exit__(self, *_: object) -> None:
        self._others.close()
        for server in reversed(self._servers):
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
            if server.stdout is not None:
                server.stdout.close()

    def follow(self, page: str, only: tuple[str, ...] = ()) -> None:
        """Execute a page; with ``only``, the set-up of these machines alone."""
        for piece in pieces(page):
            if isinstance(piece, Directive):
                if piece.words == ("set", "up") and only:
                    return
                self._do(*piece.words)
            elif piece.language in ("sh", "python") and (not only or piece.words[0] in only):
                self._execute(piece)

    def _execute(self, block: Block) -> None:
        machine, *kind = block.words
        text = self._localised(block.text)
        if kind == ["server"]:
            self._serve(machine, text)
        elif block.language == "python":
            self._type(machine, f"python - <<'END_OF_BLOCK'\n{text}END_OF_BLOCK")
        else:
            self._type(machine, text)

    def _localised(self, text: str) -> str:
        text = text.replace(BROKER, f"127.0.0.1:{self._port}")
        text = text.replace(DISK, f"{self._root}{DISK}").replace(DATABASE, self._database)
        return text.replace("0.0.0.0 --port 50443", f"127.0.0.1 --port {self._port}")

    def _type(self, machine: str, text: str) -> None:
        """Type a block into the machine's shell; what it exports is there in the next one."""
        home = self._home(machine)
        script = f"set -euo pipefail\n. {home}/.session\n{text}\nexport -p >{home}/.session\n"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=ROOT if machine == "everywhere" else home,
            env=self._environ(machine),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        self.output.append(done.stdout)
        assert done.returncode == 0, f"on {machine}:\n{text}\n{done.stdout}"

    def _serve(self, machine: str, text: str) -> None:
        home = self._home(machine)
        server = subprocess.Popen(
            ["bash", "-c", f". {home}/.session\nexec {text}"],
            cwd=home,
            env=self._environ(machine),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._servers.append(server)
        ready = threading.Event()
        said: list[str] = []

        def read() -> None:
            assert server.stdout is not None
            for line in server.stdout:
                said.append(line)
                if READY[machine] in line:
                    ready.set()

        threading.Thread(target=read, daemon=True).start()
        assert ready.wait(30), f"on {machine}: {text}\n{''.join(said)}"

    def _do(self, verb: str, *words: str) -> None:
        match verb, *words:
            case ["after", page, *machines]:
                self.follow(page, tuple(machines))
            case ["copy", source, target]:
                for machine in (source, target):
                    self._home(machine.split("/")[0])
                shutil.copy2(self._root / source, self._root / target)
            case ["sshd", alias, machine]:
                self._open(alias, self._home(machine))
            case ["database"]:
                self._database = self._others.enter_context(a_database())
            case ["certificate", machine]:
                self._certify(self._home(machine))
            case ["set", "up"]:
                pass
            case _:
                raise AssertionError((verb, words))

    def _certify(self, home: Path) -> None:
        """Put there what an operator has from the organisation's authority."""
        authority = trustme.CA()
        server = authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(str(home / "broker-ca.pem"))
        server.private_key_and_cert_chain_pem.write_to_path(str(home / "server.key"))
        for n, part in enumerate(server.cert_chain_pems):
            part.write_to_path(str(home / "server.pem"), append=n > 0)

    def _open(self, alias: str, home: Path) -> None:
        """Have an sshd let in whom the machine's people let in, and the workflow side know the way.

        An ssh looks for its settings where the user lives, not where a test says that home is.
        """
        keys = [f"AuthorizedKeysFile {home}/.ssh/authorized_keys"]
        server = self._others.enter_context(serving(home / "sshd", lines=keys))
        workflow = self._home("workflow")
        with (workflow / ".ssh" / "config").open("a") as config:
            config.write(server.alias(alias, key=workflow / ".ssh" / "id_ed25519"))
        ssh = workflow / "bin" / "ssh"
        ssh.parent.mkdir(exist_ok=True)
        ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F "$HOME/.ssh/config" "$@"\n')
        ssh.chmod(0o755)

    def _home(self, machine: str) -> Path:
        home = self._root / machine
        if not home.exists():
            home.mkdir(mode=0o700)
            (home / ".session").touch()
        return home

    def _environ(self, machine: str) -> dict[str, str]:
        installed = self._root / "everywhere" / "sekisho" / "bin"
        places = [str(self._home(machine) / "bin")]
        places += [str(installed)] if installed.exists() else []
        places += [sysconfig.get_path("scripts"), os.environ["PATH"]]
        environ = {
            "PATH": os.pathsep.join(places),
            "HOME": str(self._home(machine)),
            "LC_ALL": "C.UTF-8",
        }
        if machine == "everywhere":  # it installs, from where the machine is configured to
            cache = os.environ.get("PIP_CACHE_DIR", str(Path.home() / ".cache" / "pip"))
            environ |= {k: v for k, v in os.environ.items() if k.startswith(_PASSED)}
            environ |= {"PIP_CACHE_DIR": cache, "PIP_NO_COMPILE": "1"}  # little of it is ever used
            environ |= {"PYTEST_ADDOPTS": "--collect-only -q"}
        return environ
