"""Names that another party may write: which become a `RelPath`, and what patterns match them."""

import time
import unicodedata

import pytest

from sekisho.domain.errors import UsageError
from sekisho.domain.files import Pattern, RelPath

GOOD = [
    "a",
    "a.txt",
    "dir/file",
    "a/b/c/d",
    ".hidden",
    ".config/x",
    "..a",
    "a..b",
    "...a",
    "結果.csv",
    "計算標準出力.txt",
    "ひずみ/応力 分布.dat",
    "Straße",
    "naïve.txt",
    "Ω",
    "日本語" * 28,
    "emoji😀.png",
    "with space",
    "-rf",
    "--output=x",
    "~",
    "~root",
    "$HOME",
    "`id`",
    "$(id)",
    "a;b",
    "a|b",
    "a&b",
    "a*b",
    "a?b",
    "[a]",
    "{a}",
    "'quoted'",
    '"quoted"',
    "#comment",
    "%2e%2e",
    "%00",
    "a%2fb",
    "console",
    "aux1",
    "nulls",
    "com",
    "com10",
    "lpt",
    "con_",
    "AB:c",  # no drive: two letters
    "x" * 255,
    "/".join("x" * 32),
    "/".join(["x" * 254] * 4),
    "\u00a0" + "x",
    "½",
    "²",
    "ä",
]

BAD: list[tuple[str, str]] = [
    ("", "component"),
    (".", "component"),
    ("..", "component"),
    ("/", "component"),
    ("//", "component"),
    ("/a", "component"),
    ("//a", "component"),
    ("a/", "component"),
    ("a//b", "component"),
    ("a/.", "component"),
    ("./a", "component"),
    ("a/./b", "component"),
    ("../a", "component"),
    ("a/..", "component"),
    ("a/../b", "component"),
    ("a/../../b", "component"),
    ("/etc/passwd", "component"),
    ("../../../../etc/passwd", "component"),
    ("....//....//etc", "reserved"),
    ("a\\b", "separator"),
    ("..\\..\\x", "separator"),
    ("\\\\server\\share", "separator"),
    ("\\", "separator"),
    ("C:", "separator"),
    ("C:x", "separator"),
    ("c:\\x", "separator"),
    ("a/C:x", "separator"),
    ("z:/x", "separator"),
    ("a\0b", "character"),
    ("\0", "character"),
    ("a.csv\0.exe", "character"),
    ("a\nb", "character"),
    ("a\n", "character"),
    ("a\rb", "character"),
    ("a\tb", "character"),
    ("\x01", "character"),
    ("\x1b[31m", "character"),
    ("\x7f", "character"),
    ("\x80", "character"),
    ("\x85", "character"),
    ("\x9b", "character"),
    ("\u00ad", "character"),  # soft hyphen
    ("a\u200bb", "character"),  # zero width space
    ("a\u200cb", "character"),
    ("a\u200db", "character"),
    ("a\u2060b", "character"),
    ("\ufeffa", "character"),  # byte order mark
    ("\u200ea", "character"),  # direction marks and overrides
    ("\u200fa", "character"),
    ("a\u202ab", "character"),
    ("a\u202bb", "character"),
    ("a\u202cb", "character"),
    ("a\u202db", "character"),
    ("a\u202etxt.exe", "character"),
    ("a\u2066b", "character"),
    ("a\u2067b", "character"),
    ("a\u2068b", "character"),
    ("a\u2069b", "character"),
    ("a\u061cb", "character"),
    ("a\u180eb", "character"),
    ("a\u2028b", "character"),
    ("a\u2029b", "character"),
    ("\U000e0041", "character"),  # tags
    ("\U000e0001", "character"),
    ("\ue000", "character"),  # private use
    ("\U000f0000", "character"),
    ("\U0010fffd", "character"),
    ("\ufdd0", "character"),  # not characters
    ("\uffff", "character"),
    ("\U0001ffff", "character"),
    ("\u0378", "character"),  # unassigned
    ("\ud800", "character"),  # surrogates
    ("\udfff", "character"),
    ("a\udcffb", "character"),  # how Python writes a byte that is no UTF-8
    ("\ufffb", "character"),
    ("e\u0301", "normalisation"),  # NFD
    ("a/e\u0301/b", "normalisation"),
    ("か\u3099", "normalisation"),
    ("\u1112\u1161\u11ab", "normalisation"),
    ("\u212b", "normalisation"),  # Ångström sign
    ("\u2126", "normalisation"),  # Ohm sign
    ("\u0340", "normalisation"),
    ("\u2329", "normalisation"),
    ("a.", "reserved"),
    ("a..", "reserved"),
    ("...", "reserved"),
    ("a ", "reserved"),
    (" ", "reserved"),
    (" a", "reserved"),
    ("a /b", "reserved"),
    ("a./b", "reserved"),
    ("dir/ a", "reserved"),
    ("CON", "reserved"),
    ("con", "reserved"),
    ("Con.txt", "reserved"),
    ("con.tar.gz", "reserved"),
    ("PRN", "reserved"),
    ("AUX", "reserved"),
    ("aux.h", "reserved"),
    ("NUL", "reserved"),
    ("nul.csv", "reserved"),
    ("COM1", "reserved"),
    ("com9.log", "reserved"),
    ("LPT1", "reserved"),
    ("lpt9", "reserved"),
    ("COM0", "reserved"),
    ("a/nul/b", "reserved"),
    ("x" * 256, "length"),
    ("日" * 86, "length"),
    ("a/" + "x" * 256, "length"),
    ("/".join(["x" * 250] * 5), "length"),
    ("x" * 100_000, "length"),
    ("/".join("x" * 33), "depth"),
    ("a/" * 100_000 + "a", "depth"),
    ("../" * 40 + "etc/passwd", "depth"),
]


