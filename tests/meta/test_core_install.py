"""A site installs the core alone: what it runs needs none of the broker's packages."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sekisho.cli.broker import broker
from sekisho.cli.main import cli
from sekisho.cli.site import site
from sekisho.domain.errors import UsageError

ROOT = Path(__file__).parents[2]
BLOCK = """
import sys
from importlib.abc import MetaPathFinder

class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Blocked())
import {module}
"""


def packages(lock: str) -> set[str]:
    text = (ROOT / "requirements" / lock).read_text()
    return set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))


def beyond_the_core() -> set[str]:
    """Return the top-level modules of what only broker and demo need."""
    renamed = {"scikit-fem": "skfem", "pillow": "PIL", "python-dateutil": "dateutil"}
    extra = (packages("broker.txt") | packages("demo.txt")) - packages("site.txt")
    return {renamed.get(name, name.replace("-", "_")) for name in extra}


@pytest.mark.parametrize(
    "module",
    [
        "sekisho.api",
        "sekisho.cli.main",
        "sekisho.cli.agent",
        "sekisho.cli.broker",
        *sorted({place.partition(":")[0] for place in site.places.values()}),
        "sekisho.cli.run",
        "sekisho.cli.jobs",
        "sekisho.cli.gate",
        "sekisho.compose.client",
        "sekisho.compose.gate",
        "sekisho.compose.push",
        "sekisho.compose.site",
        "sekisho.compose.site_check",
    ],
)
def test_the_core_is_enough_for_a_site_and_for_the_workflow_side(module: str) -> None:
    names = sorted(beyond_the_core())
    assert {"sqlalchemy", "starlette", "uvicorn", "numpy"} <= set(names)
    program = BLOCK.format(names=set(names), module=module)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_broker_does_need_more() -> None:
    """The control: what is blocked is really blocked."""
    program = BLOCK.format(names=beyond_the_core(), module="sekisho.compose.broker")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "ModuleNotFoundError" in done.stderr


def test_a_command_whose_part_is_not_installed_says_what_to_install() -> None:
    block = BLOCK.format(names=beyond_the_core(), module="sekisho.cli.main")
    program = f"{block}\nsys.exit(sekisho.cli.main.run(sys.argv[1:]))"
    argv = [sys.executable, "-c", program, "--lang", "en", "broker"]
    told = subprocess.run([*argv, "token", "list"], capture_output=True, text=True, check=False)
    assert told.returncode == UsageError.exit_status
    assert "`sekisho broker token` needs a part that is not installed (" in told.stderr
    assert "pip install 'sekisho[broker]'" in told.stderr
    assert subprocess.run([*argv, "--help"], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("words", [[], ["site"], ["broker"]])
def test_help_imports_no_command(words: list[str]) -> None:
    """To start is quick: what a command needs is imported when it is called."""
    groups = (cli, site, broker)
    places = {place.partition(":")[0] for group in groups for place in group.places.values()}
    places -= {f"sekisho.cli.{word}" for word in words}
    program = f"""
import sys
from sekisho.cli.main import run
run({[*words, "--help"]})
print(sorted({places} & sys.modules.keys()))
"""
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
