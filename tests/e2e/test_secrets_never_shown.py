"""No credential is ever seen: not in argv or environment, output, logs, journal or database.

Every command of the three sides runs while a second process looks into every process's command line
and environment. That it can see, and that the look into the files can find, is shown first.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.faults.program import call, clean_environ
from tests.faults.trio import SITE, USER, Trio, a_trio, make_template, private
from tests.proxy import HOST

#: Reads secrets, one a line, until an empty line; says when it looks; prints where it saw one.
WATCHER = """\
import os, select, sys
secrets = [line.strip().encode() for line in iter(sys.stdin.readline, "\\n")]
print("looking", flush=True)
looks, seen = 0, set()
while not select.select([0], [], [], 0)[0]:
    looks += 1
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ("cmdline", "environ"):
            try:
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    text = file.read()
            except OSError:
                continue
            seen.update(f"{name} {n}" for n, secret in enumerate(secrets) if secret in text)
print(looks, *sorted(seen), sep="\\n")
"""


@contextmanager
def watched(secrets: list[str]) -> Iterator[list[str]]:
    """Look into every process while the block runs; afterwards the list says what was seen."""
    argv = [sys.executable, "-c", WATCHER]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environ(Path("/"))
    ) as watcher:
        assert watcher.stdin is not None
        assert watcher.stdout is not None
        watcher.stdin.write("\n".join([*secrets, "", ""]))
        watcher.stdin.flush()
        assert watcher.stdout.readline() == "looking\n"
        seen: list[str] = []
        try:
            yield seen
        finally:
            watcher.stdin.close()
            seen += watcher.stdout.read().split("\n")[:-1]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("template")
    make_template(home)
    return home


@pytest.fixture
def trio(template: Path, tmp_path: Path) -> Iterator[Trio]:
    with a_trio(template, tmp_path / "trio") as made:
        yield made


def secrets_of(trio: Trio) -> list[str]:
    files = (
        trio.home / "token",
        trio.home / "admin",
        trio.home / "invitation",
        trio.site / "token",
    )
    return [file.read_text().strip() for file in files]


def test_the_watcher_sees_what_is_shown() -> None:
    """The positive control: an argument and a variable of another process."""
    with watched(["an-argument", "a-variable"]) as seen:
        shown = [sys.executable, "-c", "print(flush=True); input()", "an-argument"]
        pipe, variables = subprocess.PIPE, {"X": "a-variable"}
        with subprocess.Popen(shown, stdin=pipe, stdout=pipe, text=True, env=variables) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "\n"
            call(clean_environ(Path("/")), "--version")  # some looks take place meanwhile
            process.communicate("\n")
    assert {"cmdline 0", "environ 1"} <= set(seen)


def test_no_command_shows_a_credential_to_other_processes_or_in_its_output(trio: Trio) -> None:
    secrets = secrets_of(trio)
    trio.start_broker()
    with watched(secrets) as seen:
        trio.start_agent()
        said = "".join(out + err for out, err in everything(trio))
        trio.agent.stop()
        call(trio.environ, "agent", "--once", "--dir", trio.site)
    looks, *where = seen
    assert int(looks) > 10
    assert where == []
    assert [secret for secret in secrets if secret in said] == []
    said_by_services = (trio.home / "broker.log").read_text() + (
        trio.home / "agent.log"
    ).read_text()
    assert [secret for secret in secrets if secret in said_by_services] == []


def everything(trio: Trio) -> Iterator[tuple[str, str]]:
    """Type every command once; what each printed."""

    def user(*words: str | Path) -> tuple[str, str]:
        return call(trio.environ, "--config", trio.client_config, *words)

    def site(*words: str | Path) -> tuple[str, str]:
        return call(trio.environ, "site", *words, "--dir", trio.site)

    def broker(*words: str | Path) -> tuple[str, str]:
        return call(trio.environ, "broker", *words, "-c", trio.broker_config)

    yield user("client", "check")
    yield user("sites", "--json")
    work = (SITE, "work", "-p", "key=one", "-o", "out/**")
    yield user("run", *work, "--json", "--into", trio.home / "got")
    job, _ = done = user("submit", *work)
    yield done
    yield from (user(word, job.strip()) for word in ("show", "cancel"))
    into = ("--into", trio.home / "got-later")
    yield from (user(word, job.strip(), *into) for word in ("wait", "fetch"))
    yield user("jobs")
    yield site("check", "--quick")
    yield from (site(word) for word in ("status", "jobs", "log", "pause", "resume"))
    yield site("show", job.strip())
    yield site("log", "--verify")
    yield from (broker(word) for word in ("status", "jobs", "reload"))
    yield from (broker(kind, "list") for kind in ("site", "token"))
    yield broker("show", job.strip())
    yield broker("site", "disable", SITE)
    yield broker("backup", trio.home / "backup")
    who = ("--role", "submitter", "--user", USER)
    yield broker("token", "create", *who, "--to", trio.home / "newer")
    wrong = trio.client_config.with_name("wrong.toml")
    words = ("client", "init", "--broker", f"http://{HOST}:9", "--token-file", trio.home / "token")
    yield call(trio.environ, "--config", wrong, *words)
    hurried = trio.environ | {"SEKISHO_BROKER__FIRST_CONTACT_S": "0"}
    yield call(hurried, "--config", wrong, "--debug", "sites", status=None)


def test_no_file_but_the_credentials_own_holds_one(trio: Trio) -> None:
    """Database, write-ahead log, journal, site log, settings, backup and logs; found in its own."""
    secrets = [secret.encode() for secret in secrets_of(trio)]
    trio.start_broker()
    trio.start_agent()
    broker = ("broker", "backup", trio.home / "backup", "-c", trio.broker_config)
    with trio.connect() as client:
        client.submit(trio.spec("one")).result(trio.home / "got", timeout=60)
    call(trio.environ, *broker)
    found = {file.relative_to(trio.home) for file in files_with(trio.home, secrets)}
    own = {"token", "admin", "invitation", "site/token"}
    assert found == {Path(name) for name in own}
    assert all((trio.home / name).stat().st_mode & 0o077 == 0 for name in own)


def files_with(home: Path, secrets: list[bytes]) -> Iterator[Path]:
    for file in home.rglob("*"):
        if file.is_file() and any(secret in file.read_bytes() for secret in secrets):
            yield file


def test_a_dump_of_a_client_that_fails_does_not_show_its_credential(trio: Trio) -> None:
    """`--debug` prints where it failed; a credential's own form shows nothing of it."""
    file = private(trio.home / "damaged", (trio.home / "token").read_text()[:-9])
    config = trio.client_config
    config.write_text(config.read_text().replace(f'"{trio.home}/token"', f'"{file}"'))
    out, err = call(trio.environ, "--debug", "--config", config, "sites", status=None)
    assert "Traceback" in err
    assert file.read_text()[10:40] not in out + err


def test_the_agent_opens_no_socket_to_listen_on(trio: Trio) -> None:
    """The broker's own is found by the same look."""
    trio.start_broker()
    trio.start_agent()
    with trio.connect() as client:
        job = client.submit(trio.spec("one", "gate"))
        trio.broker.event("job_changed", job=job.id, state="running")
        assert listening(trio.broker.pid) != set()
        programs = family(trio.agent.pid)
        assert len(programs) > 1
        assert [listening(pid) for pid in programs] == [set()] * len(programs)
        trio.open_gate()
        job.wait(timeout=60)


def family(pid: int) -> list[int]:
    """Return a process and those that it started, and so on."""
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    children = [child for thread in threads for child in thread.read_text().split()]
    return [pid, *(below for child in children for below in family(int(child)))]


def listening(pid: int) -> set[str]:
    """Return the sockets on which a process waits for others to connect."""
    waiting = set()
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        lines = Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]
        rows = [line.split() for line in lines]
        waiting |= {f"socket:[{row[9]}]" for row in rows if row[3] in ("0A", "07")}
    held = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            held.add(str(descriptor.readlink()))
    return waiting & held
