"""The egress policy: what leaves is requested and permitted, within limits, and told in codes."""

import ast
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.domain import egress
from sekisho.domain.egress import (
    Cleared,
    Decision,
    Fault,
    Found,
    OutputRule,
    clear,
    clear_reason,
    decide,
)
from sekisho.domain.errors import Refused, Unavailable
from sekisho.domain.files import Pattern, RelPath

SOURCE = Path(__file__).resolve().parents[2] / "src" / "sekisho"

PATHS = st.sampled_from(
    ["a", "b.csv", "c.csv", "d/a", "d/b.csv", "d/e/f.csv", ".hidden", "d/.hidden", "secret.bin"]
).map(RelPath.parse)
PATTERNS = st.sampled_from(
    ["a", "b.csv", "*.csv", "*", "**", "d/*", "d/**", "**/*.csv", ".hidden", "nothing", "?"]
).map(Pattern)
FOUND = st.lists(
    st.builds(Found, PATHS, st.integers(0, 30)), unique_by=lambda found: found.path, max_size=9
)
RULES = st.lists(
    st.builds(
        OutputRule,
        path=PATTERNS,
        max_bytes=st.integers(0, 30),
        max_files=st.integers(0, 5),
        required=st.booleans(),
    ),
    max_size=5,
)
REQUESTED = st.lists(PATTERNS, max_size=4)


def first_rule(rules: list[OutputRule], path: RelPath) -> OutputRule | None:
    return next((rule for rule in rules if rule.path.matches(path)), None)


@given(RULES, REQUESTED, FOUND)
def test_p7_what_leaves_was_requested_and_is_permitted_within_its_limits(
    rules: list[OutputRule], requested: list[Pattern], found: list[Found]
) -> None:
    """Kills: `or` for `and`; a limit that is not looked at; a file of another rule's group."""
    decision = decide(rules, requested, found)
    sizes = {f.path: f.size for f in found}
    for path in decision.release:
        rule = first_rule(rules, path)
        assert rule is not None
        assert any(pattern.matches(path) for pattern in requested)
        assert sizes[path] <= rule.max_bytes
        same = [p for p in decision.release if first_rule(rules, p) is rule]
        assert len(same) <= rule.max_files


@given(RULES, REQUESTED, FOUND)
def test_everything_found_is_either_released_or_withheld(
    rules: list[OutputRule], requested: list[Pattern], found: list[Found]
) -> None:
    """Kills: a file that is in both, or that nobody accounts for in the site's log."""
    decision = decide(rules, requested, found)
    named = [str(p) for p in decision.release] + [w.path for w in decision.withheld]
    assert sorted(named) == sorted(str(f.path) for f in found)
    assert list(decision.release) == sorted(decision.release)


@given(RULES, REQUESTED, FOUND, st.randoms())
def test_the_order_in_which_files_were_found_does_not_matter(
    rules: list[OutputRule], requested: list[Pattern], found: list[Found], random: Random
) -> None:
    """Kills: a limit that takes the first files and leaves the rest."""
    shuffled = list(found)
    random.shuffle(shuffled)
    assert decide(rules, requested, shuffled) == decide(rules, requested, found)


@given(RULES, RULES, REQUESTED, FOUND)
def test_a_rule_added_at_the_end_takes_nothing_away(
    rules: list[OutputRule], more: list[OutputRule], requested: list[Pattern], found: list[Found]
) -> None:
    """Kills: a last rule that overrides the first that matches."""
    before = decide(rules, requested, found)
    assert set(before.release) <= set(decide([*rules, *more], requested, found).release)


@given(RULES, REQUESTED, REQUESTED, FOUND)
def test_no_rules_or_no_request_release_nothing(
    rules: list[OutputRule], requested: list[Pattern], more: list[Pattern], found: list[Found]
) -> None:
    """Kills: an empty list that is taken for everything."""
    assert decide([], requested, found).release == ()
    assert decide(rules, [], found).release == ()
    permitted = {f.path for f in found if first_rule(rules, f.path)}
    assert set(decide(rules, [*requested, *more], found).release) <= permitted


