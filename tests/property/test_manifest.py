"""Binding: an argument vector is the site's template, filled with values of the site's types."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.domain.access import Submitters
from sekisho.domain.egress import OutputRule
from sekisho.domain.errors import Refused, UsageError
from sekisho.domain.files import Pattern, RelPath
from sekisho.domain.limits import MAX_FILES, SHORT_LIST_BYTES
from sekisho.domain.manifest import (
    MINT_PARAMETER,
    Announced,
    Arrival,
    Command,
    InputRule,
    Manifest,
    Order,
    admit,
    bind,
    environment,
    mint_order,
)
from sekisho.domain.parameter import Boolean, Choice, Integer, Number, Parameter, Text, Value

HOUR = timedelta(hours=1)
ANN = Submitters(frozenset({"ann"}))

PARAMETERS: dict[str, Parameter] = {
    "steps": Integer(minimum=1, maximum=1000, default=10),
    "load": Number(minimum=0.0, maximum=1e6),
    "verbose": Boolean(flag="--verbose", default=False),
    "restart": Boolean(default=False),
    "title": Text(pattern=r"[A-Za-z0-9 _.{}$`;|&<>*?'\"()-]*", max_length=40, default="x"),
    "solver": Choice(values=("direct", "iterative")),
}
SOLVE = Command(
    name="solve",
    argv=(
        "/opt/solve",
        "--steps={steps}",
        "{verbose}",
        ("--load", "{load}"),
        ("--solver", "{solver}", "--title"),
        "{title}",
        "--restart={restart}",
        "end",
    ),
    parameters=PARAMETERS,
    environment={"OMP_NUM_THREADS": "2", "SCRATCH": "{CALC_DIR}/tmp"},
    time_limit=HOUR,
)

COUNT = Integer(minimum=-10, maximum=10)

VALUES: st.SearchStrategy[Any] = (
    st.integers()
    | st.floats()
    | st.booleans()
    | st.text(max_size=60)
    | st.sampled_from(["10", "-1", "1e5", "true", "off", "direct", "; rm -rf /", "{load}", "--x"])
)


def bound(**given_values: Value) -> tuple[str, ...]:
    return bind(SOLVE, given_values)


@given(st.dictionaries(st.sampled_from(sorted(PARAMETERS)), VALUES))
def test_every_argument_is_the_template_with_typed_values_in_it(values: dict[str, Value]) -> None:
    """Kills: a value in another place than its own, split, expanded twice, or not checked."""
    try:
        argv = bind(SOLVE, values)
    except Refused:
        return
    texts = {
        name: parameter.render(name, value)
        for name, parameter in PARAMETERS.items()
        if (value := values.get(name, parameter.default)) is not None
    }
    expected: list[str | None] = ["/opt/solve", f"--steps={texts['steps']}"]
    expected += [texts["verbose"]] if texts["verbose"] else []
    expected += ["--load", texts["load"]] if "load" in texts else []
    expected += ["--solver", texts["solver"], "--title"] if "solver" in texts else []
    expected += [texts["title"], f"--restart={texts['restart']}", "end"]
    assert argv == tuple(expected)


@given(st.dictionaries(st.sampled_from(sorted(PARAMETERS)), VALUES))
def test_the_program_is_always_the_sites(values: dict[str, Value]) -> None:
    """Kills: a placeholder in the first element."""
    try:
        assert bind(SOLVE, values)[0] == "/opt/solve"
    except Refused:
        return


def test_a_value_that_looks_like_a_placeholder_is_not_expanded() -> None:
    argv = bound(title="{load}", load=5, solver="direct")
    assert "{load}" in argv


def test_a_group_stands_or_falls_as_a_whole() -> None:
    assert bound() == ("/opt/solve", "--steps=10", "x", "--restart=false", "end")
    assert bound(load=2.5)[2:4] == ("--load", "2.5")
    assert bound(solver="direct")[2:5] == ("--solver", "direct", "--title")
    assert "--verbose" in bound(verbose=True)


def test_a_switch_that_is_off_takes_its_group_along() -> None:
    command = Command(
        name="c",
        argv=("/x", ("{fast}", "{level}")),
        parameters={"fast": Boolean(flag="--fast"), "level": Integer(minimum=0, maximum=9)},
        time_limit=HOUR,
    )
    assert bind(command, {"fast": False, "level": 3}) == ("/x",)
    assert bind(command, {"fast": True, "level": 3}) == ("/x", "--fast", "3")
    assert bind(command, {"fast": True}) == ("/x",)


def test_a_parameter_outside_of_a_group_must_be_given() -> None:
    command = Command(
        name="c",
        argv=("/x", "{level}"),
        parameters={"level": Integer(minimum=0, maximum=9)},
        time_limit=HOUR,
    )
    with pytest.raises(Refused) as refusal:
        bind(command, {})
    assert (refusal.value.code, refusal.value.params) == (
        "parameter.missing",
        {"parameter": "level"},
    )


def test_a_parameter_that_the_manifest_does_not_name_is_refused() -> None:
    with pytest.raises(Refused) as refusal:
        bound(zeta=1, alpha=2)
    assert refusal.value.params == {"parameter": "alpha"}


@pytest.mark.parametrize(
    ("argv", "parameters", "code"),
    [
        ((), {}, "manifest.argv"),
        (("solve",), {}, "manifest.argv"),
        (("./solve",), {}, "manifest.argv"),
        (("/opt/{x}",), {"x": COUNT}, "manifest.argv"),
        ((("/opt/solve", "{x}"), "{y}"), {"x": COUNT, "y": COUNT}, "manifest.argv"),
        (("/opt/solve", "{y}"), {}, "manifest.placeholder"),
        (("/opt/solve", ("-y", "{y}")), {}, "manifest.placeholder"),
    ],
)
def test_a_template_that_cannot_work_is_refused_when_the_manifest_is_read(
    argv: tuple[str | tuple[str, ...], ...], parameters: dict[str, Parameter], code: str
) -> None:
    with pytest.raises(UsageError) as fault:
        Command(name="c", argv=argv, parameters=parameters, time_limit=HOUR)
    assert fault.value.code == code


def test_a_parameter_that_no_argument_uses_is_a_mistake() -> None:
    with pytest.raises(UsageError) as fault:
        Command(name="c", argv=("/x",), parameters={"n": COUNT}, time_limit=HOUR)
    assert fault.value.code == "manifest.unused_parameter"


# ------------------------------------------------------------------------------------ environment


def test_the_environment_is_exactly_this() -> None:
    assert environment(SOLVE, "/base/job/1/work") == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "OMP_NUM_THREADS": "2",
        "SCRATCH": "/base/job/1/work/tmp",
        "CALC_DIR": "/base/job/1/work",
    }


def test_the_site_may_set_the_path_but_not_move_the_work_directory() -> None:
    command = Command(
        name="c",
        argv=("/x",),
        environment={"PATH": "/opt/bin", "CALC_DIR": "/elsewhere"},
        time_limit=HOUR,
    )
    assert environment(command, "/w") == {"PATH": "/opt/bin", "CALC_DIR": "/w"}


NAMES = st.from_regex(r"[A-DX-Z]{1,3}_?[0-9]?", fullmatch=True)
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)


@given(st.dictionaries(NAMES, VALUES), st.text(max_size=9))
def test_no_name_comes_from_anywhere_but_the_manifest(
    named: dict[str, str], directory: str
) -> None:
    """Kills: an environment that starts from that of the agent."""
    command = Command(name="c", argv=("/x",), environment=named, time_limit=HOUR)
    assert environment(command, directory).keys() == named.keys() | {"PATH", "CALC_DIR"}


# -------------------------------------------------------------------------------------- admission

MESH = Arrival(RelPath.parse("mesh.inp"), 100)
SERVED = Command(
    name="solve",
    argv=("/opt/solve",),
    inputs=(
        InputRule(path=Pattern("mesh.inp"), max_bytes=1000),
        InputRule(path=Pattern("*.dat"), max_bytes=10, required=False),
        InputRule(path=Pattern("big.dat"), max_bytes=50, required=False),
    ),
    outputs=(OutputRule(path=Pattern("*.csv"), max_bytes=10),),
    time_limit=HOUR,
)
CLOSED = Command(
    name="closed",
    argv=("/x",),
    submitters=Submitters(frozenset({"bob"})),
    time_limit=HOUR,
)
OFF = Command(name="off", argv=("/x",), enabled=False, time_limit=HOUR)
MANIFEST = Manifest(
    site="steel",
    submitters=Submitters(frozenset({"ann", "bob"})),
    commands={c.name: c for c in (SERVED, CLOSED, OFF)},
)


def order(command: str = "solve", submitter: str = "ann", **changes: Any) -> Order:
    fields: dict[str, Any] = {"parameters": {}, "inputs": [MESH], "outputs": []}
    return Order(submitter=submitter, command=command, **{**fields, **changes})


@pytest.mark.parametrize(
    ("path", "only_reads"), [("in/mesh", True), ("in/both", False), ("own", False), ("none", False)]
)
def test_an_input_is_read_only_if_every_rule_that_lets_it_in_says_so(
    path: str, only_reads: bool
) -> None:
    """Kills: any instead of all, and all of no rules."""
    rules = [("in/*", True), ("in/both", False), ("own", False)]
    inputs = tuple(InputRule(path=Pattern(p), max_bytes=9, read_only=r) for p, r in rules)
    assert replace(SERVED, inputs=inputs).only_reads(RelPath.parse(path)) is only_reads


def test_what_the_manifest_allows_is_admitted_with_its_arguments() -> None:
    admission = admit(MANIFEST, order())
    assert (admission.command, admission.argv) == (SERVED, ("/opt/solve",))
    assert admit(MANIFEST, order("closed", "bob", inputs=[])).command is CLOSED


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (order(submitter="eve"), "submitter.not_listed"),
        (order("nothing", "eve"), "submitter.not_listed"),
        (order("nothing"), "command.unknown"),
        (order("closed"), "command.unknown"),
        (order("off", inputs=[]), "command.disabled"),
        (order("/bin/sh"), "command.unknown"),
        (order(inputs=[]), "input.missing"),
        (order(inputs=[MESH, MESH]), "input.duplicate"),
        (order(inputs=[MESH, Arrival(RelPath.parse("MESH.INP"), 1)]), "input.duplicate"),
        (order(inputs=[MESH, Arrival(RelPath.parse("other"), 1)]), "input.unexpected"),
        (order(inputs=[Arrival(RelPath.parse("mesh.inp"), 1001)]), "input.too_large"),
        (order(inputs=[MESH, Arrival(RelPath.parse("a.dat"), 11)]), "input.too_large"),
        (order(outputs=[Pattern("secret.bin")]), "output.not_permitted"),
        (order(parameters={"x": 1}), "parameter.unknown"),
    ],
)
def test_p7_what_the_manifest_does_not_allow_is_refused(asked: Order, code: str) -> None:
    with pytest.raises(Refused) as refusal:
        admit(MANIFEST, asked)
    assert refusal.value.code == code


def test_the_largest_limit_of_the_rules_that_match_counts() -> None:
    inputs = [MESH, Arrival(RelPath.parse("big.dat"), 50)]
    assert admit(MANIFEST, order(inputs=inputs)).command is SERVED


def test_a_command_can_be_switched_off_from_the_other_side_but_not_on() -> None:
    with pytest.raises(Refused) as refusal:
        admit(MANIFEST, order(), disabled=frozenset({"solve"}))
    assert refusal.value.code == "command.disabled"
    with pytest.raises(Refused):
        admit(MANIFEST, order("off", inputs=[]), disabled=frozenset())


def test_inputs_that_are_not_known_yet_are_not_judged_yet() -> None:
    assert admit(MANIFEST, order(inputs=None)).command is SERVED


LONG = SHORT_LIST_BYTES + 1


def announced(files: int, size: int, list_bytes: int = LONG) -> Announced:
    return Announced(files=files, bytes=size, list_bytes=list_bytes)


@pytest.mark.parametrize(
    ("said", "code", "limit"),
    [(announced(3, 1), "input.too_many", 2), (announced(2, 2001), "input.too_much", 2000)],
)
def test_inputs_with_a_long_list_that_cannot_fit_are_refused_without_it(
    said: Announced, code: str, limit: int
) -> None:
    """Kills: a list that is fetched though nothing in it can be allowed."""
    rules = [
        InputRule(path=Pattern(name), max_bytes=size) for name, size in (("a", 9), ("b", 1000))
    ]
    manifest = replace(MANIFEST, commands={"solve": replace(SERVED, inputs=tuple(rules))})
    with pytest.raises(Refused) as refusal:
        admit(manifest, order(inputs=None, announced=said))
    assert (refusal.value.code, refusal.value.params) == (code, {"limit": limit})
    short = replace(said, list_bytes=SHORT_LIST_BYTES)  # of which the wrong file will be named
    assert admit(manifest, order(inputs=None, announced=short)).argv == ("/opt/solve",)


def test_of_a_pattern_no_more_files_may_come_in_than_its_rule_says() -> None:
    """Kills: files that are counted under one of their rules only; a long list that is fetched."""
    few = InputRule(path=Pattern("*.dat"), max_bytes=9, max_files=2, required=False)
    rest = InputRule(path=Pattern("x/*"), max_bytes=9, max_files=3)
    dat, x, y = (
        [Arrival(RelPath.parse(name.format(n)), 1) for n in range(3)]
        for name in ("{}.dat", "x/{}", "y{}.dat")
    )
    manifest = replace(MANIFEST, commands={"solve": replace(SERVED, inputs=(few, rest))})
    for inputs in ([*dat[:2], *x], x):
        assert admit(manifest, order(inputs=inputs)).argv == ("/opt/solve",)
    for inputs in ([*dat, *x], [dat[0], *y[:2], *x]):
        with pytest.raises(Refused) as refusal:
            admit(manifest, order(inputs=inputs))
        assert refusal.value.code == "input.too_many_matching"
        assert refusal.value.params == {"input": "*.dat", "limit": 2}
    assert admit(manifest, order(inputs=None, announced=announced(5, 9))).argv == ("/opt/solve",)
    with pytest.raises(Refused) as refusal:
        admit(manifest, order(inputs=None, announced=announced(6, 9)))
    assert (refusal.value.code, refusal.value.params) == ("input.too_many", {"limit": 5})


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "*", "x/*"]), st.integers(1, 99), st.integers(1, 3))
    ),
    st.data(),
)
def test_no_inputs_that_the_manifest_takes_are_refused_for_their_long_list(
    rules: list[tuple[str, int, int]], data: st.DataObject
) -> None:
    """Kills: a bound that is below what may come in."""
    inputs = tuple(
        InputRule(path=Pattern(p), max_bytes=n, max_files=most, required=False)
        for p, n, most in rules
    )
    manifest = replace(MANIFEST, commands={"solve": replace(SERVED, inputs=inputs)})
    names = st.sampled_from(["a", "b", "c", "d", "x/a", "x/b"])
    sizes = data.draw(st.dictionaries(names, st.integers(0, 99)))
    files = [Arrival(RelPath.parse(name), size) for name, size in sizes.items()]
    try:
        admit(manifest, order(inputs=files))
    except Refused:
        return
    said = announced(len(files), sum(sizes.values()))
    assert admit(manifest, order(inputs=files, announced=said)).argv == ("/opt/solve",)


def test_a_long_list_is_refused_beyond_what_any_tree_may_hold() -> None:
    rules = tuple(InputRule(path=Pattern(p), max_bytes=9) for p in ("*", "x/*"))
    manifest = replace(MANIFEST, commands={"solve": replace(SERVED, inputs=rules)})
    said = announced(MAX_FILES, 9)
    assert admit(manifest, order(inputs=None, announced=said)).argv == ("/opt/solve",)
    with pytest.raises(Refused) as refusal:
        admit(manifest, order(inputs=None, announced=announced(MAX_FILES + 1, 9)))
    assert (refusal.value.code, refusal.value.params) == ("input.too_many", {"limit": MAX_FILES})


@pytest.mark.parametrize("text", ["solve", "solve ", "", "/opt/other", "x" * 200])
def test_an_old_client_reaches_no_command_by_its_name(text: str) -> None:
    """Kills: the text of an old program taken for the name of a command that is not for it."""
    name, parameters = mint_order(MANIFEST, text, "")
    assert parameters == {}
    with pytest.raises(Refused) as refusal:
        admit(MANIFEST, order(command=name, parameters=parameters))
    assert refusal.value.code == "command.unknown"


def test_the_free_text_of_an_old_client_goes_only_where_the_site_wants_it() -> None:
    free = {MINT_PARAMETER: Text(pattern="[a-z]*", default="none")}
    wanting = replace(SERVED, argv=("/opt/solve", "{mint_parameters}"), parameters=free)
    commands = {
        "deaf": replace(SERVED, name="deaf", mint_command="/old/deaf"),
        "solve": replace(wanting, mint_command="/old/solve"),
    }
    manifest = replace(MANIFEST, commands=commands)
    assert mint_order(manifest, "/old/deaf", "abc") == ("deaf", {})
    assert mint_order(manifest, "/old/solve", "abc") == ("solve", {MINT_PARAMETER: "abc"})
    assert mint_order(manifest, "/old/solve", "") == ("solve", {})  # none: the site's default holds


def test_wildcards_may_be_asked_for_whatever_is_permitted() -> None:
    outputs = [Pattern("**"), Pattern("a.csv")]
    assert admit(MANIFEST, order(outputs=outputs)).command is SERVED
