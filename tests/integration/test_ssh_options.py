"""What our ssh is told stands, whatever the user's own configuration says of the same."""

from __future__ import annotations

import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sekisho.adapters.hosts.rsync import Landing, Rsync, Target
from sekisho.adapters.hosts.ssh import SshAddress, SshHost
from sekisho.domain.errors import Unreachable
from tests.sshd import connected_as, free_port, reached, serving
from tests.waiting import until

#: Of each option: what must not have its way, and what we say at a login and for a command.
ALWAYS = {
    "BatchMode": ("no", "yes"),
    "ClearAllForwardings": ("no", "yes"),
    "ForwardAgent": ("yes", "no"),
    "ForwardX11": ("yes", "no"),
    "LogLevel": ("DEBUG1", "ERROR"),
    "PermitLocalCommand": ("yes", "no"),
    "RemoteCommand": ("echo no", "none"),
    "RequestTTY": ("force", "no"),
    "ServerAliveCountMax": ("77", "3"),
    "ServerAliveInterval": ("0", "10"),
    "StrictHostKeyChecking": ("no", "yes"),
}
LOGIN = ALWAYS | {"ConnectTimeout": ("77", "30"), "ControlPersist": ("yes", "600")}
COMMAND = ALWAYS | {"ControlMaster": ("auto", "no"), "ProxyCommand": ("nowhere", "false")}
SSH = subprocess.run(
    ["/bin/sh", "-c", "command -v ssh"], check=True, capture_output=True, text=True
).stdout.strip()
THREADS = 16


def meant(*words: str) -> dict[str, str]:
    """Return what ssh makes of ``words``, by its own names in small letters."""
    said = subprocess.run([SSH, "-G", *words], check=True, capture_output=True, text=True).stdout
    return {name: rest for name, _, rest in (line.partition(" ") for line in said.splitlines())}


def word_for(option: str, word: str) -> str | None:
    """Return how ssh tells of an option that was given so."""
    return meant("-F", "none", "-o", f"{option}={word}", "--", "far").get(option.lower())


@pytest.mark.parametrize("options", [LOGIN, COMMAND], ids=["login", "command"])
def test_no_option_of_ours_is_lost_to_the_users_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, tuple[str, str]]
) -> None:
    """Kills: each of them left out. The same configuration alone is the control."""
    shadow, asked, local = tmp_path / "ssh", tmp_path / "asked", tmp_path / "local"
    shadow.write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" >{asked}.$$\nexec {SSH} "$@"\n')
    shadow.chmod(0o755)
    theirs = [f"{name} {words[0]}" for name, words in ALWAYS.items()]
    aims = [f"LocalForward {free_port()} 127.0.0.1:1", f"LocalCommand touch {local}"]
    with serving(tmp_path / "sshd") as server:
        file = tmp_path / "ssh_config"
        file.write_text(server.alias("far", extra=[*theirs, *aims]))
        with connected_as(SshAddress(host="far", config_file=file)) as host:
            monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
            assert host.run(["echo", "yes"]).stdout == b"yes\n"
        control = ["-F", str(file), "-o", "RemoteCommand=none", "-o", "RequestTTY=no", "far"]
        assert not local.exists()
        subprocess.run([SSH, *control, "true"], check=True, stdin=subprocess.DEVNULL)
        assert local.exists()
    logs = [log.read_text().split("\0")[:-1] for log in tmp_path.glob("asked.*")]
    (words,) = [w for w in logs if ("-M" in w) is (options is LOGIN) and not {"-G", "-O"} & {*w}]
    file.write_text("Host far\n" + "".join(f"  {n} {w[0]}\n" for n, w in options.items()))
    ours, alone = meant(*words[: words.index("--")], "--", "far"), meant("-F", str(file), "far")
    wanted = {name: word_for(name, word) for name, (_, word) in options.items()}
    assert {name: ours.get(name.lower()) for name in options} == wanted
    assert [name for name in options if alone.get(name.lower()) == wanted[name]] == []


@pytest.mark.parametrize("room", [None, THREADS])
def test_many_commands_leave_sessions_of_the_connection_to_others(
    tmp_path: Path, room: int | None
) -> None:
    """A server has ten for one connection. Without our own bound it refuses some: the control."""
    wait = f"echo >>{tmp_path}/begun; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    with serving(tmp_path / "sshd") as server:
        file = tmp_path / "ssh_config"
        file.write_text(server.alias("far"))

        def begun() -> int:
            return len((tmp_path / "begun").read_text()) if (tmp_path / "begun").exists() else 0

        def refused() -> bool:
            return "no more sessions" in server.log.read_text("utf-8", "replace")

        with (
            connected_as(SshAddress(host="far", config_file=file)) as host,
            ThreadPoolExecutor(THREADS) as pool,
        ):
            if room is not None:
                host.room = threading.BoundedSemaphore(room)
            done = [pool.submit(host.run, ["sh", "-c", wait]) for _ in range(THREADS)]
            try:
                until(lambda: begun() >= 8, "commands")
                if room is not None:
                    until(refused, "a refusal")
                else:
                    other = SshHost(host.address, host.directory)  # of another process
                    assert [other.run(["true"]).code for _ in range(2)] == [0, 0]
            finally:
                (tmp_path / "go").touch()
            assert [one.result(120).code for one in done] == [0] * THREADS
        assert refused() is (room is not None)
        assert server.logins == 1