@given(RULES, REQUESTED, FOUND)
def test_faults_say_nothing_that_the_submitter_and_the_manifest_did_not(
    rules: list[OutputRule], requested: list[Pattern], found: list[Found]
) -> None:
    """Kills: the name or the size of a found file in what leaves as a reason."""
    known = {r.path.text for r in rules} | {p.text for p in requested}
    limits = {r.max_bytes for r in rules} | {r.max_files for r in rules}
    for fault in decide(rules, requested, found).faults:
        params = dict(fault.params)
        assert params.pop("output") in known
        assert params.pop("limit", 0) in limits | {0}
        assert params == {}


@given(RULES, REQUESTED, FOUND)
def test_whether_something_that_is_not_permitted_exists_cannot_be_seen(
    rules: list[OutputRule], requested: list[Pattern], found: list[Found]
) -> None:
    """Kills: a fault for a missing file that is not given for a forbidden one."""
    visible = [f for f in found if first_rule(rules, f.path)]
    assert decide(rules, requested, found).faults == decide(rules, requested, visible).faults


def rule(
    path: str, max_bytes: int = 10, max_files: int = 1, *, required: bool = False
) -> OutputRule:
    return OutputRule(
        path=Pattern(path), max_bytes=max_bytes, max_files=max_files, required=required
    )


def there(**sizes: int) -> list[Found]:
    return [Found(RelPath.parse(name), size) for name, size in sizes.items()]


def codes(decision: Decision) -> list[tuple[str, dict[str, str | int]]]:
    return [(f.code, dict(f.params)) for f in decision.faults]


ANY = [Pattern("*")]


def test_a_limit_is_kept_at_its_edge_and_passed_releases_nothing_of_its_rule() -> None:
    rules = [rule("a*", max_files=2), rule("b", 5)]
    assert len(decide(rules, ANY, there(a1=10, a2=10, b=5)).release) == 3
    over = decide(rules, ANY, there(a1=11, a2=1, b=5))
    assert [str(p) for p in over.release] == ["b"]
    assert codes(over) == [("output.too_large", {"output": "a*", "limit": 10})]
    many = decide(rules, ANY, there(a1=1, a2=1, a3=1))
    assert codes(many) == [("output.too_many", {"output": "a*", "limit": 2})]
    assert {w.why for w in many.withheld} == {"output.too_many"}


def test_names_that_are_too_long_together_keep_everything_back() -> None:
    """Kills: a limit on characters, not bytes; one that is not kept at its edge, or for each."""
    found = there(a1=1, 名前=1, b=1)  # two, six and one byte
    rules = [rule("a*"), rule("名*"), rule("b")]
    edge = decide(rules, ANY, found, 9)
    assert (len(edge.release), edge.name_bytes, edge.faults) == (3, 9, ())
    over = decide(rules, ANY, found, 8)
    assert (over.release, over.name_bytes) == ((), 9)
    assert codes(over) == [("output.names", {"limit": 8})]
    assert {w.why for w in over.withheld} == {"output.names"}
    assert decide(rules, [Pattern("a1")], found, 8).release  # what is not asked for does not count


def test_what_is_withheld_says_why() -> None:
    decision = decide([rule("a"), rule("b")], [Pattern("a")], there(a=1, b=1, c=1))
    assert {(w.path, w.why) for w in decision.withheld} == {
        ("b", "not_requested"),
        ("c", "not_permitted"),
    }


def test_what_was_asked_for_by_name_and_is_not_there_is_a_fault() -> None:
    decision = decide([rule("a"), rule("b*")], [Pattern("a"), Pattern("b*")], [])
    assert codes(decision) == [("output.missing", {"output": "a"})]


