"""The shell side of an array: which element starts, what is read of it, and what never starts."""
# ruff: noqa: ASYNC240 - a test may block its own loop for a small local file

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from sekisho.adapters.hosts.host_local import LocalHost
from sekisho.adapters.schedulers.control import Control
from sekisho.adapters.schedulers.dialects import DIALECTS
from sekisho.adapters.schedulers.traces import ArrayTraces
from sekisho.domain.errors import UsageError
from sekisho.domain.launch import check_variable
from sekisho.domain.resources import MAX_ELEMENTS, Resources
from sekisho.site.scheduler import Exited, LaunchSpec, NotStarted, Pending, Running
from tests.launching import SHELL, a_launch

pytestmark = pytest.mark.anyio
SAYS = 'echo "$SEKISHO_ELEMENT of $SEKISHO_ELEMENTS"; exit "$SEKISHO_ELEMENT"'


def a_sweep(base: Path, elements: int, *argv: str) -> LaunchSpec:
    spec = a_launch(base, *(argv or (*SHELL, SAYS)))
    return replace(spec, resources=Resources(elements=elements))


def started(spec: LaunchSpec, **environment: str) -> int:
    """Run the script as a batch system would; return its exit status."""
    here = spec.control_dir
    said = {"PATH": "/usr/bin:/bin", **environment}
    return subprocess.run(["/bin/sh", "script"], cwd=here, env=said, check=False).returncode


async def placed(spec: LaunchSpec, dialect: str = "slurm") -> Control:
    control = Control(LocalHost(), 120.0)
    assert await control.place(spec, DIALECTS[dialect].element, DIALECTS[dialect].first)
    return control


async def look(control: Control, spec: LaunchSpec) -> ArrayTraces:
    seen = (await control.look([spec.ticket("1")]))[spec.control_dir]
    assert isinstance(seen, ArrayTraces)
    return seen


VARIABLES = [
    ("slurm", "SLURM_ARRAY_TASK_ID", 0),
    ("pbs", "PBS_ARRAY_INDEX", 0),
    ("torque", "PBS_ARRAYID", 0),
    ("torque", "SLURM_ARRAY_TASK_ID", 0),
    ("sge", "SGE_TASK_ID", 1),
    ("pjsub", "PJM_BULKNUM", 0),
]


@pytest.mark.parametrize(("dialect", "variable", "first"), VARIABLES)
async def test_each_element_knows_its_number_in_the_same_words(
    tmp_path: Path, dialect: str, variable: str, first: int
) -> None:
    spec = a_sweep(tmp_path, 3)
    control = await placed(spec, dialect)
    for number in (2, 0, 1):
        started(spec, **{variable: str(first + number)})
    seen = await look(control, spec)
    assert seen.latches == "ttt"
    end = seen.end(spec.token)
    assert end is not None
    assert end.exit.code == 1
    said = [Path(spec.control_dir, str(n), "stdout").read_text() for n in range(3)]
    assert said == [f"{n} of 3\n" for n in range(3)]


@pytest.mark.parametrize("given", ["", "3", "-1", "+1", "01", "1x", "undefined", "1 2", "9" * 6])
async def test_what_is_no_number_of_an_element_starts_nothing(tmp_path: Path, given: str) -> None:
    spec = a_sweep(tmp_path, 3)
    control = await placed(spec)
    assert started(spec, SLURM_ARRAY_TASK_ID=given) == 74
    assert (await look(control, spec)).latches == "fff"
    assert started(spec, SLURM_ARRAY_TASK_ID="1") == 0  # the control
    assert (await look(control, spec)).latches == "ftf"


async def test_an_array_of_one_needs_no_number(tmp_path: Path) -> None:
    for dialect in DIALECTS:
        spec = a_sweep(tmp_path, 1)
        control = await placed(spec, dialect)
        started(spec, SGE_TASK_ID="undefined")
        end = (await look(control, spec)).end(spec.token)
        assert isinstance(end, Exited)
        assert end.exit.code == 0


