"""The agent's own machine as a host for short commands."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from sekisho.adapters.hosts.host_local import LocalHost
from sekisho.domain.errors import SekishoError, Unavailable
from sekisho.site import host as host_port
from sekisho.site.host import Answer
from tests.launching import PYTHON, SHELL, runs, until

pytestmark = pytest.mark.anyio


async def test_a_command_gets_its_words_and_its_input_as_they_are() -> None:
    words = ("$HOME", "a b", "'", "\n", "*")
    answer = await LocalHost().run((*SHELL, 'cat; printf "<%s>" "$@"', "-", *words), stdin=b"in\n")
    assert answer == Answer(0, b"in\n<$HOME><a b><'><\n><*>", b"")


async def test_a_command_sees_nothing_of_the_agents_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SBATCH_UID", "0")
    answer = await LocalHost().run(("/usr/bin/env",), env={"SLURM_CONF": "/x"})
    names = {line.split("=")[0] for line in answer.stdout.decode().splitlines()}
    assert names == {"HOME", "LOGNAME", "USER", "LC_ALL", "PATH", "SLURM_CONF"}
    assert "SBATCH_UID" in os.environ


async def test_an_exit_code_a_signal_and_a_missing_program_are_answers() -> None:
    host = LocalHost()
    assert (await host.run((*SHELL, "echo bad >&2; exit 3"))) == Answer(3, b"", b"bad\n")
    assert (await host.run((*SHELL, "kill -9 $$"))).code == 137
    assert (await host.run(("/no/such/program",))).code == 127
    assert (await host.run(("/bin/true",), cwd="/no/such/place")).code == 127


async def test_what_takes_too_long_is_ended_with_all_its_children(tmp_path: Path) -> None:
    script = f"sleep 600 & echo $! >{tmp_path}/pid; wait"
    with pytest.raises(Unavailable) as fault:
        await LocalHost().run((*SHELL, script), timeout_s=1)
    assert fault.value.code == "host.timeout"
    pid = int((tmp_path / "pid").read_text())
    await until(lambda: not runs(pid))


async def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sekisho.adapters.hosts.host_local.MAX_ANSWER_BYTES", 100_000)
    assert host_port.MAX_ANSWER_BYTES > 100_000
    with pytest.raises(SekishoError) as fault, anyio.fail_after(30):
        await LocalHost().run(("/usr/bin/yes",), timeout_s=60)
    assert fault.value.code == "host.too_much"


async def test_a_command_that_does_not_read_its_input_does_not_hang() -> None:
    with anyio.fail_after(30):
        answer = await LocalHost().run(("/bin/true",), stdin=b"x" * 1_000_000)
        assert answer.code == 0
        answer = await LocalHost().run((*PYTHON, "print('y' * 500000)"), stdin=b"x" * 1_000_000)
        assert len(answer.stdout) == 500_001
