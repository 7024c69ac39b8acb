"""Jobs that share an input by the site's word: one file for a submitter's jobs, always right.

The agent runs as an ordinary account does, held back by the modes of files, also when tests do not.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from sekisho.api import JobError, JobSpec, Result, connect
from tests.faults.trio import MANIFEST, SITE, Trio, private, typed
from tests.modes import ORDINARY
from tests.proxy import Proxy

MIB: Final = 1 << 20
MESH: Final = 8 * MIB
DOWN: Final = "POST /v1/site/jobs/{id}/chunks/fetch"
SHARING: Final = MANIFEST.replace('path = "in/**"', 'path = "in/**"\nread_only = true')
#: Commands that do what they should not to an input.
WRONG: Final = """
[[command]]
name = "wrong"
argv = ["/bin/sh", "-c", "{script}"]
time_limit_s = 300
[[command.input]]
path = "in/**"
read_only = true
[[command.output]]
path = "in/**"
[[command.output]]
path = "out/**"
"""


@pytest.fixture
def trio(still: Trio) -> Trio:
    still.start_broker()
    return still


@pytest.fixture
def mesh(trio: Trio) -> Path:
    return trio.some_input(MESH)


def serve(trio: Trio, script: str = "", before: Sequence[str] = ORDINARY) -> None:
    """Start the agent of a site whose commands share their inputs."""
    more = WRONG.replace("{script}", script) if script else ""
    (trio.site / "manifest.toml").write_text(SHARING.format(home=trio.home) + more)
    trio.start_agent(*before)


def run(trio: Trio, mesh: Path, key: str, command: str = "work", **changes: object) -> Result:
    """Carry one job to its end; return how it ended."""
    parameters = {"key": key, "pause": "0"} if command == "work" else {}
    given = {"outputs": ["out/**"], "inputs": {"in/given": mesh}} | changes
    spec = JobSpec(site=SITE, command=command, parameters=parameters, **given)  # type: ignore[arg-type]
    with trio.connect() as client:
        try:
            return client.submit(spec).result(trio.home / f"got-{key}", timeout=120)
        except JobError as error:
            return error.result


def placed(trio: Trio, job: str) -> os.stat_result:
    """Return what the job was given, which is kept for a while."""
    return (trio.site / "work" / job / "1" / "work" / "in" / "given").stat()


def bytes_down(proxy: Proxy) -> int:
    return sum(len(r.bytes) + len(answer) for r, answer in proxy.seen if r.route == DOWN)


def right(trio: Trio, mesh: Path, key: str) -> Result:
    """Carry a job that gives its input back, and see that this is what was sent."""
    result = run(trio, mesh, key)
    assert result.exit_code == 0
    assert (trio.home / f"got-{key}" / "out/in/given").read_bytes() == mesh.read_bytes()
    return result


def test_the_second_job_gets_the_same_file_without_a_byte_of_it_written_or_fetched(
    trio: Trio, mesh: Path
) -> None:
    serve(trio)
    first = right(trio, mesh, "a")
    trio.proxy.seen.clear()
    second = right(trio, mesh, "b")
    seen = placed(trio, second.job)
    assert seen.st_ino == placed(trio, first.job).st_ino
    assert stat.S_IMODE(seen.st_mode) == 0o444
    assert bytes_down(trio.proxy) < 0.05 * MESH
    assert seen.st_nlink == 3  # two jobs, and the stock


def test_without_the_sites_word_each_job_has_its_own(trio: Trio, mesh: Path) -> None:
    """Shows that the test above can fail."""
    trio.start_agent(*ORDINARY)
    first, second = (right(trio, mesh, key) for key in "ab")
    assert placed(trio, first.job).st_ino != placed(trio, second.job).st_ino
    assert placed(trio, second.job).st_mode & stat.S_IWUSR


def test_a_command_that_tries_to_write_to_it_fails_and_changes_nothing(
    trio: Trio, mesh: Path
) -> None:
    serve(trio, "printf x >> in/given")
    first = right(trio, mesh, "a")
    assert run(trio, mesh, "w", "wrong").exit_code not in (0, None)
    second = right(trio, mesh, "b")
    assert placed(trio, second.job).st_ino == placed(trio, first.job).st_ino


def test_a_command_that_takes_the_right_and_writes_harms_no_later_job(
    trio: Trio, mesh: Path
) -> None:
    """It does not wait for the kernel's 45 s either: the agent gives way at once."""
    serve(trio, "chmod u+w in/given && printf x | dd of=in/given conv=notrunc && mkdir out")
    first = right(trio, mesh, "a")
    spoilt = run(trio, mesh, "w", "wrong")
    assert spoilt.exit_code == 0
    assert spoilt.started_at is not None
    assert spoilt.ended_at is not None
    assert (spoilt.ended_at - spoilt.started_at).total_seconds() < 30
    assert placed(trio, spoilt.job).st_ino == placed(trio, first.job).st_ino  # it really was shared
    second = right(trio, mesh, "b")
    trio.agent.event("stock_file_dropped")
    third = right(trio, mesh, "c")
    assert placed(trio, second.job).st_ino == placed(trio, third.job).st_ino
    assert placed(trio, second.job).st_ino != placed(trio, first.job).st_ino