async def test_an_element_starts_once_and_what_was_started_is_not_placed_again(
    tmp_path: Path,
) -> None:
    spec = a_sweep(tmp_path, 2, *SHELL, f"echo ran >>{tmp_path}/witness")
    control = await placed(spec)
    assert await control.place(spec, DIALECTS["slurm"].element)  # nothing has started yet
    for _ in range(3):
        started(spec, SLURM_ARRAY_TASK_ID="1")
    assert (tmp_path / "witness").read_text() == "ran\n"
    assert not await control.place(spec, DIALECTS["slurm"].element)


async def test_what_is_given_up_never_starts_and_what_runs_is_looked_at_again(
    tmp_path: Path,
) -> None:
    spec = a_sweep(tmp_path, 3)
    control = await placed(spec)
    ticket, before = spec.ticket("1"), await look(control, spec)
    assert started(spec, SLURM_ARRAY_TASK_ID="2") == 0
    assert await control.given_up(ticket, before, None) == Pending()  # it has begun meanwhile
    seen = await look(control, spec)
    assert seen.latches == "rrt"
    assert started(spec, SLURM_ARRAY_TASK_ID="0") == 75
    fate = seen.fate(spec.token, None)
    assert not isinstance(fate, NotStarted)
    assert fate.part is not None
    assert (fate.part.lost, fate.part.unstarted) == ("", "0-1")
    assert await control.given_up(ticket, seen, None) == fate


async def test_an_array_of_which_more_has_begun_still_runs(tmp_path: Path) -> None:
    spec = a_sweep(tmp_path, 3)
    control = await placed(spec)
    started(spec, SLURM_ARRAY_TASK_ID="0")
    before = await look(control, spec)
    started(spec, SLURM_ARRAY_TASK_ID="1")
    assert await control.given_up(spec.ticket("1"), before, None) == Running()


async def test_an_element_without_its_directory_cannot_start_and_is_not_called_unstarted(
    tmp_path: Path,
) -> None:
    """As after a power cut of a file server that had not kept its word."""
    spec = a_sweep(tmp_path, 2)
    control = await placed(spec)
    Path(spec.control_dir, "1").rmdir()
    assert started(spec, SLURM_ARRAY_TASK_ID="1") == 74  # a latch cannot be made; none was there
    seen = await look(control, spec)
    assert seen.latches == "fm"
    assert not await control.revoke(spec.control_dir, 2)


async def test_what_a_command_puts_in_the_place_of_records_is_not_believed(tmp_path: Path) -> None:
    spec = a_sweep(tmp_path, 4)
    control = await placed(spec)
    for number in range(4):
        started(spec, SLURM_ARRAY_TASK_ID=str(number))
    records = [Path(spec.control_dir, str(n), "exit") for n in range(4)]
    assert (await look(control, spec)).end(spec.token) is not None  # the control
    records[0].rename(tmp_path / "elsewhere")
    records[0].symlink_to(tmp_path / "elsewhere")
    records[1].unlink()
    os.mkfifo(records[1])
    records[2].write_bytes(b"exit " + b"x" * (64 << 20))
    Path(spec.control_dir, "5" * 9).mkdir()
    seen = await look(control, spec)
    assert [text.split()[1] for text in seen.exits] == [f"{spec.token}-3"]
    assert seen.end(spec.token) is None


async def test_many_elements_are_placed_read_and_revoked_in_one_call_each(tmp_path: Path) -> None:
    spec = a_sweep(tmp_path, MAX_ELEMENTS)
    control = await placed(spec)
    assert (await look(control, spec)).latches == "f" * MAX_ELEMENTS
    assert await control.revoke(spec.control_dir, MAX_ELEMENTS)
    assert (await look(control, spec)).latches == "r" * MAX_ELEMENTS


def test_the_names_that_tell_the_number_are_ours() -> None:
    with pytest.raises(UsageError):
        check_variable("SEKISHO_ELEMENT")
