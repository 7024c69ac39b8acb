"""The project's own files keep what CONTRIBUTING.md and the decisions in docs/adr say of them."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[^\s;]+)(?: ; (?P<marker>[^\\]+))?")

# What an installer would fetch from, or be told to trust, beside the index of the machine.
ADDRESS = re.compile(
    r"://|--(?:extra-)?index|--find-links|--trusted|^-[a-zA-Z]\b| @ |\bfile:|\.com\b"
)

# Written as patterns that do not match their own text.
FORBIDDEN_EVERYWHERE = {
    "a place on one developer's machine": r"(?<![\w.-])/(?:root/\.|opt/pypi|work/(?:main|shared))",
    "the host of a package registry": r"\b(?:pypi|debian|npmjs)\.org\b|pythonhosted\.org\b",
}
FORBIDDEN_IN_PROGRAMS = {
    "a shell between us and a command": r"\bshell\s*=\s*[T]rue\b|\bos\.[s]ystem\(",
    "TLS without verification": r"\bverify\s*=\s*[F]alse\b|\b[C]ERT_NONE\b|_create_[u]nverified",
    "objects made from foreign bytes": r"^\s*(?:import|from) [p]ickle\b|\b[y]aml\.load\(",
    # some releases of Python 3.11 wrap what is raised there in a group, others do not
    "a group's own except": r"\bexcept\*",
}
FORBIDDEN_IN_TESTS = {
    "a mock": r"\bunittest[.]mock\b|\bMagic[M]ock\b|\bfrom unittest import .*\b[m]ock\b",
    "a test left out": r"\bpytest[.](?:skip|xfail|importorskip|mark[.](?:skip|skipif|xfail))\b",
}
PROGRAMS = {"src", "examples", "bench", "deploy", "docs"}


def logical_lines(lock: Path) -> list[str]:
    text = lock.read_text("utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def locked(name: str) -> dict[str, str]:
    pins = (PIN.match(line) for line in logical_lines(ROOT / "requirements" / name))
    return {pin["name"]: pin["version"] for pin in pins if pin}


def direct_requirements() -> Iterator[tuple[str, Requirement]]:
    """Every requirement that pyproject.toml names, with the lock file that must pin it."""
    extras: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
    groups: dict[str, list[str | dict[str, str]]] = PROJECT["dependency-groups"]
    for text in PROJECT["project"]["dependencies"]:
        yield "site.txt", Requirement(text)
    for extra, texts in extras.items():
        lock = "demo.txt" if extra == "demo" else "broker.txt"
        yield from ((lock, Requirement(text)) for text in texts)
    for group, entries in groups.items():
        yield from ((f"{group}.txt", Requirement(e)) for e in entries if isinstance(e, str))


def project_files() -> list[Path]:
    """Tracked files, and new ones that are not ignored: a fault is found before the commit."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    files = (ROOT / name for name in listing.split("\0") if name)
    return [file for file in files if file.is_file() and not file.is_symlink()]


def offences(rules: dict[str, str], files: list[Path]) -> list[str]:
    found = []
    for file in files:
        text = file.read_text("utf-8", errors="replace")
        for meaning, pattern in rules.items():
            for match in re.finditer(pattern, text, re.MULTILINE):
                line = text.count("\n", 0, match.start()) + 1
                found.append(f"{file.relative_to(ROOT)}:{line}: {meaning}: {match[0]!r}")
    return found


