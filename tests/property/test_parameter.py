"""Values: each is one argument that reads back as what was given, or is refused by name."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.domain.errors import Refused
from sekisho.domain.parameter import Boolean, Choice, Integer, Number, Parameter, Text, Value


@given(st.text(max_size=60))
def test_a_positional_value_starts_with_a_dash_only_if_the_site_says_so(text: str) -> None:
    """Kills: the check of the dash, or one that looks at the element instead of the value."""
    plain = Text(pattern=r"[\s\S]*", max_length=60)
    try:
        rendered = plain.render("x", text)
    except Refused:
        return
    assert not rendered.startswith("-")
    assert rendered == text


@given(st.integers() | st.floats() | st.text(max_size=60))
def test_a_number_reads_back_equal_and_within_its_range(value: Value) -> None:
    """Kills: a rendering that loses digits; a range open at an end; nan and infinity."""
    number = Number(minimum=-1e300, maximum=1e300)
    try:
        text = number.render("x", value)
    except Refused:
        return
    assert float(text) == float(value)
    assert -1e300 <= float(text) <= 1e300


@given(st.integers() | st.text(alphabet="0123456789+-_ ", max_size=25))
def test_an_integer_reads_back_equal_and_within_its_range(value: Value) -> None:
    """Kills: a range open at an end; digits with underscores, blanks, or of another script."""
    integer = Integer(minimum=-1000, maximum=10**12)
    try:
        text = integer.render("x", value)
    except Refused:
        return
    assert int(text) == int(value)
    assert -1000 <= int(text) <= 10**12
    assert str(int(text)) == text


NUMBER = Number(minimum=-1e9, maximum=1e9)
INTEGER = Integer(minimum=-10, maximum=10)
WORD = Text(pattern=r"[\s\S]*", max_length=20)
NAME = Text(pattern=r"[a-z]+", max_length=8)
DASHED = Text(pattern=r"-?[a-z]+", leading_dash=True)
PICK = Choice(values=("a", "b b", "-c"))
FLAG = Boolean(flag="-v")
TRUTH = Boolean()

#: (parameter, value, what the argument is; None: no argument; a word in <>: why it is refused)
ARGUMENTS: list[tuple[Parameter, Any, str | None]] = [
    (INTEGER, 5, "5"),
    (INTEGER, -5, "-5"),
    (INTEGER, 10, "10"),
    (INTEGER, -10, "-10"),
    (INTEGER, 11, "<range>"),
    (INTEGER, -11, "<range>"),
    (INTEGER, "7", "7"),
    (INTEGER, "+7", "7"),
    (INTEGER, "007", "7"),
    (INTEGER, "-0", "0"),
    (INTEGER, "7.0", "<type>"),
    (INTEGER, 7.0, "<type>"),
    (INTEGER, True, "<type>"),
    (INTEGER, "", "<type>"),
    (INTEGER, " 7", "<type>"),
    (INTEGER, "7 ", "<type>"),
    (INTEGER, "7\n", "<type>"),
    (INTEGER, "1_0", "<type>"),
    (INTEGER, "0x7", "<type>"),
    (INTEGER, "7e0", "<type>"),
    (INTEGER, "\u0667", "<type>"),  # Arabic-Indic
    (INTEGER, "\uff17", "<type>"),  # full width
    (INTEGER, "²", "<type>"),
    (INTEGER, "9" * 18, "<range>"),
    (INTEGER, "9" * 19, "<type>"),
    (INTEGER, "9" * 100_000, "<type>"),
    (INTEGER, 10**400, "<range>"),
    (INTEGER, "None", "<type>"),
    (INTEGER, "--7", "<type>"),
    (NUMBER, 1, "1.0"),
    (NUMBER, 0.1, "0.1"),
    (NUMBER, -0.0, "-0.0"),
    (NUMBER, "1e5", "100000.0"),
    (NUMBER, ".5", "0.5"),
    (NUMBER, "5.", "5.0"),
    (NUMBER, "1E-3", "0.001"),
    (NUMBER, 1e9, "1000000000.0"),
    (NUMBER, 1.0000001e9, "<range>"),
    (NUMBER, "1e999", "<range>"),
    (NUMBER, 10**400, "<range>"),
    (NUMBER, float("nan"), "<range>"),
    (NUMBER, float("inf"), "<range>"),
    (NUMBER, "nan", "<type>"),
    (NUMBER, "inf", "<type>"),
    (NUMBER, "-Infinity", "<type>"),
    (NUMBER, "1,5", "<type>"),
    (NUMBER, "1_000.0", "<type>"),
    (NUMBER, "0x1p3", "<type>"),
    (NUMBER, "1e", "<type>"),
    (NUMBER, ".", "<type>"),
    (NUMBER, "1 2", "<type>"),
    (NUMBER, True, "<type>"),
    (NUMBER, "\uff11.\uff15", "<type>"),
    (Number(minimum=0, maximum=float("inf")), 10**400, "<range>"),
    (Number(minimum=0, maximum=float("inf")), 1e300, "1e+300"),
    (FLAG, True, "-v"),
    (FLAG, False, None),
    (FLAG, "yes", "-v"),
    (FLAG, "off", None),
    (FLAG, "TRUE", "<type>"),
    (FLAG, 1, "<type>"),
    (FLAG, "-v", "<type>"),
    (TRUTH, True, "true"),
    (TRUTH, "0", "false"),
    (TRUTH, "", "<type>"),
    (NAME, "abc", "abc"),
    (NAME, "abc1", "<pattern>"),
    (NAME, "abc\n", "<character>"),
    (NAME, "", "<pattern>"),
    (NAME, "abcdefgh", "abcdefgh"),
    (NAME, "abcdefghi", "<length>"),
    (NAME, 5, "<type>"),
    (WORD, "", ""),
    (WORD, "a b", "a b"),
    (WORD, "$(id)", "$(id)"),
    (WORD, "`id`", "`id`"),
    (WORD, "; rm -rf /", "; rm -rf /"),
    (WORD, "| tee x", "| tee x"),
    (WORD, "*", "*"),
    (WORD, "~root", "~root"),
    (WORD, "../../etc/passwd", "../../etc/passwd"),
    (WORD, "{load}", "{load}"),
    (WORD, "{CALC_DIR}", "{CALC_DIR}"),
    (WORD, "%n%n", "%n%n"),
    (WORD, "\\", "\\"),
    (WORD, "'\"", "'\""),
    (WORD, "日本語", "日本語"),
    (WORD, "-", "<leading_dash>"),
    (WORD, "-rf", "<leading_dash>"),
    (WORD, "--output=/etc/x", "<leading_dash>"),
    (WORD, "\u2013dash", "\u2013dash"),
    (WORD, " -x", " -x"),
    (WORD, "a\0b", "<character>"),
    (WORD, "a\nb", "<character>"),
    (WORD, "a\rb", "<character>"),
    (WORD, "a\tb", "<character>"),
    (WORD, "\x1b[2J", "<character>"),
    (WORD, "\x7f", "<character>"),
    (WORD, "\x85", "<character>"),
    (WORD, "\u2028", "<character>"),
    (WORD, "\u202eabc", "<character>"),
    (WORD, "\u200b", "<character>"),
    (WORD, "\ufeff", "<character>"),
    (WORD, "\ud800", "<character>"),
    (WORD, "\ue000", "<character>"),
    (WORD, "x" * 21, "<length>"),
    (DASHED, "-abc", "-abc"),
    (DASHED, "--abc", "<pattern>"),
    (PICK, "a", "a"),
    (PICK, "b b", "b b"),
    (PICK, "-c", "-c"),
    (PICK, "A", "<choice>"),
    (PICK, "", "<choice>"),
    (PICK, "a\n", "<character>"),
    (PICK, 0, "<type>"),
    (PICK, "a" * 5000, "<length>"),
]


@pytest.mark.parametrize(("parameter", "value", "expected"), ARGUMENTS)
def test_a_value_is_one_argument_or_refused_by_name(
    parameter: Parameter, value: Any, expected: str | None
) -> None:
    if expected is None or not expected.startswith("<"):
        assert parameter.render("x", value) == expected
        return
    with pytest.raises(Refused) as refusal:
        parameter.render("x", value)
    assert refusal.value.code == "parameter.invalid"
    assert refusal.value.params == {"parameter": "x", "why": expected.strip("<>")}


def test_the_corpus_of_arguments_is_as_large_as_promised() -> None:
    assert len(ARGUMENTS) >= 80
