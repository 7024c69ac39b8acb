"""The agent as a service: the shipped unit is accepted and hardened, and systemd hears of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from sekisho.adapters.logging_setup import Form, set_up_logging
from sekisho.adapters.notify_systemd import ServiceManager
from sekisho.config.site import load_site
from tests.forked import AS_TYPED
from tests.integration.bad_network import Manners, a_place, answering

UNIT = Path(__file__).parents[2] / "deploy" / "sekisho-agent.service"
INSTANCE = "ins_" + "0" * 26


def analyzed(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *argv], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_unit_is_valid(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    text = UNIT.read_text().replace("/opt/sekisho/bin/sekisho", "/bin/true")
    unit.write_text(text.replace("User=sekisho-agent", "User=daemon"))
    done = analyzed("verify", "--man=no", unit)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_is_hardened() -> None:
    done = analyzed("security", "--offline=true", "--threshold=20", "--no-pager", UNIT)
    assert done.returncode == 0, done.stdout[-400:]


def test_the_measure_of_hardness_can_fail(tmp_path: Path) -> None:
    """The control of the test above: the same unit without its protection is too open."""
    unit = tmp_path / UNIT.name
    weak = ("Protect", "Restrict", "SystemCall", "NoNew", "Capability", "Private")
    lines = [line for line in UNIT.read_text().splitlines() if not line.startswith(weak)]
    unit.write_text("\n".join(lines))
    assert analyzed("security", "--offline=true", "--threshold=20", unit).returncode != 0


def test_commands_outlive_the_service() -> None:
    """What would end a command with its agent, or take its files, is not in the unit."""
    lines = UNIT.read_text().splitlines()
    assert "KillMode=process" in lines
    for harmful in ("PrivateTmp=yes", "PrivateUsers=yes", "ProcSubset=pid", "RemoveIPC=yes"):
        assert harmful not in lines


def test_the_token_is_the_one_that_the_service_manager_hands_over(tmp_path: Path) -> None:
    assert "Environment=SEKISHO_BROKER__TOKEN_FILE=%d/token" in UNIT.read_text().splitlines()
    home = a_place(tmp_path, "https://127.0.0.1:1")
    environ = {"SEKISHO_BROKER__TOKEN_FILE": "/run/credentials/sekisho-agent.service/token"}
    assert load_site(home, environ).token == Path(environ["SEKISHO_BROKER__TOKEN_FILE"])


@pytest.fixture
def manager(tmp_path: Path) -> socket.socket:
    """Listen where a service manager would."""
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.bind(str(tmp_path / "notify"))
    heard.settimeout(30)
    return heard


def test_an_agent_tells_that_it_is_ready_alive_and_ending(
    tmp_path: Path, manager: socket.socket
) -> None:
    with manager, answering(None, Manners(status=503)) as url:
        home = a_place(tmp_path, url)
        (home / "state" / "instance").write_text(INSTANCE)
        process = subprocess.Popen(
            [*AS_TYPED, "agent", "--dir", str(home)],
            env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")},
            stderr=subprocess.DEVNULL,
        )
        try:
            told = manager.recv(4096).decode()
            assert told.startswith("READY=1\n")
            assert manager.recv(4096) == b"WATCHDOG=1"
            process.send_signal(signal.SIGTERM)
            while (told := manager.recv(4096).decode()) != "STOPPING=1":
                assert told == "WATCHDOG=1"
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait(30)


def test_a_status_is_told_once(tmp_path: Path, manager: socket.socket) -> None:
    with manager:
        service = ServiceManager(str(tmp_path / "notify"))
        for text in ("connected", "connected", "waiting"):
            service.status(text)
        service.stopping()
        heard = [manager.recv(100) for _ in range(3)]
    assert heard == [b"STATUS=connected", b"STATUS=waiting", b"STOPPING=1"]


def test_an_address_of_the_abstract_kind_is_understood() -> None:
    name = f"sekisho-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0{name}")
        heard.settimeout(10)
        ServiceManager(f"@{name}").ready()
        assert heard.recv(100) == b"READY=1\nSTATUS="


def test_a_manager_that_is_gone_stops_nothing(tmp_path: Path) -> None:
    ServiceManager(str(tmp_path / "nobody")).alive()
    ServiceManager("").alive()


SCRIPT = """
import sys, structlog
from sekisho.adapters.logging_setup import set_up_logging
set_up_logging("info", sys.argv[1])
log = structlog.get_logger()
log.debug("too_quiet")
log.info("job_began", job="job_1", name="計算")
secret = "ska_never_told"
try:
    raise ValueError("broken")
except ValueError:
    log.exception("it_broke")
"""


def logged(form: Form) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, form], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("form", ["auto", "json"])
def test_events_are_one_json_object_a_line(form: Form) -> None:
    lines = [json.loads(line) for line in logged(form).splitlines()]
    assert [line["event"] for line in lines] == ["job_began", "it_broke"]
    assert lines[0].items() >= {"job": "job_1", "name": "計算", "level": "info"}.items()
    assert "ValueError: broken" in lines[1]["exception"]


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_never_shows_the_values_of_variables(form: Form) -> None:
    told = logged(form)
    assert "ValueError: broken" in told
    assert "ska_never_told" not in told.replace('secret = "ska_never_told"', "")


def test_the_console_is_for_people() -> None:
    assert "job_began" in (told := logged("console"))
    assert not told.startswith("{")


def test_the_level_can_be_changed_later(capsys: pytest.CaptureFixture[str]) -> None:
    before = structlog.get_config()
    try:
        for level in ("error", "debug"):
            set_up_logging(level, "json")
            structlog.get_logger().warning(f"at_{level}")
    finally:
        structlog.configure(**before)
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == [
        "at_debug"
    ]
