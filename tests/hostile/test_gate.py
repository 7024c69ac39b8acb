"""A hostile caller with a gate key: whatever it tries, it hears the protocol and nothing else.

The server permits everything it can, so that only the key's line and the gate stand in the way.
Each attempt has its control: the same thing with a plain key does what it is meant to.
Origins: the manual pages of sshd, authorized_keys and ssh; rrsync's and git-shell's past holes.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import pytest

from sekisho.client.client import new_job_id
from sekisho.client.spec import JobSpec
from sekisho.wire.frames import Chunk, digest_of, frame, pack_chunks, pack_digests
from sekisho.wire.stdio import MAX_PACKET_BYTES, Answer
from tests.gated import GatedHouse, gate_client, gated_house

#: As permissive as a server can be; what is left to hold is `restrict` and the forced command.
OPEN: Final = (
    "AcceptEnv LANG LC_* PYTHON* SEKISHO_* XDG_* TERM COLUMNS",
    "AllowTcpForwarding yes",
    "AllowStreamLocalForwarding yes",
    "AllowAgentForwarding yes",
    "GatewayPorts yes",
    "PermitTTY yes",
    "X11Forwarding yes",
    "PermitUserRC yes",
    "MaxSessions 64",
    "MaxStartups 100",
    "SetEnv HOME=/nonexistent",  # the files of whoever runs these tests say things of their own
)
BANNER: Final = b"inside\n"


@dataclass
class Prison:
    """The house, and what must stay inside: a word in a file, and a file that nobody may make."""

    house: GatedHouse
    place: Path
    canary: str
    port: int

    @property
    def secret(self) -> Path:
        return self.house.site.home / "secret"

    @property
    def made(self) -> Path:
        return self.place / "made"

    def ssh(self, key: Path, *, shared: bool = True) -> list[str]:
        """Return the beginning of an ssh command line; a shared connection costs no login."""
        config = self.place / f"config.{key.name}"
        if not config.exists():
            config.write_text(self.house.server.alias("far", key=key, extra=("SendEnv *",)))
        control = ["-S", str(self.sockets / key.name)] if shared else ["-S", "none"]
        return ["ssh", "-F", str(config), "-o", "BatchMode=yes", "-o", "LogLevel=QUIET", *control]

    @property
    def sockets(self) -> Path:
        return Path(f"/tmp/sk-hostile-{os.getpid()}")

    def filled(self, text: str) -> str:
        return text.replace("{made}", str(self.made)).replace("{secret}", str(self.secret))


@dataclass(frozen=True)
class Heard:
    """What came back."""

    out: bytes
    err: bytes
    code: int


@pytest.fixture(scope="module")
def prison(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prison]:
    place = tmp_path_factory.mktemp("prison")
    with gated_house(place, lines=OPEN) as house, banner_server() as port:
        made = Prison(house, place, secrets.token_hex(16), port)
        made.secret.write_text(made.canary)
        made.sockets.mkdir(mode=0o700)
        keys = (house.key, house.plain, house.others)
        for key in keys:
            subprocess.run([*made.ssh(key), "-M", "-N", "-f", "far"], check=True)
        try:
            yield made
        finally:
            for key in keys:
                subprocess.run([*made.ssh(key), "-O", "exit", "far"], check=False)
            shutil.rmtree(made.sockets)


@contextmanager
def banner_server() -> Iterator[int]:
    """Give the port of a server at the site that greets whoever reaches it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with suppress(OSError):
                while True:
                    caller, _ = server.accept()
                    with caller:
                        caller.sendall(BANNER)

        greeter = threading.Thread(target=greet)
        greeter.start()
        try:
            yield int(server.getsockname()[1])
        finally:
            server.shutdown(socket.SHUT_RDWR)
            greeter.join()


def tried(
    prison: Prison,
    key: Path,
    flags: tuple[str, ...],
    *words: str,
    said: bytes = b"",
    sent: tuple[str, str] | None = None,
) -> Heard:
    """Call the site with ``key``, ssh's ``flags`` and a remote command; say ``said`` to it."""
    name, value = sent or ("LC_NONE", "")
    argv = [*prison.ssh(key), *flags, "--", "far", *words]
    env = {**os.environ, name: value}
    ended = subprocess.run(argv, input=said, capture_output=True, check=False, timeout=60, env=env)
    return Heard(ended.stdout, ended.stderr, ended.returncode)


