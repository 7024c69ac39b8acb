"""The demo as a newcomer starts it: its story, its end, and that its looking can find something."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from examples.demo import proof
from examples.demo.screen import Screen
from examples.demo.shell import DemoFault, Person, Shell
from tests.waiting import until

pytestmark = pytest.mark.time_limit(900)
ROOT = Path(__file__).resolve().parents[2]
SECONDS = 400
SECRET = "canary-mesh-0123456789abcdef"
CHECKS = {
    "came_back",
    "life",
    "curious",
    "refuse_file",
    "refuse_value",
    "refuse_range",
    "refuse_parameter",
    "refuse_command",
    "confined",
    "not_confined",
    "broker_knows",
    "log_tells",
    "log_verifies",
    "no_leak",
    "found_inside",
    "found_chunk",
    "no_port",
    "port_found",
    "stopped",
    "nothing_runs",
}


def start(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "examples.demo", "--solver", "scikit-fem", *words],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def all_held(demo: subprocess.Popen[str]) -> None:
    """Show that every check of a telling held."""
    out, story = demo.communicate(timeout=SECONDS)
    told = json.loads(out)
    assert demo.returncode == 0, story
    assert told["ok"]
    assert {check["name"] for check in told["checks"]} == CHECKS
    assert told["solver"].startswith("scikit-fem")
    assert 1e2 < told["life_cycles"] < 1e9


def test_every_check_of_the_story_holds_and_nothing_is_left(tmp_path: Path) -> None:
    all_held(start(tmp_path, "--json", "--lang", "en"))
    assert not list(tmp_path.iterdir())


def test_in_japanese_too_and_kept_files_are_where_they_were_asked_for(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    all_held(start(tmp_path, "--json", "--lang", "ja", "--keep", str(kept)))
    assert (kept / "workflow" / "results" / "summary.json").is_file()
    assert (kept / "broker" / "broker.sqlite3").is_file()
    again = start(tmp_path, "--keep", str(kept))
    again.communicate(timeout=SECONDS)
    assert again.returncode == 2


def test_a_demo_that_is_stopped_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    demo = start(tmp_path)
    assert demo.stdout is not None
    seen = next(line for line in demo.stdout if "sekisho agent" in line)
    demo.send_signal(signal.SIGTERM)
    demo.communicate(timeout=SECONDS)
    assert seen
    assert demo.returncode == 1
    assert not proof.processes_in(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_just_being_started_is_ended_too(tmp_path: Path) -> None:
    """Kills: a signal between the start of a server and our knowing of it."""
    os.mkfifo(tmp_path / "log")  # the start waits in the middle, until somebody reads
    told = io.StringIO()
    shell = Shell(Screen(told, "en"), "en")
    who = Person("engineer", tmp_path)
    with ThreadPoolExecutor(2) as pool:
        started = pool.submit(shell.start, who, ["sleep", "600"], tmp_path / "log")
        until(lambda: "sleep 600" in told.getvalue())
        closed = pool.submit(shell.close)
        reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
        started.exception(60)  # it was either too late, or ended
        closed.result(60)
        os.close(reader)
    assert not proof.processes_in(tmp_path)
    with pytest.raises(DemoFault):
        shell.start(who, ["sleep", "600"], tmp_path / "other")


@pytest.mark.parametrize("lead", range(6))
@pytest.mark.parametrize("form", ["plain", "base64", "hex"])
def test_the_search_finds_a_secret_in_every_form(tmp_path: Path, form: str, lead: int) -> None:
    whole = b"x" * lead + SECRET.encode() + b"yz"
    forms = {"plain": whole, "base64": base64.b64encode(whole), "hex": whole.hex().upper().encode()}
    (tmp_path / "deep").mkdir()
    leaked = tmp_path / "deep" / "chunk"
    leaked.write_bytes(b"\0\xff" + forms[form])
    (tmp_path / "innocent").write_bytes(b"canary-mesh")
    assert proof.files_with(SECRET, [tmp_path]) == [leaked]


def test_the_look_at_sockets_finds_a_listening_one() -> None:
    with socket.socket() as listener, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        listener.bind(("127.0.0.1", 0))
        assert not proof.listening([os.getpid()])
        listener.listen()
        datagrams.bind(("127.0.0.1", 0))
        assert len(proof.listening([os.getpid()])) == 2


def test_one_check_that_did_not_hold_fails_the_demo(tmp_path: Path) -> None:
    with (tmp_path / "screen").open("w", encoding="utf-8") as out:
        screen = Screen(out, "en")
        assert not screen.ok
        screen.check("nothing_runs", ok=True)
        assert screen.ok
        screen.check("no_leak", ok=False, files=1, size=2, found=[Path("chunks/aa")])
        assert not screen.ok
    assert "chunks/aa" in (tmp_path / "screen").read_text("utf-8")
