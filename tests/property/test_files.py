"""Names and patterns: whatever is accepted stays below its directory, and matches as it reads."""

import posixpath
import re
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from sekisho.domain.errors import UsageError
from sekisho.domain.files import Pattern, RelPath

NAMES = st.text(max_size=30) | st.text(alphabet="ab./\\:* \n\u202eé", max_size=12)
#: What stands between slashes, of few letters, so that patterns and names often meet.
COMPONENTS = st.text(alphabet="ab.", min_size=1, max_size=5).filter(
    lambda text: text[-1] != "." and text not in {".", ".."}
)
GLOBS = st.text(alphabet="ab.*?", min_size=1, max_size=6).filter(
    lambda text: text[-1] != "." and "**" not in text
)
PATHS = st.lists(COMPONENTS, min_size=1, max_size=5).map(lambda parts: RelPath(tuple(parts)))


@given(NAMES)
def test_what_is_accepted_stays_below_its_directory(text: str) -> None:
    """Kills: any hole in the grammar by which a name is absolute, climbs, or is read otherwise."""
    try:
        path = RelPath.parse(text)
    except UsageError:
        return
    assert str(path) == text
    assert posixpath.normpath(posixpath.join("/base", text)) == "/base/" + text
    assert unicodedata.is_normalized("NFC", text)
    assert not any(unicodedata.category(c)[0] == "C" for c in text)


@given(PATHS, PATHS)
def test_paths_sort_as_their_parts_do(one: RelPath, other: RelPath) -> None:
    """Kills: an order by text, in which `a-b` stands between `a` and `a/b`."""
    assert (one < other) == (one.parts < other.parts)


def as_regex(parts: list[str]) -> re.Pattern[str]:
    """The same pattern as a regular expression: slow in the worst case, but easy to believe."""
    out = []
    for n, part in enumerate(parts):
        last = n == len(parts) - 1
        if part == "**":
            out.append(r"([^/.][^/]*/)*" + (r"[^/.][^/]*" if last else ""))
        else:
            hidden = r"(?!\.)" if part[0] in "*?" else ""
            body = "".join({"*": "[^/]*", "?": "[^/]"}.get(c, re.escape(c)) for c in part)
            out.append(hidden + body + ("" if last else "/"))
    return re.compile("".join(out))


@st.composite
def patterns(draw: st.DrawFn) -> list[str]:
    parts = draw(st.lists(GLOBS, min_size=1, max_size=4))
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), "**")
    return parts


@given(patterns(), PATHS)
def test_a_pattern_matches_what_its_regular_expression_would(
    parts: list[str], path: RelPath
) -> None:
    """Kills: a star that crosses a slash or a leading dot; a double star that takes too little."""
    pattern = Pattern("/".join(parts))
    assert pattern.matches(path) == bool(as_regex(parts).fullmatch(str(path)))


@given(PATHS)
def test_a_literal_matches_itself_only(path: RelPath) -> None:
    """Kills: a character of a name that is read as a wildcard."""
    pattern = Pattern(str(path))
    assert pattern.literal
    assert pattern.matches(path)
    assert not pattern.matches(RelPath((*path.parts, "a")))
