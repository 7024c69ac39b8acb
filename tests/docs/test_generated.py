"""Lists in the documents agree with the source, and every promise has tests that exist."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROMISES: dict[str, dict[str, list[str]]] = tomllib.loads(
    (ROOT / "docs" / "promises.toml").read_text("utf-8")
)


def generate(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    script = place / "generate.py"
    return subprocess.run(
        [sys.executable, script, *words], capture_output=True, text=True, check=False, cwd=ROOT
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the documents, to be spoiled."""
    place = tmp_path / "docs"
    for file in [*(ROOT / "docs").glob("*.*"), *(ROOT / "docs").glob("??/*.md")]:
        target = place / file.relative_to(ROOT / "docs")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    return place


def test_the_generated_parts_are_up_to_date() -> None:
    done = generate(ROOT / "docs", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_table_that_was_changed_by_hand_is_noticed_and_mended(copy: Path) -> None:
    page = copy / "en" / "api.md"
    right = page.read_text("utf-8")
    page.write_text(right.replace("`POST /v1/site/poll` |", "`POST /v1/site/pull` |"), "utf-8")
    assert page.read_text("utf-8") != right
    assert generate(copy, "--check").returncode == 1
    assert generate(copy).returncode == 0
    assert page.read_text("utf-8") == right


def test_a_field_without_words_and_words_without_a_field_are_faults(copy: Path) -> None:
    words = copy / "words.toml"
    right = words.read_text("utf-8")
    for wrong in (right.replace("exit_code = ", "exit_kode = "), right + "\n[nothing]\na = 'b'\n"):
        words.write_text(wrong, "utf-8")
        assert generate(copy, "--check").returncode == 1


def test_every_observable_message_is_on_the_page_that_lists_them() -> None:
    """What a submitter is answered, and what a site sends, is printed field by field."""
    from sekisho.domain.access import Scope  # noqa: PLC0415
    from sekisho.http.routes import routes  # noqa: PLC0415
    from sekisho.wire import v1  # noqa: PLC0415

    submitter = {Scope.JOB_SUBMIT, Scope.JOB_READ, Scope.JOB_CANCEL}
    rows = routes(_Nobody())  # type: ignore[arg-type]
    site = {Scope.SITE_JOIN, Scope.SITE_WORK}
    seen = {row.gives for row in rows if row.scope in submitter}
    seen |= {row.takes for row in rows if row.scope in site and row.takes is not None}
    messages = {kind.__name__ for kind in seen if kind.__module__ == v1.__name__}
    page = (ROOT / "docs" / "en" / "observable.md").read_text("utf-8")
    missing = {name for name in messages - {"Done"} if f"fields v1.{name} " not in page}
    assert messages > {"JobView", "SiteList", "Verdict"}
    assert not missing


class _Nobody:
    def __getattr__(self, _name: str) -> _Nobody:
        return self


def test_no_test_is_counted_twice_for_a_promise() -> None:
    for name, promise in PROMISES.items():
        assert len(set(promise["tests"])) == len(promise["tests"]), name


def test_there_are_ten_promises_and_each_has_tests() -> None:
    assert list(PROMISES) == [f"P{n}" for n in range(1, 11)]
    assert all(promise["tests"] for promise in PROMISES.values())


@pytest.mark.parametrize(
    "test", sorted({test for promise in PROMISES.values() for test in promise["tests"]})
)
def test_the_tests_of_the_promises_exist(test: str) -> None:
    file, name = test.split("::")
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, functions)}