def answers(out: bytes) -> list[Answer]:
    """Return the answers in ``out``; fail when it is anything but packets of the protocol."""
    found = []
    while out:
        kind, length = struct.unpack(">cI", out[:5])
        assert kind in b"MDEP", out[:80]
        payload, out = out[5 : 5 + length], out[5 + length :]
        assert len(payload) == length
        if kind == b"M":
            found.append(msgspec.json.decode(payload, type=Answer))
    return found


def harmless(prison: Prison, heard: Heard) -> list[Answer]:
    """Check that nothing but the protocol came back, and nothing happened; return the answers."""
    for stream in (heard.out, heard.err):
        assert prison.canary.encode() not in stream
        assert str(prison.place).encode() not in stream
        assert b"Traceback" not in stream
    assert heard.err == b""
    assert not prison.made.exists()
    return answers(heard.out)


def message(verb: str, **fields: object) -> bytes:
    return packet(b"M", msgspec.json.encode({"verb": verb, **fields}))


def packet(kind: bytes, payload: bytes = b"") -> bytes:
    return kind + struct.pack(">I", len(payload)) + payload


# ---------------------------------------------------------------------------- commands

MAKE: Final = [
    "touch {made}",
    "touch\t{made}",
    "true; touch {made}",
    "true && touch {made}",
    "false || touch {made}",
    "true | touch {made}",
    "true & touch {made}",
    "\ntouch {made}",
    "true\r\ntouch {made}",
    "$(touch {made})",
    "`touch {made}`",
    "${x:-$(touch {made})}",
    '"$(touch {made})"',
    "exec touch {made}",
    "eval touch {made}",
    "sh -c 'touch {made}'",
    "sh -c \"touch '{made}'\"",
    "bash -lc 'touch {made}'",
    "env -i touch {made}",
    'python3 -c \'open("{made}","w")\'',
    "> {made}",
    "cat > {made}",
    "tee {made}",
    "dd of={made}",
    "cp /bin/true {made}",
    "ln -s / {made}",
    "mkdir {made}",
    "mkfifo {made}",
    "nohup touch {made} &",
    "setsid touch {made}",
    "trap 'touch {made}' EXIT",
    "test x; touch {made} #",
    "true --help; touch {made}",
    "sekisho; touch {made}",
    "'' ; touch {made}",
    "\\\ntrue; touch {made}",
    "$SHELL -c 'touch {made}'",
    "scp -t {made}",
    "rsync --server -e.LsfxCIvu --log-file={made} . /",
]
PRINT: Final = [
    "cat {secret}",
    "cat < {secret}",
    "base64 -w0 {secret} | base64 -d",
    "dd if={secret} status=none",
    "tar c {secret}",
    "head -c 100 {secret}",
    "grep -r '' {secret}",
    "sed p {secret}",
    "sh {secret}; cat {secret}",
    'printf %s "$(cat {secret})"',
    "while read -r x; do echo $x; done < {secret}; cat {secret}",
    "env SECRET=$(cat {secret}) env",
]
ANSWER: Final = [
    "scp -f /etc/hostname",
    "rsync --server --sender -e.LsfxCIvu . /etc",
    "rsync --server --daemon --config=/dev/null .",
    "rsync --server --sender --copy-links --files-from=/etc/hostname . /",
    "env",
    "printenv SSH_ORIGINAL_COMMAND",
    "id",
    "ls -la /",
]
NO_ANSWER: Final = [
    "/usr/lib/openssh/sftp-server",
    "/usr/lib/openssh/sftp-server -R",
    "; touch {made}",
    "() { :;}; touch {made}",
    "--help; touch {made}",
    "sekisho site gate --dir / --submitter bob",
    "--submitter bob",
    "--dir / --submitter root",
    "-h",
    "--version",
    "internal-sftp",
    "git-upload-pack '/etc'",
    "git-receive-pack '/etc'",
    "cvs server",
    "identity",
    '{"verb":"jobs"}',
    "%h %u %n",
    "!!",
    "*",
    "~root",
    "\udcff\udcfe",
    "x" * 100_000,
]