def test_a_file_keeps_its_time_and_is_nobody_elses_and_no_shell_reads_where_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills, of rsync's options: -s, -t, -p, --chmod."""
    monkeypatch.setenv("RSYNC_OLD_ARGS", "1")  # as each one before 3.2.4
    here, there, back = (tmp_path / n for n in ("here", "a b;$(touch x) *'\"", "back"))
    for place in (here / "d", there, back / ".passing"):
        place.mkdir(parents=True, mode=0o755)
    (here / "d" / "tool").write_text("#!/bin/sh\n")
    (here / "d" / "tool").chmod(0o755)
    os.utime(here / "d" / "tool", (10**9, 10**9))
    with serving(tmp_path / "sshd") as server, reached(server, tmp_path) as host:
        Rsync(host).push(here, Target(place=str(there)), lambda _: None)
        arrived = there / "d" / "tool"
        arrived.chmod(0o600)  # as an rsync that was cut off has left it
        Rsync(host).push(here, Target(place=str(there)), lambda _: None)
        assert [oct(p.stat().st_mode & 0o777) for p in (arrived, arrived.parent)] == ["0o700"] * 2
        assert arrived.stat().st_mtime == 10**9
        arrived.chmod(0o644)
        landing = Landing(place=back, passing=back / ".passing", max_bytes=1 << 20)
        Rsync(host).pull(str(there), ["d/tool"], landing, lambda _: None)
    assert (back / "d" / "tool").stat().st_mtime == 10**9
    assert oct((back / "d" / "tool").stat().st_mode & 0o777) == "0o600"


def test_a_transfer_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    """Kills, of rsync's options: --timeout. What has come by then has come."""
    tools, here, over = tmp_path / "tools", tmp_path / "here", tmp_path / "over"
    tools.mkdir()
    here.mkdir()
    (here / "large").write_bytes(os.urandom(8 << 20))
    held = f"while [ ! -e {over} ]; do sleep 0.05; done"
    (tools / "rsync").write_text(
        f'#!/bin/sh\n(head -c 4000000; {held}) | exec /usr/bin/rsync "$@"\n'
    )
    (tools / "rsync").chmod(0o755)
    path = f"PATH={tools}:/usr/local/bin:/usr/bin:/bin"
    with (
        serving(tmp_path / "sshd", lines=[f"SetEnv {path}"]) as server,
        reached(server, tmp_path) as host,
    ):
        try:
            with pytest.raises(Unreachable) as told:
                Rsync(host, silence_s=2, stall_s=60).push(
                    here, Target(place=str(tmp_path / "there")), lambda _: None
                )
        finally:
            over.touch()
    assert "code 30" in str(told.value.params["said"])


def test_what_comes_is_what_was_named_and_what_is_gone_says_nothing(tmp_path: Path) -> None:
    """Kills: --from0 left out; a full disk read out of a name."""
    there, back = tmp_path / "there", tmp_path / "back"
    for place in (there, back / ".passing"):
        place.mkdir(parents=True)
    for name in ("a", "b", "a\nb", "#c"):
        (there / name).write_text(name)
    with serving(tmp_path / "sshd") as server, reached(server, tmp_path) as host:
        landing = Landing(place=back, passing=back / ".passing", max_bytes=1 << 20)
        gone = "x: No space left on device (28)"  # rsync tells of it
        Rsync(host).pull(str(there), ["a\nb", gone, "#c"], landing, lambda _: None)
    assert {file.name for file in back.iterdir()} == {"a\nb", "#c", ".passing"}


def test_holes_take_no_room_there_and_equal_times_are_not_believed_where_told(
    tmp_path: Path,
) -> None:
    """Kills, of rsync's options: --sparse, --ignore-times. Without them is the control."""
    here, base = tmp_path / "here", tmp_path / "base"
    for place, first in ((here, b"now"), (base, b"old")):
        place.mkdir()
        (place / "same").write_bytes(first + bytes(1000))
        os.utime(place / "same", (10**9, 10**9))
    with (here / "holes").open("wb") as stream:
        stream.truncate(4 << 20)
    with serving(tmp_path / "sshd") as server, reached(server, tmp_path) as host:
        for told in (True, False):
            there = tmp_path / str(told)
            to = Target(place=str(there), bases=["../base"], verify=told, sparse=told)
            moved: list[int] = []
            Rsync(host).push(here, to, moved.append)
            assert moved[-1] >= 4 << 20
            assert (there / "holes").read_bytes() == bytes(4 << 20)
            assert ((there / "holes").stat().st_blocks * 512 < 1 << 20) is told
            assert (there / "same").read_bytes()[:3] == (b"now" if told else b"old")
