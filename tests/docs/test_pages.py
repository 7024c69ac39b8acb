"""Every command and every settings file of the documents is executed, in order, as it stands.

`./dev test` in a page collects the tests but does not run them again: it would never end.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from sekisho.config.manifest import parse_manifest
from tests.docs.machines import Machines
from tests.docs.page import EXECUTED, LANGUAGES, ROOT, Block, Directive, pages, pieces

ENGLISH = [page for page in pages() if not page.startswith("docs/ja/") and ".ja." not in page]
RUNNABLE = [
    page
    for page in ENGLISH
    if any(isinstance(p, Block) and p.language in EXECUTED for p in pieces(page))
]
LINK = re.compile(r"\]\((?P<target>[^)#:\s]+)(?:#[^)]*)?\)")


def japanese_of(page: str) -> str:
    if page.startswith("docs/en/"):
        return page.replace("docs/en/", "docs/ja/")
    return page.replace(".md", ".ja.md")


@pytest.mark.time_limit(1800)
@pytest.mark.parametrize("page", RUNNABLE)
def test_every_command_of_the_page_works_as_it_stands(page: str, tmp_path: Path) -> None:
    with Machines(tmp_path) as machines:
        machines.follow(page)


def test_the_pages_are_executed_at_all() -> None:
    modes = {"docs/en/pull-mode.md", "docs/en/push-mode.md"}
    assert {"README.md", "docs/en/broker.md"} | modes <= set(RUNNABLE)


def test_a_command_that_fails_fails_the_page(tmp_path: Path) -> None:
    with Machines(tmp_path) as machines, pytest.raises(AssertionError, match="no-such-command"):
        machines._execute(Block("sh", ("site",), "sekisho no-such-command\ntrue\n"))  # noqa: SLF001


@pytest.mark.parametrize("page", ENGLISH)
def test_every_page_is_there_in_japanese_with_the_same_commands(page: str) -> None:
    assert (ROOT / japanese_of(page)).is_file()
    assert executed(japanese_of(page)) == executed(page)


def test_no_japanese_page_is_alone() -> None:
    english = {japanese_of(page) for page in ENGLISH}
    assert {page for page in pages() if page not in ENGLISH} == english


def executed(page: str) -> list[Block | Directive]:
    return [p for p in pieces(page) if isinstance(p, Directive) or p.language in EXECUTED]


@pytest.mark.parametrize("page", pages())
def test_every_fence_says_what_it_holds_and_shell_blocks_where_they_are_typed(page: str) -> None:
    fences = (ROOT / page).read_text("utf-8").count("\n```")
    blocks = [piece for piece in pieces(page) if isinstance(piece, Block)]
    assert fences == 2 * len(blocks)
    for block in blocks:
        assert block.language in LANGUAGES, block
        assert bool(block.words) == (block.language in EXECUTED), block


@pytest.mark.parametrize("page", pages())
def test_every_settings_file_in_a_page_is_valid(page: str) -> None:
    for block in pieces(page):
        if isinstance(block, Block) and block.language == "toml":
            tomllib.loads(block.text)
            if block.text.startswith("schema = "):
                parse_manifest(block.text, page)
        if isinstance(block, Block) and block.language == "json":
            json.loads(block.text)


@pytest.mark.parametrize("page", [*pages(), "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    here = (ROOT / page).parent
    for link in LINK.finditer((ROOT / page).read_text("utf-8")):
        assert (here / link["target"]).exists(), link["target"]
