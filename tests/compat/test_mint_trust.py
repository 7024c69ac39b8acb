"""Whom the old command lines trust: the authority behind `no_auth:`, and nobody without one."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.compat.old_broker import TOKEN, OldBroker, old_broker
from tests.compat.old_lines import SECONDS, argv, run
from tests.compat.test_mint_agent import a_site
from tests.faults.program import clean_environ
from tests.faults.trio import private
from tests.integration.http_process import certificates


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[OldBroker]:
    with old_broker(certificates(tmp_path)) as broker:
        private(tmp_path / "token", TOKEN)
        broker.refused.append("add-calcinfo")
        yield broker


@pytest.mark.parametrize(
    ("words", "code"), [(["no_auth:ca.pem"], "mint.answer"), ([], "broker.tls")]
)
def test_the_workflows_line_trusts_the_authority_that_it_is_told(
    broker: OldBroker, tmp_path: Path, words: list[str], code: str
) -> None:
    line = (broker.url, "company", "file:token", "/opt/solver/bin/solve", "", "out.txt", *words)
    status, _, err = run("workflow", *line, cwd=tmp_path)
    assert (status, code in err) == (1, True), err
    assert broker.calls == ["add-calcinfo"] * len(words)


@contextmanager
def serving(place: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run the agent's line in ``place`` until the end of the block."""
    environ = clean_environ(place) | {"SEKISHO_SITE_DIR": str(place / "site")}
    line = argv("remote", "company", *words)
    with subprocess.Popen(line, cwd=place, env=environ, stdout=-1, stderr=-1, text=True) as process:
        late = threading.Timer(SECONDS, process.kill)
        late.start()
        try:
            yield process
        finally:
            late.cancel()
            process.kill()


@pytest.fixture
def site(broker: OldBroker, tmp_path: Path) -> None:
    a_site(broker, tmp_path)


@pytest.mark.usefixtures("site")
def test_the_agents_line_trusts_the_authority_that_it_is_told(
    broker: OldBroker, tmp_path: Path
) -> None:
    with serving(tmp_path, broker.url, "file:token", "no_auth:ca.pem") as process:
        assert process.stdout is not None
        assert "GET calc-request: 200\n" in process.stdout


@pytest.mark.usefixtures("site")
def test_the_agents_line_trusts_nobody_else_and_says_more_when_asked(
    broker: OldBroker, tmp_path: Path
) -> None:
    """It goes on trying, and `debug` shows each try."""
    with serving(tmp_path, broker.url, "file:token", "debug") as process:
        assert process.stderr is not None
        lines = iter(process.stderr)
        assert any('"code":"broker.tls"' in line for line in lines)
        assert any('"level":"debug"' in line for line in lines)
    assert broker.calls == []
