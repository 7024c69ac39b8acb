"""Expressions of a manifest: what is let through cannot be made to run for long."""

import re
import signal
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.domain.errors import UsageError
from sekisho.domain.regex import MAX_WAYS, check_pattern, ways

LONGEST = 256

#: Atoms that meet the same letter, and shapes that make a backtracking matcher try them in turn.
ATOMS = ["a", "[a-z]", r"\w", ".", "[^x]", r"\S", "(?:a)", "[ab]"]
SHAPES = [
    "({0}+)+",
    "({0}*)*",
    "({0}+)*",
    "({0}*)+",
    "(?:{0}+)+",
    "({0}|{0})+",
    "({0}|{0})*b",
    "({0}|{0}{0})+",
    "(a|{0})*c",
    "({0}?){{40}}",
    "({0}?)+",
    "({0}{{0,20}}){{0,20}}",
    "({0}{{1,5}}){{1,50}}",
    "(({0}+)b?)+",
    "({0}+|b)+",
    "(b|{0}+)*$",
    "({0}*?)*",
    "({0}+?)+b",
    "({0}+{0}+)+b",
    "{0}*{0}*{0}*{0}*b",
    "{0}+{0}+{0}+{0}+{0}+",
    "({0}{{0,16}}){{4,}}",
    "(?:{0}|b|ab)*bb",
    "^({0}+)+$",
    "^(([a-z])+.)+{0}$",
]
KNOWN = [
    r"(x+x+)+y",
    r"(.*a){20}",
    r"(a|aa)+$",
    r"(a|a?)+$",
    r"(.|..)*x",
    r"([a-zA-Z]+)*",
    r"^(\w+\s?)*$",
    r"^([a-z0-9]+)([\-a-z0-9]*[a-z0-9]+)?(\.[a-z]{2,})+$",
    r"^([a-zA-Z0-9])(([\-.]|[_]+)?([a-zA-Z0-9]+))*(@){1}[a-z0-9]+[.]{1}(([a-z]{2,3})|([a-z]{2,3}[.]{1}[a-z]{2,3}))$",
    r"^(([^<>()\[\]\\.,;:\s@\"]+(\.[^<>()\[\]\\.,;:\s@\"]+)*)|(\".+\"))@(.+)$",
    r"^(https?://)?([\da-z.-]+)\.([a-z.]{2,6})([/\w .-]*)*/?$",
    r"^\d*[0-9](|.\d*[0-9]|)*$",
    r"([0-9]+\s?)+$",
    r"^(?:\s*\S+\s*)+$",
    r"(?:(?:[^,\\]|\\.)*,)*x",
    r"(\"([^\"\\]|\\.)*\"\s*)+$",
    r"^(-?\d+,?)+$",
    r"<(\w+\s*=?\s*)*>",
    r"^((ab)*)+$",
    r"^(\s|\S)+x$",
    r"(?:a?){30}a{30}",
    "a?" * 30 + "a" * 30,
    "(a|b|ab)" * 20 + "c",
    "(?:a|ab|b)" * 25,
    "a{0,16}" * 10 + "b",
    r"(a*)\1b",
    r"(?=(a+)+)b",
    r"(?!(a+)+)b",
    r"(?<=a)b",
    r"(a)?(?(1)b|c)",
    r"(?>(a+)+)b",
    r"(?P<n>a+)+(?P=n)",
]
COSTLY = [shape.format(atom) for shape in SHAPES for atom in ATOMS] + KNOWN

#: What a site may well write, and must be able to.
USEFUL = [
    r"[a-z][a-z0-9_-]{0,31}",
    r"\d{4}-\d{2}-\d{2}",
    r"\d{1,3}(\.\d{1,3}){3}",
    r"(foo|bar|baz)?",
    r"v\d+(\.\d{1,3}){0,2}",
    r"[^/]+\.[a-z]+",
    r"[A-Za-z0-9_. -]{1,64}",
    r".*",
    r"(steel|iron)-[0-9]{2,4}",
    r"[+-]?\d+(\.\d+)?",
    r"(?i:[a-f0-9]{64})",
    r"[ぁ-んァ-ン一-龥]+",
    r"\w+ \w+",
    r"a++b",
    r"x*?y",
    r"",
    r"^abc$",
    r"a|b|c|",
]

ATTACKS = ["a" * 256, "a" * 255 + "!", "ab" * 128, "b" * 255 + "!", "1" * 255 + "x", "a " * 128]
MATCHER = """
import re, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[1]),) * 2)
for pattern in sys.stdin.read().split("\\0"):
    for text in sys.argv[2:]:
        re.fullmatch(pattern, text)
"""


def match_all(patterns: list[str], seconds: int) -> int:
    """Match every pattern with every attack in a process that may use so much of the processor."""
    return subprocess.run(
        [sys.executable, "-I", "-c", MATCHER, str(seconds), *ATTACKS],
        input="\0".join(patterns).encode(),
        check=False,
        timeout=120,
    ).returncode