@pytest.mark.parametrize("text", GOOD)
def test_a_plain_name_is_taken_as_it_is(text: str) -> None:
    assert str(RelPath.parse(text)) == text


@pytest.mark.parametrize(("text", "why"), BAD, ids=range(len(BAD)))
def test_a_name_that_could_mislead_is_refused_with_its_reason(text: str, why: str) -> None:
    with pytest.raises(UsageError) as refusal:
        RelPath.parse(text)
    assert (refusal.value.code, refusal.value.params["why"]) == ("path.invalid", why)
    assert len(str(refusal.value.params["path"])) <= 200


def test_the_corpus_of_names_is_as_large_as_promised() -> None:
    assert len({*GOOD, *(text for text, _ in BAD)}) >= 120


def test_there_is_no_way_around_the_check() -> None:
    for parts in [(), ("..",), ("a/b",), ("",), ("a", "..", "b")]:
        with pytest.raises(UsageError):
            RelPath(parts)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A", "a"),
        ("Dir/File", "dir/fILE"),
        ("Straße", "STRASSE"),
        ("ﬁle", "file"),
        ("ÄÖ", "äö"),
        ("ΣΣ", "σς"),
        ("İ", "i\u0307"),
        ("K", "\u212a".lower()),
    ],
)
def test_names_that_a_file_system_may_take_for_one_have_one_key(one: str, other: str) -> None:
    other = unicodedata.normalize("NFC", other)
    assert RelPath.parse(one).key == RelPath.parse(other).key


@pytest.mark.parametrize(
    ("one", "other"), [("a", "b"), ("a/b", "a-b"), ("か", "が"), ("\u0131", "i")]
)
def test_names_that_differ_have_different_keys(one: str, other: str) -> None:
    assert RelPath.parse(one).key != RelPath.parse(other).key


# --------------------------------------------------------------------------------------- patterns