def test_what_was_asked_for_by_name_and_is_no_longer_permitted_is_a_fault() -> None:
    for found in (there(a=1), []):
        decision = decide([rule("b")], [Pattern("a")], found)
        assert codes(decision) == [("output.not_permitted", {"output": "a"})]


def test_a_required_output_is_missed_even_if_nobody_asked() -> None:
    decision = decide([rule("a*", required=True)], [], [])
    assert codes(decision) == [("output.missing", {"output": "a*"})]
    assert decide([rule("a*", required=True)], [], there(a1=1)).faults == ()


def test_a_name_that_is_missing_twice_over_is_told_once() -> None:
    decision = decide([rule("a", required=True)], [Pattern("a"), Pattern("a")], [])
    assert codes(decision) == [("output.missing", {"output": "a"})]


# ---------------------------------------------------------------------------------- what is sealed


def test_only_the_policy_clears() -> None:
    assert clear(5).value == 5
    for seal in (None, object(), "seal"):
        with pytest.raises(TypeError):
            Cleared(5, seal=seal)


def test_a_cleared_value_has_no_room_for_another() -> None:
    with pytest.raises(AttributeError):
        clear(5).extra = 6  # type: ignore[attr-defined]


def uses_of(name: str) -> set[str]:
    """The files of the product that speak of ``name`` of the egress policy in any way."""
    return {
        str(file.relative_to(SOURCE))
        for file in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if (isinstance(node, ast.Name) and node.id == name)
        or (isinstance(node, ast.Attribute) and node.attr == name and is_module(node.value))
        or (isinstance(node, ast.alias) and node.name.rpartition(".")[2] == name)
    }


def is_module(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "egress"


def calls_of(name: str) -> set[str]:
    return {
        str(file.relative_to(SOURCE))
        for file in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call) and called(node.func) == name
    }


def called(function: ast.expr) -> str:
    match function:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(value=value):
            return called(value)
        case _:
            return ""


def test_the_only_caller_of_clear_is_the_release() -> None:
    assert uses_of("clear") == {"site/release.py"}


def test_cleared_is_made_in_the_policy_only() -> None:
    assert calls_of("Cleared") == {"domain/egress.py"}
    assert uses_of("_SEAL") == {"domain/egress.py"}


def test_the_policy_itself_clears_nothing() -> None:
    tree = ast.parse((SOURCE / "domain" / "egress.py").read_text("utf-8"))
    makers = [
        function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Name) and node.id == "_SEAL"
    ]
    assert sorted(makers) == ["__init__", "clear"]


# ------------------------------------------------------------------------------------- the reasons


def test_a_reason_leaves_with_its_code_and_the_cleared_parameters_only() -> None:
    error = Refused(
        "parameter.invalid",
        parameter="steps",
        why="range",
        path="/secret/mesh.inp",
        host="node17",
        detail=["CANARY"],
        limit=5,
    )
    assert clear_reason(error) == Fault(
        "parameter.invalid", (("limit", 5), ("parameter", "steps"), ("why", "range"))
    )


def test_a_parameter_that_is_no_text_and_no_number_does_not_leave() -> None:
    assert clear_reason(Unavailable(why=OSError("CANARY"))) == Fault("unavailable")


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.text() | st.integers()))
def test_no_parameter_leaves_that_is_not_on_the_list(params: dict[str, object]) -> None:
    """Kills: a list of what must not leave in place of the list of what may."""
    error = Refused("refused")
    error.params = params
    kept = dict(clear_reason(error).params)
    assert kept == {k: v for k, v in params.items() if k in egress._CLEARED_PARAMS}  # noqa: SLF001


def test_a_reason_that_would_name_something_of_the_site_cannot_be_made() -> None:
    """Kills: a parameter of a reason that the page of all that can be observed does not list."""
    with pytest.raises(ValueError, match="path"):
        Fault("output.missing", (("path", "/secret/model"),))
    assert Fault("array.failed", (("count", 9), ("elements", "3,5-7"))).params