def let_through(patterns: list[str]) -> list[str]:
    kept = []
    for pattern in patterns:
        try:
            check_pattern(pattern, LONGEST)
        except UsageError:
            continue
        kept.append(pattern)
    return kept


def test_the_corpus_of_costly_expressions_is_as_large_as_promised() -> None:
    assert len(set(COSTLY)) >= 200


def test_every_costly_expression_is_refused_or_is_not_costly() -> None:
    kept = let_through(COSTLY)
    assert len(kept) <= 12, kept
    assert match_all(kept, seconds=5) == 0


def test_the_same_expressions_do_run_for_ever_without_the_check() -> None:
    assert match_all(["(a|a)*b"], seconds=1) in {-signal.SIGXCPU, -signal.SIGKILL}


@pytest.mark.parametrize("pattern", USEFUL)
def test_a_useful_expression_is_let_through(pattern: str) -> None:
    assert check_pattern(pattern, LONGEST).pattern == pattern


def test_useful_expressions_are_quick() -> None:
    assert match_all(USEFUL, seconds=5) == 0


@pytest.mark.parametrize(
    "pattern",
    ["(", "[a", "a**", "(?P<n", "\\", "a{2,1}", "(?<n>a)", "*", "(?z)", "a{99999999999}"],
)
def test_what_is_no_expression_is_told_apart_from_what_costs_too_much(pattern: str) -> None:
    with pytest.raises(UsageError) as fault:
        check_pattern(pattern, LONGEST)
    assert fault.value.code == "pattern.invalid"


@pytest.mark.parametrize("pattern", ["a" * 1001, "(?:){4000000000}", "a{257}", "(a|b{9}){300}"])
def test_an_expression_that_is_too_long_or_matches_nothing_in_its_length_is_refused(
    pattern: str,
) -> None:
    with pytest.raises(UsageError) as fault:
        check_pattern(pattern, LONGEST)
    assert (fault.value.code, len(str(fault.value.params["pattern"])) <= 80) == (
        "pattern.costly",
        True,
    )


def test_nesting_that_the_parser_gives_up_on_is_refused() -> None:
    with pytest.raises(UsageError):
        check_pattern("(" * 490 + ")" * 490 + "(" * 10, LONGEST)


@pytest.mark.parametrize(
    ("pattern", "longest", "expected"),
    [
        ("abc", 10, 1),
        ("a*", 10, 11),
        ("a{2,5}", 10, 4),
        ("a{2,}", 10, 9),
        ("a*b*", 10, 121),
        ("a|bc|cd", 10, 3),
        ("(?:xa|yb)?", 10, 3),
        ("(?:xa|yb){2}", 10, 4),
        ("(?:xa|yb){1,3}", 10, 14),
        ("(a*)(b|cc)", 10, 22),
    ],
)
def test_the_ways_are_counted(pattern: str, longest: int, expected: int) -> None:
    assert ways(parsed(pattern), longest) == expected


def parsed(pattern: str) -> Any:
    return re._parser.parse(pattern)  # type: ignore[attr-defined]  # noqa: SLF001


# ------------------------------------------------------- the bound holds for a matcher of our own


def paths(tree: Any, text: str, start: int) -> list[int]:
    """Where ``tree`` can end when it begins at ``start``, once for every way it can get there."""
    ends = [start]
    for op, argument in tree:
        ends = [after for end in ends for after in steps(str(op), argument, text, end)]
    return ends


def steps(name: str, argument: Any, text: str, at: int) -> list[int]:
    if name == "LITERAL":
        return [at + 1] if text[at : at + 1] == chr(argument) else []
    if name == "SUBPATTERN":
        return paths(argument[-1], text, at)
    if name == "BRANCH":
        return [end for branch in argument[1] for end in paths(branch, text, at)]
    if name == "IN":
        members = {chr(value) for kind, value in argument if str(kind) == "LITERAL"}
        return [at + 1] if text[at : at + 1] in members else []
    low, high, body = argument
    ends, out = [at], [at] if low == 0 else []
    for count in range(1, min(high, len(text)) + 1):
        ends = [after for end in ends for after in paths(body, text, end)]
        out += ends if count >= low else []
    return out


EXPRESSIONS = st.recursive(
    st.sampled_from(["a", "b", "[ab]"]),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map("".join)
        | st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})")
        | st.tuples(inner, st.sampled_from(["?", "*", "+", "{2}", "{0,2}", "{1,}"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        )
    ),
    max_leaves=6,
)


@given(EXPRESSIONS, st.text(alphabet="ab", max_size=7))
def test_no_text_is_matched_in_more_ways_than_were_counted(pattern: str, text: str) -> None:
    """Kills: a branch, a repeat or a row of them that is counted too low."""
    tree = parsed(pattern)
    counted = ways(tree, len(text))
    if counted <= MAX_WAYS:
        assert len(paths(tree, text, 0)) <= counted
