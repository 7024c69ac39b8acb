"""Commands that outlive the connection which started them, on a host without a batch system."""
# ruff: noqa: ASYNC240 - a test may block its own loop for a small local file

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.adapters.hosts.host_local import LocalHost
from sekisho.adapters.schedulers.detached import DetachedScheduler
from sekisho.site.scheduler import Exited, LaunchSpec, Running, Scheduler, Ticket
from tests.contract.test_scheduler import POLITE, SchedulerContract
from tests.farhost import Far, far_host
from tests.launching import SHELL, a_gate, a_launch, over, until


class TestDetached(SchedulerContract):
    @pytest.fixture
    async def scheduler(self) -> Scheduler:
        return DetachedScheduler(LocalHost(), settle_s=0.5)

    def never_submitted(self, spec: LaunchSpec) -> Ticket:
        return Ticket(
            token=spec.token,
            work_dir=spec.work_dir,
            control_dir=spec.control_dir,
            reference="-",
        )


@pytest.fixture(scope="module", params=["usual", "noisy", "busybox"])
def far(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    kind = request.param
    place = tmp_path_factory.mktemp("far")
    with far_host(place, noisy=kind == "noisy", busybox=kind == "busybox") as host:
        yield host


@pytest.mark.anyio
async def test_a_command_goes_on_while_every_connection_is_cut(far: Far) -> None:
    room = far.room()
    spec = a_launch(room, *SHELL, f"id -u >me; {POLITE}; exit 7")
    a_gate(spec)
    far.give(room)
    scheduler = DetachedScheduler(far.host, settle_s=0.5)
    ticket = await scheduler.submit(spec)
    await until(Path(spec.work_dir, "pid").exists)
    far.server.cut()
    far.host.ssh.disconnect()
    seen = (await scheduler.observe([ticket]))[ticket]
    assert isinstance(seen, Running)
    Path(spec.work_dir, "gate").write_text("go\n")
    ended = await over(scheduler, ticket, 60)
    assert isinstance(ended, Exited)
    assert ended.exit.code == 7
    assert Path(spec.work_dir, "me").read_text() == f"{far.uid}\n"