@pytest.mark.parametrize("command", [*MAKE, *PRINT, *ANSWER, *NO_ANSWER])
def test_a_command_is_not_heard(prison: Prison, command: str) -> None:
    heard = tried(prison, prison.house.key, ("-T",), prison.filled(command))
    assert harmless(prison, heard) == []


@pytest.mark.parametrize("command", MAKE[:-2])
def test_with_a_plain_key_it_does_what_it_says(prison: Prison, command: str) -> None:
    tried(prison, prison.house.plain, ("-T",), prison.filled(command))
    there = prison.made.is_symlink() or prison.made.exists()
    removed(prison.made)
    assert there


@pytest.mark.parametrize("command", PRINT)
def test_with_a_plain_key_it_tells_the_secret(prison: Prison, command: str) -> None:
    heard = tried(prison, prison.house.plain, ("-T",), prison.filled(command))
    assert prison.canary.encode() in heard.out


@pytest.mark.parametrize("command", [c for c in ANSWER if "SSH_ORIGINAL" not in c])
def test_with_a_plain_key_it_answers(prison: Prison, command: str) -> None:
    heard = tried(prison, prison.house.plain, ("-T",), command, said=b"\0\0\0\5\1\0\0\0\3")
    removed(prison.made)
    assert heard.out


def test_a_command_line_of_a_mebibyte_starts_nothing(prison: Prison) -> None:
    words = [f"; touch {prison.made} #" + "x" * 100_000 for _ in range(11)]
    heard = tried(prison, prison.house.key, ("-T",), *words)
    assert heard.code != 0
    assert heard.out == b""
    assert str(prison.place).encode() not in heard.err
    assert not prison.made.exists()