def run_dev(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = [str(ROOT / "dev"), *argv]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


def verbs() -> set[str]:
    """Verbs of the case statement that ends `dev`."""
    cases = (ROOT / "dev").read_text("utf-8").rpartition("case $verb in")[2]
    return {
        verb
        for arm in re.findall(r"^  ([a-z][a-z |-]*)\)", cases, re.MULTILINE)
        for verb in arm.split(" | ")
        if not verb.startswith("-")
    }


def test_there_is_a_lock_file_for_users_for_development_for_building_and_for_locking() -> None:
    names = ["broker.txt", "build.txt", "demo.txt", "dev.txt", "lock.txt", "site.txt"]
    assert [lock.name for lock in LOCKS] == names


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_line_of_a_lock_file_is_a_pin_with_hashes(lock: Path) -> None:
    lines = logical_lines(lock)
    assert lines
    assert [line for line in lines if not (PIN.match(line) and HASH.search(line))] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_file_names_no_index_no_host_and_no_address(lock: Path) -> None:
    lines = lock.read_text("utf-8").splitlines()
    assert [line for line in lines if ADDRESS.search(line)] == []


def test_every_direct_dependency_is_locked_at_a_version_that_it_allows() -> None:
    unmet = [
        f"{lock}: {requirement}"
        for lock, requirement in direct_requirements()
        if not requirement.specifier.contains(
            locked(lock).get(canonicalize_name(requirement.name), "0")
        )
    ]
    assert unmet == []


@pytest.mark.parametrize("part", ["broker.txt", "demo.txt", "site.txt", "build.txt"])
def test_what_users_install_is_exactly_what_is_tested(part: str) -> None:
    assert locked(part).items() <= locked("dev.txt").items()


def test_a_site_installs_at_most_eight_direct_dependencies() -> None:
    assert len(PROJECT["project"]["dependencies"]) <= 8


def test_every_direct_dependency_has_its_reason_in_the_decision_record() -> None:
    record = (ROOT / "docs/adr/0001-dependencies.md").read_text("utf-8").lower()
    names = {requirement.name for _, requirement in direct_requirements()}
    assert sorted(name for name in names if f"`{name}" not in record) == []


def test_every_decision_has_a_number_of_its_own_in_order() -> None:
    files = sorted(ROOT.glob("docs/adr/[0-9]*.md"))
    titles = [(file.name[:4], file.read_text("utf-8")[2:6]) for file in files]
    assert titles == [(f"{n:04d}", f"{n:04d}") for n in range(1, len(files) + 1)]


def test_the_help_of_dev_names_every_verb(tmp_path: Path) -> None:
    result = run_dev(cwd=tmp_path)
    explained = set(re.findall(r"^  ([a-z]+) ", result.stdout, re.MULTILINE))
    assert result.returncode == 0
    assert explained == verbs()


def test_dev_refuses_a_verb_that_it_does_not_know(tmp_path: Path) -> None:
    result = run_dev("chekc", cwd=tmp_path)
    assert result.returncode == 64
    assert "chekc" in result.stderr


def test_every_verb_of_dev_is_explained_to_contributors() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert sorted(verb for verb in verbs() if f"./dev {verb}" not in guide) == []


def test_no_file_names_one_machine_or_one_registry() -> None:
    assert offences(FORBIDDEN_EVERYWHERE, project_files()) == []


def test_no_program_opens_a_door_that_the_project_has_closed() -> None:
    programs = [f for f in project_files() if f.relative_to(ROOT).parts[0] in PROGRAMS]
    assert offences(FORBIDDEN_IN_PROGRAMS, programs) == []


def test_no_test_is_left_out_and_none_uses_a_mock() -> None:
    tests = [f for f in project_files() if f.relative_to(ROOT).parts[0] == "tests"]
    assert offences(FORBIDDEN_IN_TESTS, tests) == []


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        (FORBIDDEN_EVERYWHERE, "/".join(["cd ", "work", "main"])),
        (FORBIDDEN_EVERYWHERE, "https://" + ".".join(["files", "pythonhosted", "org"])),
        (FORBIDDEN_IN_PROGRAMS, "run(line, shell=" + "True)"),
        (FORBIDDEN_IN_PROGRAMS, "Client(verify=" + "False)"),
        (FORBIDDEN_IN_PROGRAMS, "import " + "pickle"),
        (FORBIDDEN_IN_PROGRAMS, "except" + "* OSError:"),
        (FORBIDDEN_IN_TESTS, "from unittest " + "import mock"),
        (FORBIDDEN_IN_TESTS, "@pytest." + "mark.skipif(condition)"),
    ],
)
def test_the_search_finds_what_is_forbidden(rules: dict[str, str], line: str) -> None:
    assert sum(bool(re.search(rule, line, re.MULTILINE)) for rule in rules.values()) == 1
