"""The catalogue and the source agree: every code has its sentences, and every sentence a code."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import sekisho
from sekisho.cli import exit as statuses
from sekisho.client import errors as client_errors
from sekisho.domain import errors
from sekisho.domain.job import Attention, JobState
from sekisho.i18n.catalogue import LANGUAGES, TABLES, catalogue, sentence
from sekisho.site.workplace import Why

SOURCE = Path(sekisho.__file__).parent
CODE = re.compile(r"[a-z_]+(\.[a-z_]+)+")
#: Calls that make an error or a reason without being a class of the tree.
MAKERS = {"Fault", "found", "plain_problem"}


@cache
def _trees() -> list[ast.Module]:
    return [ast.parse(p.read_text("utf-8")) for p in sorted(SOURCE.rglob("*.py"))]


def _error_classes(trees: list[ast.Module]) -> list[ast.ClassDef]:
    """The class SekishoError and everything below it, found by the names of their bases."""
    classes = [n for t in trees for n in ast.walk(t) if isinstance(n, ast.ClassDef)]
    found: list[ast.ClassDef] = [c for c in classes if c.name == "SekishoError"]
    while True:
        names = {c.name for c in found}
        more = [c for c in classes if names & {getattr(b, "id", "") for b in c.bases}]
        if len(more) + 1 == len(found):
            return found
        found = [*(c for c in classes if c.name == "SekishoError"), *more]


def _class_codes(classes: list[ast.ClassDef]) -> Iterator[str]:
    for line in (line for c in classes for line in c.body):
        target = line.targets[0] if isinstance(line, ast.Assign) else None
        target = line.target if isinstance(line, ast.AnnAssign) else target
        if getattr(target, "id", "") == "code":
            yield from _texts(getattr(line, "value", None))


def _call_codes(tree: ast.Module, makers: set[str]) -> Iterator[str]:
    """First words of calls that make errors, and what is kept in a variable named `code`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            arguments = node.args[:2] if name in makers else []
            yield from (t for a in arguments for t in _texts(a) if CODE.fullmatch(t))
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "code":
            yield from (t for t in _texts(node.value) if CODE.fullmatch(t))
        if isinstance(node, ast.For | ast.comprehension):
            names = {getattr(n, "id", "") for n in ast.walk(node.target)}
            parts = ast.walk(node.iter) if "code" in names else []
            yield from (t for part in parts for t in _texts(part) if CODE.fullmatch(t))


def _pairs(node: ast.expr) -> set[str]:
    """The names in ``(("name", value), …)``, as faults have their parameters."""
    pairs = node.elts if isinstance(node, ast.Tuple) else []
    return {name for pair in pairs if isinstance(pair, ast.Tuple) for name in _texts(pair.elts[0])}