def test_a_command_in_a_sandbox_reads_what_is_shared(trio: Trio, mesh: Path) -> None:
    serve(trio, "mkdir out && cp in/given out/copy")
    manifest = trio.site / "manifest.toml"
    manifest.write_text(manifest.read_text() + "[command.sandbox]\n")
    first, second = (run(trio, mesh, key, "wrong") for key in "ab")
    assert placed(trio, second.job).st_ino == placed(trio, first.job).st_ino
    assert (trio.home / "got-b" / "out/copy").read_bytes() == mesh.read_bytes()


def test_a_stock_that_is_damaged_while_no_agent_runs_reaches_no_job(trio: Trio, mesh: Path) -> None:
    serve(trio)
    right(trio, mesh, "a")
    trio.agent.stop()
    (file,) = (trio.site / "work" / ".stock").glob("*/*")
    file.chmod(0o600)
    with file.open("r+b") as opened:
        opened.seek(MESH // 2)
        other = bytes([opened.read(1)[0] ^ 1])
        opened.seek(MESH // 2)
        opened.write(other)
    trio.start_agent(*ORDINARY)
    right(trio, mesh, "b")
    trio.agent.event("stock_file_dropped")


def test_another_submitter_gets_another_file(trio: Trio, mesh: Path) -> None:
    config = ("-c", trio.broker_config)
    typed("broker", "site", "users", SITE, "--user", "alice", "--user", "bob", *config)
    who = ("--role", "submitter", "--user", "bob")
    typed("broker", "token", "create", *who, "--to", trio.home / "bobs", *config)
    settings = trio.client_config.with_name("bob.toml")
    text = trio.client_config.read_text()
    private(settings, text.replace(str(trio.home / "token"), str(trio.home / "bobs")))
    serve(trio)
    manifest = trio.site / "manifest.toml"
    manifest.write_text(manifest.read_text().replace('["alice"]', '["alice", "bob"]'))
    mine = right(trio, mesh, "a")
    with connect(settings) as client:
        theirs = client.submit(trio.spec("b", source=mesh)).result(trio.home / "bob", timeout=120)
    assert placed(trio, theirs.job).st_ino != placed(trio, mine.job).st_ino
    assert len(list((trio.site / "work" / ".stock").iterdir())) == 2


@pytest.mark.parametrize("shared", [True, False])
def test_a_shared_input_never_leaves_as_an_output(trio: Trio, mesh: Path, *, shared: bool) -> None:
    """It has several names, which is how a link to a secret looks; a copy of it leaves."""
    serve(trio, "mkdir out && cp in/given out/copy")
    if not shared:  # shows that the rule would let it leave
        manifest = trio.site / "manifest.toml"
        manifest.write_text(manifest.read_text().replace("read_only = true", ""))
    result = run(trio, mesh, "w", "wrong", outputs=["in/**", "out/**"])
    names = sorted(str(file.relative_to(trio.home / "got-w")) for file in result.files)
    assert names == (["out/copy"] if shared else ["in/given", "out/copy"])
    assert (trio.home / "got-w" / "out/copy").read_bytes() == mesh.read_bytes()


def test_an_agent_killed_while_a_job_runs_shares_what_it_finds_right(
    trio: Trio, mesh: Path
) -> None:
    serve(trio)
    with trio.connect() as client:
        job = client.submit(trio.spec("a", "gate", mesh))
        trio.agent.event("run_moved", job=job.id, stage="running")
        trio.agent.kill()
        trio.start_agent(*ORDINARY)
        trio.open_gate()
        assert job.result(trio.home / "got", timeout=120).exit_code == 0
    second = right(trio, mesh, "b")
    assert placed(trio, second.job).st_ino == placed(trio, job.id).st_ino


def test_the_stock_and_the_cache_together_keep_to_the_setting(trio: Trio, mesh: Path) -> None:
    settings = trio.site / "agent.toml"
    most = MESH + 4 * MIB
    settings.write_text(settings.read_text().replace("[site]", f"[site]\ncache_bytes = {most}"))
    assert str(most) in settings.read_text()
    serve(trio)
    first = right(trio, mesh, "a")
    second = right(trio, mesh, "b")
    assert placed(trio, second.job).st_ino == placed(trio, first.job).st_ino
    stock, cache = trio.site / "work" / ".stock", trio.site / "state" / "cache"
    kept = [path.stat() for each in (stock, cache) for path in each.rglob("*") if path.is_file()]
    assert MESH <= sum(seen.st_size for seen in kept) <= most


def test_an_account_that_no_mode_holds_back_shares_nothing(trio: Trio, mesh: Path) -> None:
    serve(trio, before=())
    first, second = (right(trio, mesh, key) for key in "ab")
    same = placed(trio, first.job).st_ino == placed(trio, second.job).st_ino
    assert same == (os.geteuid() != 0)
