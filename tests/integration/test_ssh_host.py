"""A host through the system's OpenSSH: one login, words that stay words, faults with names."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from sekisho.adapters.hosts.quote import MAX_LINE_BYTES, quoted
from sekisho.adapters.hosts.rsync import Rsync, Target
from sekisho.adapters.hosts.ssh import SshAddress, SshHost, wait_turn
from sekisho.domain.errors import (
    Refused,
    SekishoError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unreachable,
    UsageError,
)
from tests.sshd import (
    Sshd,
    connected_as,
    make_key,
    ordinary_user,
    reached,
    serving,
)
from tests.waiting import until

NASTY = [
    "",
    " ",
    "'",
    "''",
    "'\\''",
    '"',
    "\\",
    "\\\\n",
    "$HOME",
    "$(id)",
    "`id`",
    "${x:-y}",
    "; rm -rf /",
    "| cat",
    "&& id",
    "> /tmp/x",
    "*",
    "~",
    "!!",
    "#comment",
    "a\nb",
    "\n",
    "\t",
    "\r\n",
    "--",
    "-oProxyCommand=id",
    "é日本語",
    "\x01\x7f",
    "\udc80\udcff",
    "{a,b}",
    "[!x]",
    "%h%p",
    "=x",
    "x" * 20_000,
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    with serving(tmp_path / "sshd") as running:
        yield running


@pytest.fixture
def host(server: Sshd, tmp_path: Path) -> Iterator[SshHost]:
    with reached(server, tmp_path) as far:
        yield far


def test_a_shell_takes_a_quoted_line_apart_into_exactly_the_words() -> None:
    shown = subprocess.run(
        ["sh", "-c", quoted(["printf", "%s\\0", *NASTY])], capture_output=True, check=True
    )
    assert shown.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in NASTY]


def test_words_arrive_at_the_host_byte_by_byte(host: SshHost) -> None:
    done = host.run(["printf", "%s\\0", *NASTY])
    assert done.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in NASTY]


def test_a_word_that_cannot_travel_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(UsageError):
        quoted(["echo", "a\0b"])
    with pytest.raises(TooLarge):
        quoted(["echo", "x" * MAX_LINE_BYTES])


@pytest.mark.parametrize("name", ["-oProxyCommand=id", "a b", "", "a;id", "x@-y", "a/b", "ho\nst"])
def test_what_is_no_host_name_is_never_given_to_ssh(name: str) -> None:
    with pytest.raises(UsageError) as refused:
        SshAddress(host=name)
    assert refused.value.code == "ssh.host_name"


def test_many_commands_of_many_threads_take_one_login(server: Sshd, host: SshHost) -> None:
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda n: host.run(["sh", "-c", f"exit {n % 7}"]).code, range(40)))
    assert codes == [n % 7 for n in range(40)]
    assert server.logins == 1


def test_two_processes_share_the_connection(server: Sshd, host: SshHost) -> None:
    host.run(["true"])
    other = SshHost(host.address, host.directory)
    assert other.connected()
    assert other.run(["echo", "here"]).stdout == b"here\n"
    assert server.logins == 1


def test_what_is_written_to_a_session_comes_back_from_it(host: SshHost) -> None:
    with host.session(["cat"]) as session:
        session.stdin.write(b"\0\xff" * 1000)
        session.stdin.close()
        assert session.stdout.read() == b"\0\xff" * 1000
        assert session.fault() is None


def test_a_killed_connection_is_noticed_and_replaced(server: Sshd, host: SshHost) -> None:
    host.run(["true"])
    server.cut()
    codes: set[int | str] = set()
    while server.logins < 2:
        try:
            codes.add(host.run(["true"]).code)
        except SekishoError as broken:
            codes.add(broken.code)
    assert codes <= {0, "ssh.unreachable"}
    assert server.logins == 2


def test_a_host_without_a_known_key_is_sent_nothing(server: Sshd, host: SshHost) -> None:
    (server.place / "known_hosts").unlink()
    with pytest.raises(Refused) as refused:
        host.run(["true"])
    assert refused.value.code == "ssh.host_key"
    assert server.logins == 0


def test_a_host_with_another_key_than_before_is_told_apart(server: Sshd, host: SshHost) -> None:
    other = make_key(server.place / "other").with_suffix(".pub").read_text().split()[:2]
    line = f"[127.0.0.1]:{server.port} {' '.join(other)}\n"
    (server.place / "known_hosts").write_text(line)
    with pytest.raises(Refused) as refused:
        host.run(["true"])
    assert refused.value.code == "ssh.host_key_changed"
    command = str(refused.value.params["command"])  # as it is told, it forgets the key
    subprocess.run(["/bin/sh", "-c", command], check=True, capture_output=True)
    with pytest.raises(Refused) as refused:
        host.run(["true"])
    assert refused.value.code == "ssh.host_key"


def test_a_key_that_is_not_let_in_is_told_so(server: Sshd, host: SshHost) -> None:
    server.authorize()
    with pytest.raises(SekishoError) as refused:
        host.run(["true"])
    assert refused.value.code == "ssh.auth"


def test_a_server_that_is_away_is_unreachable_and_found_again(server: Sshd, host: SshHost) -> None:
    server.stop()
    with pytest.raises(SekishoError) as away:
        host.run(["true"])
    assert away.value.code == "ssh.unreachable"
    assert "Connection refused" in str(away.value.params["said"])
    server.start()
    assert host.run(["true"]).code == 0


def test_a_fault_in_the_users_configuration_is_told_as_such(
    server: Sshd, tmp_path: Path, host: SshHost
) -> None:
    (tmp_path / "ssh_config").write_text(server.alias("far") + "  NoSuchOption yes\n")
    with pytest.raises(SekishoError) as wrong:
        host.run(["true"])
    assert wrong.value.code == "ssh.config"


def test_an_ordinary_user_is_reached_through_a_jump_host(tmp_path: Path) -> None:
    user = ordinary_user()
    with serving(tmp_path / "a") as gate, serving(tmp_path / "b", user=user) as inner:
        gate_alias = gate.alias("bastion")
        far = inner.alias("far", extra=["ProxyJump bastion"])
        (tmp_path / "ssh_config").write_text(gate_alias + far)
        address = SshAddress(host="far", config_file=tmp_path / "ssh_config")
        with connected_as(address) as host:
            for _ in range(3):
                assert host.run(["id", "-un"]).stdout.decode().strip() == user
        assert (gate.logins, inner.logins) == (1, 1)


def test_a_server_with_room_for_two_sessions_serves_eight_threads(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "sshd", lines=["MaxSessions 2"]) as server,
        reached(server, tmp_path) as host,
        ThreadPoolExecutor(8) as pool,
    ):
        done = list(pool.map(lambda n: host.run(["echo", str(n)]).stdout, range(16)))
        assert [int(text) for text in done] == list(range(16))
        assert server.logins == 1


def test_logins_wait_for_their_turn_whatever_process_they_are_of() -> None:
    clock, waits = [1000.0], []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        clock[0] += seconds

    logins = []
    with tempfile.TemporaryFile() as file:
        for _ in range(30):
            wait_turn(file.fileno(), 10, lambda: clock[0], wait)
            logins.append(clock[0])
            clock[0] += 0.5
    worst = max(sum(at <= other < at + 60 for other in logins) for at in logins)
    assert worst == 10
    assert len(waits) == 2


def test_a_killed_master_leaves_a_socket_that_is_not_trusted(server: Sshd, host: SshHost) -> None:
    host.run(["true"])
    said = subprocess.run(
        [*host.command("-O", "check"), "--", "far"], capture_output=True, check=True, text=True
    )
    os.kill(int(said.stderr.partition("pid=")[2].partition(")")[0]), signal.SIGKILL)
    while host.connected():
        pass
    assert host.socket.exists()
    assert host.run(["true"]).code == 0
    assert server.logins == 2


def test_a_connection_that_the_user_keeps_open_is_used_where_no_login_is_possible(
    tmp_path: Path,
) -> None:
    place = Path(tempfile.mkdtemp(prefix="sk-own-"))
    shared = [f"ControlPath {place}/%C", "ControlMaster auto", "ControlPersist yes"]
    with serving(tmp_path / "sshd") as server:
        file = tmp_path / "ssh_config"
        file.write_text(server.alias("far", extra=shared))
        with connected_as(SshAddress(host="far", config_file=file)) as host:
            by_hand = ["ssh", "-F", str(file), "far"]
            subprocess.run([*by_hand, "true"], check=True, stdin=subprocess.DEVNULL)
            server.authorize("# from now on a person is wanted")
            assert host.run(["echo", "through"]).stdout == b"through\n"
            host.disconnect()
            assert host.run(["true"]).code == 0
            assert server.logins == 1
            subprocess.run([*by_hand, "-O", "exit"], check=True, capture_output=True)
            with pytest.raises(Unauthenticated):
                host.run(["true"])
    shutil.rmtree(place)


def _negotiated(tmp_path: Path, *lines: str) -> set[str]:
    """Return the ciphers of one connection, as the server says."""
    with serving(tmp_path / "sshd", lines=["LogLevel DEBUG1"]) as server:
        file = tmp_path / "ssh_config"
        file.write_text(server.alias("far", extra=lines))
        with connected_as(SshAddress(host="far", config_file=file)) as host:
            assert host.run(["true"]).code == 0
        words = server.log.read_text("utf-8", "replace").split("cipher: ")[1:]
    return {word.split()[0] for word in words}


def test_a_cipher_in_hardware_is_taken_when_nobody_has_chosen_one(tmp_path: Path) -> None:
    flags = set(re.split(r"\s+", Path("/proc/cpuinfo").read_text("utf-8", "replace")))
    fast = "aes128-gcm@openssh.com" if "aes" in flags else "chacha20-poly1305@openssh.com"
    assert _negotiated(tmp_path) == {fast}


@pytest.mark.parametrize("chosen", ["aes256-ctr", "chacha20-poly1305@openssh.com"])
def test_the_users_own_choice_of_a_cipher_stands(tmp_path: Path, chosen: str) -> None:
    assert _negotiated(tmp_path, f"Ciphers {chosen}") == {chosen}


def pushed_by(
    script: str, host: SshHost, place: Path, monkeypatch: pytest.MonkeyPatch
) -> SekishoError:
    """Return what comes of a transfer whose rsync does as ``script`` says."""
    (place / "rsync").write_text(f"#!/bin/sh\n{script}\n")
    (place / "rsync").chmod(0o755)
    host.connect()
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    with pytest.raises(SekishoError) as caught:
        Rsync(host).push(place, Target(place="/tmp/nowhere"), lambda _n: None)
    return caught.value


@pytest.mark.parametrize(
    ("said", "advanced"),
    [("\\r     32,768  10%%", True), ("\\r          0   0%%", False), ("", False)],
)
def test_a_transfer_that_broke_says_whether_anything_got_through(
    host: SshHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, *, advanced: bool
) -> None:
    """As rsync tells it, once a second: the next pause is as short as the first one then."""
    fault = pushed_by(f"printf '{said}'\nexit 12", host, tmp_path, monkeypatch)
    assert isinstance(fault, Unreachable)
    assert fault.advanced is advanced


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("--copy-dest arg does not exist: /gone", "ssh.unreachable"),
        ("--copy-dest arg does not exist: /gone\nrsync: read errors", "bare.rsync"),
        ("rsync: write failed: No space left on device (28)", "bare.storage"),
        ('rsync: open "/x: No space left on device (28)" failed: denied (13)', "bare.rsync"),
    ],
)
def test_a_file_fault_whose_words_were_lost_is_tried_again(
    host: SshHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, code: str
) -> None:
    """The far side dies of its disk, sometimes before it has said so: the next try hears it."""
    moved = "printf '\\r     32,768  10%%'"
    fault = pushed_by(f"{moved}\necho '{said}' >&2\nexit 11", host, tmp_path, monkeypatch)
    assert fault.code == code
    assert fault.advanced is (code != "bare.storage")  # what a full disk was sent is not there
    assert isinstance(fault, Unavailable) == (code != "bare.rsync")


def test_a_key_that_asks_nothing_is_tried_for_ever_at_a_terminal_too(
    server: Sshd, tmp_path: Path
) -> None:
    """Killed by: ending the tries of whoever could be asked, but need not be."""
    with reached(server, tmp_path) as far:
        host = SshHost(replace(far.address, interactive=True), far.directory)
        for _ in range(5):
            host.connect()
            server.cut()
            until(lambda: not host.connected())
        assert host.run(["echo", "here"]).stdout == b"here\n"


def test_a_server_that_is_away_uses_up_no_question(server: Sshd, host: SshHost) -> None:
    asking = SshHost(replace(host.address, interactive=True), host.directory)
    server.stop()
    for _ in range(5):
        with pytest.raises(Unreachable):
            asking.connect()
    assert asking.asked == []
    server.start()
    assert asking.run(["echo", "here"]).stdout == b"here\n"
    assert len(asking.asked) == 1
