"""The files that a new site begins with work, explain every key, and are filled in at the join."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import msgspec
import pytest

from sekisho.config import manifest as tables
from sekisho.config.load import parse
from sekisho.config.manifest import ManifestTable, parse_manifest
from sekisho.config.parameter import ParameterTable
from sekisho.config.site import SiteSettings
from sekisho.config.site_template import (
    UNNAMED,
    agent_text,
    manifest_text,
    with_site,
    with_submitters,
)
from sekisho.domain.manifest import Order, admit

NEW = manifest_text(site=None, submitters=())
JAPANESE = re.compile(r"[぀-ヿ一-鿿]")


def unmarked(text: str) -> str:
    """Take the mark off every line of the second example, as its readers are told to."""
    head, example = text.split("# A realistic example", 1)
    _, example = example.split("\n#\n", 1)
    return head + "\n".join(
        line.removeprefix("#").removeprefix(" ") for line in example.split("\n")
    )


def keys_of(table: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(table)}


def keys_in(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for inner in value.values() for key in keys_in(inner)}
    if isinstance(value, list):
        return {key for inner in value for key in keys_in(inner)}
    return set()


def test_the_manifest_works_as_it_is() -> None:
    manifest = parse_manifest(manifest_text(site="one", submitters=["tanaka"]), "manifest.toml")
    order = Order(submitter="tanaka", command="hello", parameters={}, inputs=[], outputs=[])
    assert admit(manifest, order).argv == ("/bin/echo", "Hello,", "World")


def test_the_manifest_of_a_new_site_serves_nobody() -> None:
    assert parse_manifest(NEW, "manifest.toml").submitters.users == frozenset()


def test_the_second_example_works_when_its_marks_are_taken_off() -> None:
    manifest = parse_manifest(unmarked(NEW), "manifest.toml")
    assert sorted(manifest.commands) == ["hello", "notch-analysis"]


@pytest.mark.parametrize(
    "table",
    [
        ManifestTable,
        tables.CommandTable,
        ParameterTable,
        tables.InputTable,
        tables.OutputTable,
        tables.LogTable,
        tables.LimitsTable,
        tables.DescriptionTable,
    ],
)
def test_every_key_of_the_manifest_is_shown(table: type[msgspec.Struct]) -> None:
    """Kills a key that was added to the manifest and not to its example."""
    assert sorted(keys_of(table) - keys_in(tomllib.loads(unmarked(NEW)))) == []


@pytest.mark.parametrize("text", [NEW, agent_text(url="https://b.example", ca_file=None)])
def test_a_file_explains_itself_in_both_languages(text: str) -> None:
    comments = [line for line in text.splitlines() if line.lstrip("# ").strip() and "#" in line]
    assert sum(JAPANESE.search(line) is not None for line in comments) >= 8
    assert sum(re.search(r"[a-z]{3} [a-z]{2}", line) is not None for line in comments) >= 8


def test_a_placeholder_is_replaced_once_and_a_decision_never() -> None:
    filled = with_submitters(with_site(NEW, "one"), ["sato", "tanaka"])
    manifest = parse_manifest(filled, "manifest.toml")
    assert (manifest.site, manifest.submitters.users) == ("one", frozenset({"sato", "tanaka"}))
    assert with_submitters(with_site(filled, "two"), ["mallory"]) == filled


def test_nothing_but_the_two_placeholders_changes() -> None:
    filled = with_submitters(with_site(NEW, "one"), ["sato"])
    before, after = NEW.splitlines(), filled.splitlines()
    changed = [line for line, new in zip(before, after, strict=True) if line != new]
    assert changed == [f'site = "{UNNAMED}"', "submitters = []"]


@pytest.mark.parametrize("ca_file", [None, "ca.pem"])
def test_the_settings_work_as_they_are(ca_file: str | None) -> None:
    settings = parse(agent_text(url="https://b.example", ca_file=ca_file), "a", SiteSettings)
    assert (settings.broker.url, settings.broker.ca_file) == ("https://b.example", ca_file)
    assert settings.broker.token_file == "token"


def test_every_key_of_the_settings_is_shown() -> None:
    text = agent_text(url="https://b.example", ca_file=None)
    shown = set(re.findall(r"^(?:# )?([a-z_]+) = ", text, re.MULTILINE))
    kinds = [msgspec.structs.fields(SiteSettings)[n].type for n in range(3)]
    assert {key for kind in kinds for key in keys_of(kind)} <= shown