def _given(tree: ast.Module, makers: set[str]) -> Iterator[tuple[str, set[str]]]:
    """Codes of calls that make errors, with the names of the parameters given there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            named = {word.arg for word in node.keywords}
            if name in makers and None not in named:
                given = {word for word in named if word} | {n for a in node.args for n in _pairs(a)}
                codes = (t for a in node.args[:2] for t in _texts(a) if CODE.fullmatch(t))
                yield from ((code, given) for code in codes)


def _texts(node: ast.AST | None) -> list[str]:
    """The texts that an expression may be: itself, or either side of a choice."""
    if isinstance(node, ast.IfExp):
        return _texts(node.body) + _texts(node.orelse)
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


@cache
def codes() -> frozenset[str]:
    trees = _trees()
    classes = _error_classes(trees)
    makers = {c.name for c in classes} | MAKERS
    of_calls = (code for tree in trees for code in _call_codes(tree, makers))
    return frozenset([*_class_codes(classes), *of_calls])


def entries(lang: str) -> dict[str, dict[str, str]]:
    return {k: v for k, v in catalogue(lang).items() if k not in TABLES}


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_the_search_finds_codes_of_classes_and_of_calls() -> None:
    assert {"job.stale_epoch", "job.lost", "command.unknown", "output.missing"} <= codes()


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_code_of_the_source_has_a_sentence(lang: str) -> None:
    assert sorted(codes() - entries(lang).keys()) == []


#: Their parameters are the elements of an array, known to one function for all of them.
_OF_AN_ARRAY = {"array.failed", "array.lost", "array.unstarted"}


def test_every_error_is_made_with_the_parameters_of_its_sentence() -> None:
    classes = _error_classes(_trees())
    makers = {c.name for c in classes} | MAKERS
    made = [each for tree in _trees() for each in _given(tree, makers)]
    assert len(made) > 500
    for code, given in made:
        entry = entries("en")[code]
        missing = (fields(entry["what"]) | fields(entry["next"])) - given
        assert code in _OF_AN_ARRAY or not missing, (code, missing)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_sentence_has_a_code_in_the_source(lang: str) -> None:
    assert sorted(entries(lang).keys() - codes()) == []


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_sentence_says_what_happened_and_what_to_do(lang: str) -> None:
    wrong = [
        c
        for c, e in entries(lang).items()
        if not (e.keys() == {"what", "next"} and all(e.values()))
    ]
    assert wrong == []


def test_both_languages_use_the_same_parameters() -> None:
    english, japanese = entries("en"), entries("ja")
    for code, entry in english.items():
        for part in ("what", "next"):
            assert fields(entry[part]) == fields(japanese[code][part]), (code, part)


def test_both_languages_have_the_same_words_of_the_command_line() -> None:
    for table in TABLES:
        assert catalogue("en")[table].keys() == catalogue("ja")[table].keys()
        for key, text in catalogue("en")[table].items():
            assert fields(text) == fields(catalogue("ja")[table][key]), (table, key)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_state_and_every_exit_status_has_a_word(lang: str) -> None:
    words = {*map(str, JobState), *map(str, Attention)}
    assert catalogue(lang)["state"].keys() == words
    assert catalogue(lang)["exit"].keys() == {*map(str, statuses.STATUSES), "128+n"}


def test_every_error_ends_with_a_status_of_the_table() -> None:
    kinds = [v for m in (errors, client_errors) for v in vars(m).values() if isinstance(v, type)]
    used = {k.exit_status for k in kinds if issubclass(k, errors.SekishoError)}
    assert len(used) > 10
    assert used <= set(statuses.STATUSES)


def test_a_code_of_a_newer_other_side_is_shown_as_it_is() -> None:
    assert sentence("new.code", {"b": 2, "a": 1}, "en").what == "new.code (a=1, b=2)"


def test_a_sentence_never_fails_for_want_of_a_parameter() -> None:
    assert "…" in sentence("site.not_found", {}, "ja").what


def test_a_parameter_is_never_read_as_a_template() -> None:
    assert "{job.__class__}" in sentence("job.not_found", {"job": "{job.__class__}"}, "en").what


def test_no_line_of_a_japanese_help_text_ends_within_a_sentence() -> None:
    """Help is wrapped anew, and a line's end would show as a blank between two letters."""
    texts = catalogue("ja")["help"]
    assert [key for key, text in texts.items() if re.search(r"[^\x00-\x7f]\n[^\n]", text)] == []


@cache
def _reasons() -> frozenset[str]:
    """Every word of the source that an error has as its ``why``, and those of what is withheld."""
    found = {why.value for why in Why}
    for node in (n for tree in _trees() for n in ast.walk(tree)):
        if isinstance(node, ast.keyword) and node.arg == "why":
            found.update(_texts(node.value))
    return frozenset(word for word in found if re.fullmatch("[a-z_]+", word))


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_reason_in_a_word_has_words_of_the_language(lang: str) -> None:
    assert {"cut", "timeout", "symlink"} <= _reasons()
    assert sorted(_reasons() - catalogue(lang)["why"].keys()) == []


def test_the_systems_reasons_are_told_in_japanese_by_name_and_by_sentence() -> None:
    for why in ("EHOSTUNREACH", "No route to host"):
        said = sentence("check.tcp", {"host": "h", "port": 1, "why": why}, "ja").what
        assert "経路がありません" in said
