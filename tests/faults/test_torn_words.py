"""A line that is cut while a script reads: for the script it looks like the end of what was said.

Whatever part has come, it is nothing; and what comes late does not take the place of what is whole.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio
import pytest

from sekisho.adapters.hosts.bare import BareHost
from sekisho.adapters.hosts.host_local import LocalHost
from sekisho.adapters.hosts.ssh import Completed, SshAddress, SshHost
from sekisho.adapters.schedulers.control import Control, launch_text
from sekisho.domain.errors import SekishoError, Unavailable
from sekisho.site.host import Answer
from tests.launching import a_launch
from tests.waiting import until

JOB = "job_01m802zef15w8sqczkqjnnwrg5"
RECORD = b'{"what": "a submitter asked for"}'
PARTS = [*range(len(RECORD))]


class CutHost(SshHost):
    """This machine, through a line that carries so many bytes of what is said; None: all of it."""

    carried: int | None = None

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60) -> Completed:
        said = stdin[: self.carried]
        done = subprocess.run(argv, input=said, capture_output=True, timeout=timeout_s)  # noqa: PLW1510
        if said != stdin:
            raise Unavailable("ssh.unreachable", host="far", said="")
        return Completed(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("inputs", [True, False], ids=["inputs", "none"])
@pytest.mark.parametrize("carried", PARTS)
def test_a_bare_job_whose_record_came_in_part_is_made_by_the_next_call(
    tmp_path: Path, carried: int, inputs: bool
) -> None:
    ssh = CutHost(SshAddress(host="far"), tmp_path)
    host = BareHost(ssh, str(tmp_path / "base"))
    begin = None if inputs else ("0123456789abcdef", ["touch", str(tmp_path / "started")])
    ssh.carried = carried
    with pytest.raises(Unavailable):
        host.make(JOB, RECORD, begin)
    place = tmp_path / "base" / JOB
    assert not [file.name for file in place.iterdir() if file.name.startswith("record")]
    ssh.carried = None
    with pytest.raises(SekishoError):
        host.record(JOB)
    assert host.make(JOB, RECORD, begin)[1] == RECORD
    if begin is not None:
        until((place / "control" / "exit").exists)
    assert (tmp_path / "started").exists() is not inputs


class CutLocal(LocalHost):
    """This machine, in the same way, for batch jobs."""

    carried: int | None = None

    async def run(
        self,
        argv: tuple[str, ...],
        *,
        stdin: bytes = b"",
        cwd: str = "/",
        env: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> Answer:
        said = stdin[: self.carried]
        answer = await super().run(argv, stdin=said, cwd=cwd, env=env, timeout_s=timeout_s)
        if said != stdin:
            raise Unavailable("ssh.unreachable", host="far", said="")
        return answer


def test_a_part_of_what_a_batch_job_is_to_run_is_never_what_it_runs(tmp_path: Path) -> None:
    host = CutLocal()
    spec = a_launch(tmp_path, "/bin/true")
    whole = launch_text(spec).encode()
    control, launch = Control(host, 30), Path(spec.control_dir, "launch")
    for carried in (0, 1, len(whole) // 2, len(whole) - 1):
        host.carried = carried
        with pytest.raises(Unavailable):
            anyio.run(control.place, spec)
        assert not launch.exists()
    host.carried = None
    assert anyio.run(control.place, spec)
    assert launch.read_bytes() == whole
    host.carried = len(whole) // 2  # who was cut off long ago is noticed now
    with pytest.raises(Unavailable):
        anyio.run(control.place, spec)
    assert launch.read_bytes() == whole
    assert sorted(file.name for file in Path(spec.control_dir).iterdir()) == ["launch", "script"]
