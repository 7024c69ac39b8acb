"""What tests of every kind share: a time limit, the loop's kind, and a real PostgreSQL server."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.postgres import a_database

pytest_plugins = ["tests.time_limit"]

_ROOT = Path(__file__).parents[1]


# Machines are shared and slow at times: how long an example takes says nothing of the code. In CI
# every run tries the same examples, so that a change is judged by what it changed.
settings.register_profile(
    "shared",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("shared")


@pytest.fixture(scope="session", autouse=True)
def home_of_nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give all tests, and what they start, a home that is empty at first and nobody's."""
    home = tmp_path_factory.mktemp("home")
    sockets = Path(tempfile.mkdtemp(prefix="sk-", dir="/tmp"))  # short: the names of sockets are
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(home))
        patch.setenv("XDG_RUNTIME_DIR", str(sockets))
        yield home
    shutil.rmtree(sockets, ignore_errors=True)  # a connection that ends just now removes its own


@pytest.fixture(scope="session")
def plain_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give a PATH with all programs but those that `./dev test` may have to install."""
    ours = Path(sys.executable).parent
    room = tmp_path_factory.mktemp("programs")
    script = (_ROOT / "dev").read_text("utf-8")
    installed = {"ssh", "ssh-keygen", *re.findall(r'(?m)^  "\S+ ([^/\s]+)"', script)}
    assert {"sshd", "setfacl"} < installed
    for folder in map(Path, os.get_exec_path()):
        for program in folder.iterdir() if folder.is_dir() and folder != ours else ():
            if program.name not in installed and not (room / program.name).is_symlink():
                (room / program.name).symlink_to(program)
    return f"{ours}:{room}"


@pytest.fixture(autouse=True)
def quick_tests_run_anywhere(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hide from quick tests what a fresh machine may lack: `./dev check` installs no packages."""
    if request.path.parent.name in {"unit", "property", "meta"}:
        monkeypatch.setenv("PATH", request.getfixturevalue("plain_path"))


@pytest.fixture(autouse=True)
def checkout_as_found() -> Iterator[None]:
    """Fail a test during which something appears in the checkout: results belong elsewhere."""
    before = _seen()
    yield
    assert _seen() <= before


def _seen() -> set[str]:
    names = (entry.name for entry in os.scandir(_ROOT))
    return {name for name in names if not name.startswith(".")}


@pytest.fixture(autouse=True)
def logging_as_delivered() -> Iterator[None]:
    """Undo what a test's program said about logging: it holds for a whole process."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """Run a throw-away server on a socket of its own, as safe as delivered; give its URL."""
    with a_database() as url:
        yield url