MATCHES = [
    ("a", "a"),
    ("a/b", "a/b"),
    ("*", "a"),
    ("*", "a.csv"),
    ("*.csv", "a.csv"),
    ("*.csv", "結果.csv"),
    ("a*", "a"),
    ("a*", "abc"),
    ("*a*", "banana"),
    ("a*b*c", "aXbYc"),
    ("a*b*c", "abbbcbc"),
    ("?", "x"),
    ("?", "日"),
    ("??", "日本"),
    ("a?c", "abc"),
    ("*?", "a"),
    ("?*", "ab"),
    ("a/*", "a/b"),
    ("*/b", "a/b"),
    ("**", "a"),
    ("**", "a/b/c"),
    ("a/**", "a/b"),
    ("a/**", "a/b/c/d"),
    ("**/c", "c"),
    ("**/c", "a/b/c"),
    ("a/**/d", "a/d"),
    ("a/**/d", "a/b/c/d"),
    ("**/*.csv", "a.csv"),
    ("**/*.csv", "x/y/a.csv"),
    ("a/**/b/*", "a/x/y/b/c"),
    (".hidden", ".hidden"),
    (".h*", ".hidden"),
    ("a/.h/*", "a/.h/b"),
    ("**/.h", "a/.h"),
    ("[a]", "[a]"),
    ("a+b(c)|^$", "a+b(c)|^$"),
    ("*", "a*b"),
    ("a*b", "a*b"),
    ("a?b", "a*b"),
    ("*.*", "a.b"),
    ("a*", "a*"),
]
DIFFERS = [
    ("a", "b"),
    ("a", "A"),
    ("a", "a/b"),
    ("a/b", "a"),
    ("*", "a/b"),
    ("*", ".hidden"),
    ("?hidden", ".hidden"),
    ("?", "ab"),
    ("?", ".x"),
    ("*.csv", ".csv"),
    ("*.csv", "a.csvx"),
    ("*.csv", "acsv"),
    ("*.csv", "d/a.csv"),
    ("a*b*c", "acb"),
    ("a*b", "ab/b"),
    ("a?c", "ac"),
    ("a?c", "a/c"),
    ("**", ".hidden"),
    ("**", ".dir/a"),
    ("**", "a/.hidden"),
    ("**", "a/.dir/b"),
    ("a/**", "a"),
    ("a/**", "b/a"),
    ("a/**", "a/.git/config"),
    ("**/c", "a/b/d"),
    ("**/c", ".a/c"),
    ("a/**/d", "a/b"),
    ("a/**/d", "d"),
    ("a/**/a", "a"),
    ("**/a/b", "b"),
    ("[a]", "a"),
    ("[a-z]", "b"),
    (".*x", "aax"),
    ("a.c", "abc"),
    ("{a,b}", "a"),
]


@pytest.mark.parametrize(("pattern", "name"), MATCHES)
def test_a_pattern_matches(pattern: str, name: str) -> None:
    assert Pattern(pattern).matches(RelPath.parse(name))


@pytest.mark.parametrize(("pattern", "name"), DIFFERS)
def test_a_pattern_does_not_match(pattern: str, name: str) -> None:
    assert not Pattern(pattern).matches(RelPath.parse(name))


@pytest.mark.parametrize(
    "pattern",
    [
        *("", "/", "/*", "*/", "../*", "a/../b", "**/..", "a**", "**a", "a/**b", "***", "**/**"),
        *("a/**/b/**", "*\0", "*\n", "*\\*", "x" * 256, "*/" * 32 + "*", "*.", "* ", "nul"),
    ],
)
def test_a_pattern_obeys_the_rules_of_names(pattern: str) -> None:
    with pytest.raises(UsageError):
        Pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("*a" * 60 + "*b", "a" * 250),
        ("*?" * 100 + "b", "a" * 250),
        ("*ab" * 60 + "*c", "ab" * 120),
        ("**/" + "*a" * 60 + "*b", "/".join(["a" * 30] * 30)),
        ("**/" + "/".join(["*a*a*a*b"] * 20), "/".join(["a" * 30] * 30)),
    ],
)
def test_no_pattern_takes_long(pattern: str, name: str) -> None:
    """The naive translation into a regular expression needs longer than the world is old."""
    wanted, path = Pattern(pattern), RelPath.parse(name)
    started = time.process_time()
    for _ in range(10):
        assert not wanted.matches(path)
    assert time.process_time() - started < 2


def test_a_literal_is_a_pattern_without_wildcards() -> None:
    assert Pattern("a/b[c]").literal
    assert not any(Pattern(p).literal for p in ("*", "a?", "**/a"))
