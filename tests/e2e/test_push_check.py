"""`sekisho site check NAME`: each way in which the way to an ssh site can be wrong has its name."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sekisho.adapters.hosts.ssh import SshAddress, SshHost
from sekisho.client.spec import JobSpec
from sekisho.domain.errors import Unavailable
from tests.bare_site import SITE, bare_world
from tests.forked import run
from tests.gated import GatedHouse, gate_client, gated_house
from tests.sshd import make_key, ordinary_user, remove, serving
from tests.waiting import until
from tests.wire import wire

TOOLS = ("sh", "mkdir", "rmdir", "df", "tail", "true", "cat")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatedHouse]:
    with gated_house(tmp_path_factory.mktemp("house")) as made:
        yield made


@pytest.fixture
def runtime() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="sk-"))
    yield made
    remove(made)


def checked(house: GatedHouse, place: Path, runtime: Path, key: Path) -> dict[str, Any]:
    """Return what the check says with ``key``."""
    address = house.host(place, key)
    config = place / "client.toml"
    config.write_text(
        f'[site.kobe]\nmode = "ssh"\nhost = "far"\nssh_config = "{address.config_file}"\n'
        "logins_per_minute = 600\n"
    )
    env = {**os.environ, "SEKISHO_CONFIG": str(config), "XDG_RUNTIME_DIR": str(runtime)}
    env["XDG_STATE_HOME"] = str(place / "state")
    done = run(["site", "check", "kobe", "--json"], env=env, timeout=60)
    sockets = runtime / f"sekisho-ssh-{os.geteuid()}"
    SshHost(SshAddress(host="far", config_file=address.config_file), sockets).disconnect()
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["ok"] == (done.returncode == 0)
    return told


def faults(told: dict[str, Any]) -> list[tuple[str, str]]:
    return [(entry["check"], entry["code"]) for entry in told["checks"] if entry["code"]]


def test_with_its_key_the_gate_answers(house: GatedHouse, tmp_path: Path, runtime: Path) -> None:
    told = checked(house, tmp_path, runtime, house.key)
    assert [entry["check"] for entry in told["checks"]] == ["login", "gate", "latency", "clock"]
    assert told["ok"]


def test_a_key_that_nobody_added_is_not_let_in(
    house: GatedHouse, tmp_path: Path, runtime: Path
) -> None:
    stranger = make_key(tmp_path / "stranger")
    assert faults(checked(house, tmp_path, runtime, stranger)) == [("login", "ssh.auth")]


def test_a_plain_key_finds_no_gate(house: GatedHouse, tmp_path: Path, runtime: Path) -> None:
    told = checked(house, tmp_path, runtime, house.plain)
    assert faults(told) == [("gate", "gate.absent")]


def test_an_unknown_host_is_told_first(house: GatedHouse, tmp_path: Path, runtime: Path) -> None:
    known = house.server.place / "known_hosts"
    text = known.read_text()
    known.unlink()
    try:
        told = checked(house, tmp_path, runtime, house.key)
    finally:
        known.write_text(text)
    assert faults(told) == [("login", "ssh.host_key")]


SOUND = "echo 'rsync  version v3.4.1'"


@pytest.mark.parametrize(
    ("programs", "expected"),
    [
        ({"date": "exec /bin/date +%s"}, [("rsync", "bare.no_rsync")]),
        ({"date": "exec /bin/date +%s", "rsync": "echo"}, [("rsync", "bare.no_rsync")]),
        (
            {"date": "exec /bin/date +%s", "rsync": "echo rsync  version 3.0.9"},
            [("rsync", "bare.rsync_old")],
        ),
        (
            {"date": "exec /bin/date +%s", "rsync": "echo 'rsync  version 3.1.2  protocol 31'"},
            [("rsync", "check.rsync_unsafe")],
        ),
        (
            {"date": "echo 1000000000", "rsync": "echo 'rsync  version v3.4.1'"},
            [("clock", "check.site_clock")],
        ),
        (  # a disk without room for one more name
            {"date": "exec /bin/date +%s", "rsync": SOUND, "mkdir": "exit 1"},
            [("work", "bare.storage")],
        ),
        (
            {"date": "exec /bin/date +%s", "rsync": SOUND, "df": "echo /dev/x 9 9 9000 99% /"},
            [("work", "check.disk_full")],
        ),
    ],
)
def test_what_a_bare_site_lacks_is_told(
    tmp_path: Path, programs: dict[str, str], expected: list[tuple[str, str]]
) -> None:
    path = tmp_path / "bin"
    path.mkdir()
    for name in TOOLS:
        if name not in programs:
            (path / name).symlink_to(shutil.which(name) or name)
    for name, text in programs.items():
        (path / name).write_text(f"#!/bin/sh\n{text}\n")
        (path / name).chmod(0o755)
    with (
        bare_world(tmp_path, lines=[f"SetEnv PATH={path}"]) as world,
        world.sekisho("site", "check", SITE, "--json") as process,
    ):
        told = json.loads(process.communicate(timeout=60)[0])
    here = [f for f in told["checks"] if f["params"] and f["params"].get("host") == "-"]
    assert not here
    assert faults(told) == expected


def test_the_programs_of_a_bare_site_are_looked_for_and_not_run(tmp_path: Path) -> None:
    """Kills: a check that finds all well, and the first job that ends with 127."""
    with bare_world(tmp_path) as world:
        for name, mode in (("there", 0o755), ("closed", 0o644)):
            world.program(name, f"echo >>{tmp_path}/ran")
            Path(world.programs[name][0]).chmod(mode)
        hard = tmp_path / "a $(touch ran) *;"
        world.programs |= {
            "gone": [str(hard)],
            "folder": [str(tmp_path)],
        }
        with world.sekisho("site", "check", SITE, "--json") as process:
            told = json.loads(process.communicate(timeout=60)[0])
        with world.sekisho("--lang", "ja", "site", "check", SITE) as process:
            said = process.communicate(timeout=60)[0]
        world.programs = {"home": ["~/solve.sh"]}
        with world.sekisho("site", "check", SITE, "--json") as process:
            told_home = json.loads(process.communicate(timeout=60)[0])["checks"][-1]
    seen = [entry for entry in told["checks"] if entry["check"] == "programs"]
    assert sorted((e["params"]["command"], e["code"]) for e in seen if e["code"]) == [
        ("closed", "check.site_program_closed"),
        ("folder", "check.site_program_missing"),
        ("gone", "check.site_program_missing"),
    ]
    assert {e["detail"].split(":")[0] for e in seen if not e["code"]} == {"there"}
    assert not told["ok"]
    assert (told_home["check"], told_home["code"]) == ("programs", "manifest.argv")
    assert f"拠点に gone のプログラム {hard} がありません。" in said
    assert not (tmp_path / "ran").exists()


def test_a_base_that_is_not_the_logins_is_told_at_once_by_check_and_job(tmp_path: Path) -> None:
    """Kills: two minutes of waiting for room where there is no right."""
    user = ordinary_user()
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o755)
    (tmp_path / "file").touch()
    with bare_world(tmp_path) as world, serving(tmp_path / "b", user=user) as far:
        kept = (world.server, world.line)
        with wire(far.port) as line:
            world.server, world.line = far, line
            world.programs["whoami"] = ["/usr/bin/id", "-un"]
            for base in ("/sys/sekisho", "/proc", str(tmp_path / "file"), str(closed / "a" / "b")):
                world.base_text = base
                with world.sekisho("site", "check", SITE, "--json") as process:
                    told = json.loads(process.communicate(timeout=60)[0])
                assert faults(told) == [("work", "bare.closed")], base
                with world.sekisho("run", SITE, "whoami") as process:
                    said = process.communicate(timeout=60)[1]
                assert process.returncode == Unavailable.exit_status
                assert (said.count("bare.closed"), base in said) == (1, True), said
            world.disconnect()
        world.server, world.line = kept


def test_a_faulty_manifest_is_told_as_a_closed_gate_and_waiting_goes_on_when_it_is_mended(
    tmp_path: Path, runtime: Path
) -> None:
    with gated_house(tmp_path) as house, gate_client(house, tmp_path) as client:
        manifest = house.site.home / "manifest.toml"
        text = manifest.read_text()
        manifest.write_text(f"{text}\nnonsense = 1\n")
        told = checked(house, tmp_path, runtime, house.key)
        assert faults(told) == [("gate", "gate.closed")]
        (said,) = [entry["what"] for entry in told["checks"] if entry["code"]]
        assert "manifest" in said
        gate_log = house.site.push / "gate.log"
        refused = gate_log.read_text().count("gate_closed")
        assert refused
        assert "nonsense" in gate_log.read_text()  # the fault itself is for the site's people
        with ThreadPoolExecutor(1) as other:
            waiting = other.submit(client.submit, JobSpec(site="kobe", command="noop"))
            until(lambda: gate_log.read_text().count("gate_closed") > refused)
            assert not waiting.done()
            manifest.write_text(text)
            assert waiting.result(60).wait().state == "succeeded"
