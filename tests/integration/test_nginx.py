"""A whole job of 30 MiB through nginx as it is delivered: 1 MiB of body, 60 s, everything buffered.

TLS ends at nginx and the broker stands below a path. The configuration has one line about the
broker; what deploy/ ships on top of that only spares a disk.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sekisho.domain.limits import MIB
from tests.cutter import cutter
from tests.faults.trio import SITE, Trio, a_trio, make_template
from tests.forked import AS_TYPED
from tests.nginx import nginx
from tests.proxy import HOST

#: Gives back as much as came, but none of it as it came: nothing is there already.
TURN = "mkdir out && tr '\\000-\\377' '\\001-\\377\\000' < in/given > out/turned"


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[Trio]:
    make_template(tmp_path / "template")
    with a_trio(tmp_path / "template", tmp_path / "trio") as made:
        yield made


def test_thirty_mebibytes_go_in_and_out_through_nginx_as_delivered(trio: Trio) -> None:
    given = trio.some_input(30 * MIB)
    (trio.home / "work.sh").write_text(TURN)
    config = trio.broker_config
    config.write_text(config.read_text().replace("# prefix =", "prefix ="))
    trio.start_broker()
    with nginx(trio.home / "nginx", trio.proxy.upstream) as port:
        ca = trio.home / "nginx" / "broker-ca.pem"
        trio.point_at(f"https://{HOST}:{port}/sekisho", ca)
        trio.start_agent()
        with trio.connect() as client:
            job = client.submit(trio.spec("one", source=given))
            result = job.result(trio.home / "got", timeout=120)
        assert result.state == "succeeded"
        turned = given.read_bytes().translate(bytes([*range(1, 256), 0]))
        assert (trio.home / "got/out/turned").read_bytes() == turned
        trio.agent.kill()
    told = [line.split() for line in (trio.home / "nginx/access.log").read_text().splitlines()]
    answered = [(method, status) for method, _, status, _ in told if status != "499"]
    # 499: the poll of the dead. 413: each line tries a longer part once on each connection
    assert 1 <= answered.count(("PUT", "413")) <= 4
    assert {status for _, status in answered} <= {"200", "201", "204", "413"}
    assert len([1 for method, _ in answered if method == "PUT"]) >= 60


def peak_mb(pid: int) -> float:
    """Return the most memory that a process has ever had; 0 when it has ended."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text("ascii"))
    return 0.0 if found is None else int(found[1]) / 1024


def peak_of_run(trio: Trio, given: Path) -> float:
    """Run a job from the command line to its good end; return the most memory that took."""
    words = (
        *("--config", trio.client_config, "run", SITE, "work", "-p", "key=one", "--quiet"),
        *("-i", f"in/given={given}", "-o", "out/**", "--into", trio.home / "got"),
    )
    peak = 0.0
    with subprocess.Popen([*AS_TYPED, *map(str, words)], env=trio.environ) as process:
        while process.returncode is None:
            peak = max(peak, peak_mb(process.pid))
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
    assert process.returncode == 0
    return peak


def sparse(file: Path, size: int, *, noise: int, pieces: int) -> Path:
    """Make a file of ``size`` bytes of which ``noise`` are there, in so many pieces."""
    with file.open("wb") as opened:
        for number in range(pieces):
            opened.seek(number * size // pieces)
            for _ in range(noise // pieces // MIB):
                opened.write(os.urandom(MIB))
        opened.truncate(size)
    return file


#: Gives other noise back, and as much of nothing.
SPARSE = "mkdir out && head -c {noise} /dev/urandom > out/turned && truncate -s {size} out/turned"


@pytest.mark.time_limit(900)
def test_a_sparse_gibibyte_that_is_cut_sends_hardly_more_than_it_holds(trio: Trio) -> None:
    noise, size = 400 * MIB, 1024 * MIB
    given = sparse(trio.home / "given", size, noise=noise, pieces=4)
    (trio.home / "work.sh").write_text(SPARSE.format(noise=noise, size=size))
    manifest = trio.site / "manifest.toml"
    manifest.write_text(manifest.read_text().replace('"128 MiB"', '"2 GiB"'))
    config = trio.broker_config
    config.write_text(config.read_text().replace("# prefix =", "prefix ="))
    trio.start_broker()
    # every byte crosses the wire twice each way: client and agent send, agent and client receive
    # and each of the two that send tries once whether a part of 2 MiB is let through
    cuts = [noise // 3, noise + noise // 2]
    with (
        nginx(trio.home / "nginx", trio.proxy.upstream) as port,
        cutter(port, list(cuts), list(cuts)) as wire,
    ):
        ca = trio.home / "nginx" / "broker-ca.pem"
        trio.point_at(f"https://{HOST}:{wire.port}/sekisho", ca)
        trio.start_agent()
        peaks = {"client": peak_of_run(trio, given)}
        peaks |= {"broker": peak_mb(trio.broker.pid), "agent": peak_mb(trio.agent.pid)}
        trio.agent.kill()
    turned = trio.home / "got/out/turned"
    assert turned.stat().st_size == size
    assert turned.stat().st_blocks * 512 <= noise + MIB
    assert wire.cuts == 2 * len(cuts)
    assert 2 * noise < wire.up <= 1.015 * 2 * noise, wire.up / noise
    assert 2 * noise < wire.down <= 1.02 * 2 * noise, wire.down / noise
    assert 20 < min(peaks.values()) < max(peaks.values()) < 150, peaks