def removed(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


# -------------------------------------------------------- terminals, environment, agents

TERMINAL: Final = [
    ("-t",),
    ("-tt",),
    ("-tt", "-o", "EscapeChar=none"),
    ("-tt", "-e", "^"),
    ("-tt", "-o", "SetEnv=TERM=xterm COLUMNS=99999"),
]


@pytest.mark.parametrize("flags", TERMINAL)
def test_there_is_no_terminal(prison: Prison, flags: tuple[str, ...]) -> None:
    said = b"touch " + str(prison.made).encode() + b"\n\x03\x1a\x04~.\n"
    heard = tried(prison, prison.house.key, flags, said=said)
    assert harmless(prison, heard) == []


def test_with_a_plain_key_there_is_one(prison: Prison) -> None:
    heard = tried(prison, prison.house.plain, ("-tt",), "tty", said=b"\n")
    assert b"/dev/pts/" in heard.out


ENVIRONMENT: Final = [
    "LC_MESSAGES=../../../../etc/passwd",
    "LC_PAPER=ja_JP.SJIS",
    "LANG=$(touch {made})",
    "LC_MADE=() { :;}; touch {made}",
    "PYTHONPATH={made}",
    "PYTHONSTARTUP={secret}",
    "PYTHONHOME=/nonexistent",
    "PYTHONINSPECT=1",
    "PYTHONVERBOSE=3",
    "PYTHONDUMPREFS=1",
    "PYTHONFAULTHANDLER=1",
    "PYTHONWARNINGS=always",
    "PYTHONPROFILEIMPORTTIME=1",
    "PYTHONUNBUFFERED=1",
    "PYTHONIOENCODING=utf-7",
    "PYTHONMALLOC=debug",
    "PYTHONBREAKPOINT=os.system",
    "PYTHONUSERBASE={made}",
    "PYTHONPYCACHEPREFIX={made}",
    "SEKISHO_SITE__STATE_DIR={made}",
    "SEKISHO_SITE__MANIFEST={secret}",
    "SEKISHO_BROKER__URL=x",
    "SEKISHO_CRASHPOINT=file.begun",
    "SEKISHO_CRASHPOINT=nonsense",
    "SEKISHO_LANG=ja",
    "XDG_CONFIG_HOME={made}",
]


@pytest.mark.parametrize("setting", ENVIRONMENT)
def test_the_environment_is_not_heard(prison: Prison, setting: str) -> None:
    name, _, value = prison.filled(setting).partition("=")
    heard = tried(prison, prison.house.key, ("-T",), said=message("identity"), sent=(name, value))
    (answer,) = harmless(prison, heard)
    assert msgspec.json.decode(answer.body)["name"] == "alice"
    with_shell = tried(prison, prison.house.plain, ("-T",), "env", sent=(name, value))
    assert f"{name}={value}".encode() in with_shell.out


@pytest.mark.parametrize("name", ["LD_PRELOAD", "LD_LIBRARY_PATH", "BASH_ENV", "ENV", "PATH"])
def test_what_the_server_does_not_accept_does_not_arrive(prison: Prison, name: str) -> None:
    argv = [*prison.ssh(prison.house.key, shared=False), "-o", f"SetEnv={name}={prison.secret}"]
    ended = subprocess.run(
        [*argv, "far"], input=message("identity"), capture_output=True, check=False, timeout=60
    )
    (answer,) = harmless(prison, Heard(ended.stdout, ended.stderr, ended.returncode))
    assert answer.problem is None


# ---------------------------------------------------------- forwardings and subsystems

FORWARDINGS: Final = [
    ("-W", "127.0.0.1:{port}"),
    ("-W", "localhost:{port}"),
    ("-W", "[::ffff:127.0.0.1]:{port}"),
    ("-W", "127.1:{port}"),
    ("-W", "0.0.0.0:{port}"),
]


@pytest.mark.parametrize("flags", FORWARDINGS)
def test_nobody_is_reached_through_the_gate(prison: Prison, flags: tuple[str, ...]) -> None:
    flags = tuple(flag.replace("{port}", str(prison.port)) for flag in flags)
    assert harmless(prison, tried(prison, prison.house.key, flags)) == []
    assert tried(prison, prison.house.plain, flags).out == BANNER


@pytest.mark.parametrize("kind", ["-L", "-D", "-R", "-R*", "-Rsocket", "-RD"])
def test_a_port_leads_nowhere(prison: Prison, kind: str) -> None:
    assert not forwarded(prison, prison.house.key, kind)
    assert forwarded(prison, prison.house.plain, kind)
    harmless(prison, Heard(b"", b"", 0))


def forwarded(prison: Prison, key: Path, kind: str) -> bool:
    """Ask the running connection for a forwarding; say whether somebody is reached through it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    there = f"127.0.0.1:{prison.port}"
    inside = prison.place / f"socket-{key.name}"
    rule = {
        "-L": ("-L", f"{port}:{there}"),
        "-D": ("-D", str(port)),
        "-R": ("-R", f"{port}:{there}"),
        "-R*": ("-R", f"*:{port}:{there}"),
        "-Rsocket": ("-R", f"{inside}:{there}"),
        "-RD": ("-R", str(port)),
    }[kind]
    asked = [*prison.ssh(key), "-O", "forward", *rule, "far"]
    if subprocess.run(asked, capture_output=True, check=False, timeout=60).returncode != 0:
        return False
    try:
        return reached(prison, kind, port, inside)
    finally:
        cancel = [*prison.ssh(key), "-O", "cancel", *rule, "far"]
        subprocess.run(cancel, capture_output=True, check=False, timeout=60)


def reached(prison: Prison, kind: str, port: int, inside: Path) -> bool:
    family = socket.AF_UNIX if kind == "-Rsocket" else socket.AF_INET
    with socket.socket(family) as caller:
        caller.settimeout(10)
        try:
            caller.connect(str(inside) if kind == "-Rsocket" else ("127.0.0.1", port))
            if kind in ("-D", "-RD"):
                target = socket.inet_aton("127.0.0.1")
                caller.sendall(b"\x04\x01" + struct.pack(">H", prison.port) + target + b"\0")
                if caller.recv(8)[1:2] != b"\x5a":
                    return False
            return caller.recv(100) == BANNER
        except OSError:
            return False


@pytest.mark.parametrize("flags", [("-A",), ("-X",), ("-Y",), ("-A", "-X", "-tt")])
def test_neither_agent_nor_display_is_taken_along(prison: Prison, flags: tuple[str, ...]) -> None:
    env = {**os.environ, "DISPLAY": "127.0.0.1:99"}
    with agent() as place:
        flags = (*flags, "-o", f"IdentityAgent={place}")
        argv = [*prison.ssh(prison.house.key, shared=False), *flags, "far"]
        said = message("identity")
        ended = subprocess.run(
            argv, input=said, capture_output=True, check=False, timeout=60, env=env
        )
        plain = [*prison.ssh(prison.house.plain, shared=False), *flags, "far", "env"]
        control = subprocess.run(
            plain, input=b"", capture_output=True, check=False, timeout=60, env=env
        )
    assert control.returncode == 0
    if "-A" in flags:
        assert b"SSH_AUTH_SOCK=" in control.stdout
    if "-tt" not in flags:
        (answer,) = harmless(prison, Heard(ended.stdout, ended.stderr, ended.returncode))
        assert answer.problem is None


@contextmanager
def agent() -> Iterator[Path]:
    """Give the socket of an agent of keys."""
    place = Path(f"/tmp/sk-agent-{os.getpid()}")
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(place)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 10
        while not place.exists() and time.monotonic() < end:
            process.poll()
        yield place
    finally:
        process.terminate()
        process.wait()
        place.unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["sftp", "netconf", "shell", "/bin/sh", "sftp-server -R"])
def test_a_subsystem_is_the_gate(prison: Prison, name: str) -> None:
    heard = tried(prison, prison.house.key, ("-s",), name, said=b"\0\0\0\5\1\0\0\0\3")
    assert harmless(prison, heard) == []


def test_no_program_that_copies_files_gets_through(prison: Prison, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    programs = copies(prison, prison.house.key, tmp_path)
    with ThreadPoolExecutor(len(programs)) as threads:
        assert 0 not in list(threads.map(copied, programs))
    assert not (tmp_path / "got").exists()
    assert not prison.made.exists()


def test_with_a_plain_key_each_does(prison: Prison, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    for program in copies(prison, prison.house.plain, tmp_path):
        code = copied(program)
        there = (tmp_path / "got").exists() or prison.made.exists()
        removed(tmp_path / "got")
        removed(prison.made)
        assert (code, there) == (0, True), program


def copied(program: list[str]) -> int | None:
    """Run a program that copies; return its status, None when it waits in vain."""
    with subprocess.Popen(
        program,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            return process.wait(6)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None


def copies(prison: Prison, key: Path, here: Path) -> list[list[str]]:
    ssh = prison.ssh(key)
    flags = ssh[1:]
    batch_out, batch_in = here / "out.batch", here / "in.batch"
    batch_out.write_text(f"get {prison.secret} {here}/got\n")
    batch_in.write_text(f"put {here}/mine {prison.made}\n")
    options = [word for word in flags if word not in ("-S", str(prison.sockets / key.name))]
    shared = ["-o", f"ControlPath={prison.sockets / key.name}"]
    rsync = ["rsync", "-e", " ".join(ssh)]
    return [
        ["scp", *options, *shared, f"far:{prison.secret}", f"{here}/got"],
        ["scp", *options, *shared, f"{here}/mine", f"far:{prison.made}"],
        ["scp", "-O", *options, *shared, f"far:{prison.secret}", f"{here}/got"],
        ["scp", "-O", "-r", *options, *shared, f"{here}/mine", f"far:{prison.made}"],
        ["sftp", *options, *shared, "-b", str(batch_out), "far"],
        ["sftp", *options, *shared, "-b", str(batch_in), "far"],
        [*rsync, "-a", f"far:{prison.secret}", f"{here}/got"],
        [*rsync, "-aL", "--copy-unsafe-links", f"far:{prison.secret}", f"{here}/got"],
        [*rsync, "-a", f"{here}/mine", f"far:{prison.made}"],
        [*rsync, "-a", "--inplace", f"{here}/mine", f"far:{prison.made}"],
        [*rsync, "-a", "--protect-args", f"{here}/mine", f"far:{prison.made}"],
        [
            *rsync,
            "-a",
            f"--rsync-path=touch {prison.made}; rsync",
            "far:/etc/hostname",
            f"{here}/got",
        ],
    ]


# ------------------------------------------------------------------------ the protocol

JOB: Final = "job_" + "0" * 26
GARBLED: Final = {
    "nothing": b"",
    "one byte": b"M",
    "half a head": b"M\0\0",
    "half a message": packet(b"M", b"{}")[:-1],
    "an unknown kind": packet(b"X", b"{}"),
    "a kind of zero": packet(b"\0", b"{}"),
    "a line of text": b"GET / HTTP/1.1\r\n\r\n",
    "a terminal's words": b"ls -la\nexit\n",
    "the greatest length": b"M\xff\xff\xff\xff",
    "a length above the limit": b"M" + struct.pack(">I", MAX_PACKET_BYTES + 1),
    "the greatest packet": packet(b"M", b" " * MAX_PACKET_BYTES),
    "no JSON": packet(b"M", b"\x80\x81"),
    "empty": packet(b"M", b""),
    "null": packet(b"M", b"null"),
    "a list": packet(b"M", b"[]"),
    "depth": packet(b"M", b"[" * 100_000),
    "depth in the body": packet(b"M", b'{"verb":"submit","body":' + b"[" * 100_000),
    "a number of a million digits": packet(
        b"M", b'{"verb":"view","version":' + b"9" * 900_000 + b"}"
    ),
    "not a number": packet(b"M", b'{"verb":"view","wait_s":NaN}'),
    "a lone surrogate": packet(b"M", b'{"verb":"\\ud800"}'),
    "an unknown verb": message("shell"),
    "a verb of another kind": message("identity")[:5] + b'{"verb": 1}',
    "a dunder": message("__class__"),
    "data first": packet(b"D", b"x"),
    "an end first": packet(b"E"),
    "a problem first": packet(b"P", b"{}"),
    "data after a plain call": message("identity") + packet(b"D", b"x") + packet(b"E"),
    "a wait without end": message("view", job=JOB, wait_s=1e9),
    "a wait of less than nothing": message("view", job=JOB, wait_s=-1),
    "a problem for data": message("put", job=JOB) + packet(b"P", b"{}"),
    "a whole problem for data": message("put", job=JOB)
    + packet(b"P", b'{"type":"x","status":1,"code":"x","params":{}}'),
    "a call within data": message("put", job=JOB) + message("identity"),
    "no end of data": message("missing", job=JOB) + packet(b"D", b"\0" * 36),
    "NUL": b"\0" * 4096,
    "noise": bytes(range(256)) * 16,
    "a path for a job": message("view", job="../../etc/passwd"),
    "an absolute path for a job": message("view", job="/etc/passwd"),
    "a path within a job": message("view", job="job_/../" + "0" * 18),
    "NUL in a job": message("view", job=JOB[:-1] + "\0"),
    "a line end in a job": message("view", job=JOB + "\n"),
    "capitals in a job": message("view", job=JOB.upper()),
    "no job": message("view"),
    "a job of no text": message("view", job=1),
    "a path for a page": message("jobs", after="../.."),
}


@pytest.mark.parametrize("said", GARBLED.values(), ids=GARBLED.keys())
def test_what_is_no_call_ends_the_conversation(prison: Prison, said: bytes) -> None:
    heard = tried(prison, prison.house.key, ("-T",), said=said)
    told = harmless(prison, heard)
    assert heard.code in (0, 76)
    assert all(a.problem is not None or b'"alice"' in bytes(a.body) for a in told)


REFUSED: Final = {
    "an unknown job": (message("view", job=JOB), "job.not_found"),
    "a start of an unknown job": (message("start", job=JOB), "job.not_found"),
    "a cancel of an unknown job": (message("cancel", job=JOB), "job.not_found"),
    "outputs of an unknown job": (
        message("fetch", job=JOB) + packet(b"D", pack_digests([digest_of(b"")])) + packet(b"E"),
        "job.not_found",
    ),
    "inputs of an unknown job": (
        message("put", job=JOB) + packet(b"D", frame(digest_of(b"x"), b"x")) + packet(b"E"),
        "job.not_found",
    ),
    "half a digest": (
        message("missing", job=JOB) + packet(b"D", b"\0" * 35) + packet(b"E"),
        "message.invalid",
    ),
    "a chunk above the limit": (
        message("missing", job=JOB)
        + packet(b"D", pack_chunks([Chunk("0" * 64, (1 << 32) - 1)]))
        + packet(b"E"),
        "chunk.too_large",
    ),
    "too many digests": (
        message("fetch", job=JOB) + packet(b"D", b"\0" * 32 * 16_385) + packet(b"E"),
        "message.too_large",
    ),
    "a job for another site": (
        message("submit", body={"id": JOB, "site": "osaka", "request": "e30="}),
        "site.not_found",
    ),
    "a job without a request": (message("submit", body={"id": JOB}), "message.invalid"),
    "a job with a path for an id": (
        message("submit", body={"id": "../x", "site": "kobe", "request": "e30="}),
        "message.invalid",
    ),
}


@pytest.mark.parametrize(("said", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_what_may_not_be_is_answered_with_its_problem(
    prison: Prison, said: bytes, code: str
) -> None:
    heard = tried(prison, prison.house.key, ("-T",), said=said)
    (answer,) = harmless(prison, heard)
    assert answer.problem is not None
    assert answer.problem.code == code


@pytest.mark.parametrize("kind", [b"D", b"M", b"E", b"\0"])
def test_an_endless_caller_is_left(prison: Prison, kind: bytes) -> None:
    verb = "put" if kind == b"D" else "identity"
    heard = endless(prison, message(verb, job=JOB), packet(kind, b"x" * 60_000))
    harmless(prison, heard)
    assert heard.code == 76


def endless(prison: Prison, first: bytes, again: bytes) -> Heard:
    """Say ``first``, and ``again`` for as long as somebody listens."""
    argv = [*prison.ssh(prison.house.key), "-T", "far"]
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=out, stderr=err, bufsize=0) as process,
    ):
        assert process.stdin
        with suppress(BrokenPipeError):
            process.stdin.write(first)
            while process.poll() is None:
                process.stdin.write(again)
        code = process.wait(20)
        out.seek(0)
        err.seek(0)
        return Heard(out.read(), err.read(), code)


# ------------------------------------------------------------- what belongs to others


@pytest.fixture(scope="module")
def foreign(prison: Prison, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return bob's finished job, and the digest of one of its chunks."""
    place = tmp_path_factory.mktemp("bob")
    source = place / "in.txt"
    source.write_text(prison.canary)
    with gate_client(prison.house, place, prison.house.others) as client:
        spec = JobSpec(
            site="kobe", command="double", inputs={"in.txt": source}, outputs=["out.txt"]
        )
        job = client.submit(spec)
        assert job.wait().state == "succeeded"
    return job.id, digest_of(prison.canary.encode())


@pytest.mark.parametrize("verb", ["view", "start", "cancel", "received", "missing", "put", "fetch"])
def test_a_job_of_another_does_not_exist(
    prison: Prison, foreign: tuple[str, str], verb: str
) -> None:
    job, digest = foreign
    data = {
        "missing": pack_chunks([Chunk(digest, len(prison.canary))]),
        "put": frame(digest, prison.canary.encode()),
        "fetch": pack_digests([digest, digest_of(prison.canary.encode() * 2)]),
    }.get(verb)
    said = message(verb, job=job) + (packet(b"D", data) + packet(b"E") if data else b"")
    (answer,) = harmless(prison, tried(prison, prison.house.key, ("-T",), said=said))
    assert answer.problem is not None
    assert answer.problem.code == "job.not_found"
    assert tried(prison, prison.house.others, ("-T",), said=message("view", job=job)).code == 0


def test_a_chunk_of_another_is_missing_and_not_to_be_had(
    prison: Prison, foreign: tuple[str, str]
) -> None:
    _, digest = foreign
    chunk = Chunk(digest, len(prison.canary))
    job = new_job_id()
    body = {"id": job, "site": "kobe", "request": "e30=", "has_inputs": True}
    said = (
        message("submit", body=body)
        + message("missing", job=job)
        + packet(b"D", pack_chunks([chunk]))
        + packet(b"E")
        + message("fetch", job=job)
        + packet(b"D", pack_digests([digest]))
        + packet(b"E")
    )
    heard = tried(prison, prison.house.key, ("-T",), said=said)
    submitted, missing, fetched = harmless(prison, heard)
    assert submitted.problem is None
    assert missing.problem is None
    assert packet(b"D", pack_digests([digest])) in heard.out
    assert fetched.problem is not None
    assert fetched.problem.code == "chunk.not_found"


def test_the_id_of_anothers_job_cannot_be_taken(prison: Prison, foreign: tuple[str, str]) -> None:
    body = {"id": foreign[0], "site": "kobe", "request": "e30="}
    heard = tried(prison, prison.house.key, ("-T",), said=message("submit", body=body))
    (answer,) = harmless(prison, heard)
    assert answer.problem is not None
    assert answer.problem.code == "job.different_request"


def test_many_sessions_of_one_connection_are_each_a_gate(prison: Prison) -> None:
    said = message("identity") * 3
    with ThreadPoolExecutor(8) as threads:
        heard = list(
            threads.map(
                lambda _: tried(prison, prison.house.key, ("-T",), "id", said=said), range(16)
            )
        )
    for one in heard:
        assert len(harmless(prison, one)) == 3


# ------------------------------------------------------- links planted where state is kept


@pytest.mark.parametrize(
    "where", ["gate.log", "carrier.log", "carrier.lock", "carrier.wake", "lock", "jobs", "chunks"]
)
def test_a_planted_link_is_not_written_through(prison: Prison, where: str, tmp_path: Path) -> None:
    """Somebody at the site, such as a job, has put a link where the gate keeps its own."""
    with gated_house(tmp_path) as house:
        push = house.site.push
        push.mkdir(parents=True)
        target = tmp_path / "target"
        (push / where).symlink_to(target)
        there = Prison(house, tmp_path, prison.canary, prison.port)
        argv = ["ssh", "-F", str(house.host(tmp_path).config_file), "-o", "LogLevel=QUIET", "far"]
        body = {"id": new_job_id(), "site": "kobe", "request": "e30="}
        ended = subprocess.run(
            argv,
            input=message("submit", body=body),
            capture_output=True,
            check=False,
            timeout=60,
        )
        harmless(there, Heard(ended.stdout, ended.stderr, ended.returncode))
        assert not target.exists()


@pytest.mark.parametrize("where", ["file", "list", "folder", "nothing"])
def test_a_link_in_the_staged_copy_is_not_followed(
    prison: Prison, where: str, tmp_path: Path
) -> None:
    source = tmp_path / "in.txt"
    source.write_text("harmless")
    spec = JobSpec(site="kobe", command="double", inputs={"in.txt": source}, outputs=["out.txt"])
    with gate_client(prison.house, tmp_path) as client:
        job = client.submit(spec)
        assert job.wait().state == "succeeded"
    staging = prison.house.site.home / "work" / "push" / job.id / "1" / "staging"
    tampered(staging, where, prison.secret)
    wanted = pack_digests([digest_of(b"harmless" * 2)])
    said = message("fetch", job=job.id) + packet(b"D", wanted) + packet(b"E")
    heard = tried(prison, prison.house.key, ("-T",), said=said)
    harmless(prison, heard)
    assert (b"harmless" in heard.out) == (where == "nothing")


def tampered(staging: Path, where: str, secret: Path) -> None:
    """Replace a part of what was staged by a link, as a process of the job that hid could."""
    if where == "folder":
        staging.symlink_to(staging.rename(staging.with_name("moved")))
    for file in [f for f in staging.rglob("*") if f.is_file()]:
        told = "file" if file.read_bytes() == b"harmless" * 2 else "list"
        if told == where:
            file.unlink()
            file.symlink_to(secret)


def test_there_are_more_than_a_hundred_and_twenty_attempts_each_of_its_own() -> None:
    commands = [*MAKE, *PRINT, *ANSWER, *NO_ANSWER]
    with_control = [*MAKE[:-2], *PRINT, *ANSWER[:-1], *ENVIRONMENT, *FORWARDINGS]
    others = [*TERMINAL, *GARBLED, *REFUSED]
    assert len(set(commands)) == len(commands)
    assert len(with_control) > 80
    assert len(commands) + len(ENVIRONMENT) + len(FORWARDINGS) + len(others) > 160
