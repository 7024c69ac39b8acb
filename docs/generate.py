"""Write the generated parts of docs/en and docs/ja, between their markers; `--check` only compares.

A list exists once, in the source; here it becomes a table. The sentences beside the names are in
`words.toml`, in both languages: one that is missing, or describes nothing, is an error.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from sekisho.cli import exit as statuses
from sekisho.config import batch as batch_config
from sekisho.config import broker as broker_config
from sekisho.config import client as client_config
from sekisho.config import manifest as manifest_config
from sekisho.config import parameter as parameter_config
from sekisho.config import publish as publish_config
from sekisho.config import site as agent_config
from sekisho.domain import egress
from sekisho.domain.access import SCOPES, Role, Scope
from sekisho.domain.job import TRANSITIONS, JobState
from sekisho.domain.run import STAGES, Stage
from sekisho.http.mint_calls import MintCalls
from sekisho.http.routes import Calls, routes
from sekisho.i18n.catalogue import TABLES, catalogue, sentence, text
from sekisho.wire import envelope, v1

DOCS: Final = Path(__file__).resolve().parent
LANGUAGES: Final = ("en", "ja")
MODULES: Final = {
    "manifest": manifest_config,
    "batch": batch_config,
    "parameter": parameter_config,
    "publish": publish_config,
    "agent": agent_config,
    "broker": broker_config,
    "client": client_config,
    "v1": v1,
    "envelope": envelope,
}
MARKED: Final = re.compile(
    r"(?P<head><!-- generated: (?P<what>[^\n]+) -->\n).*?(?P<tail><!-- end of generated -->)",
    re.DOTALL,
)


class DocsFault(Exception):
    """Source and words do not agree."""


class Words:
    """The sentences of `words.toml`; remembers which were used."""

    def __init__(self) -> None:
        self._tables = tomllib.loads((DOCS / "words.toml").read_text("utf-8"))
        self._used: set[tuple[str, str]] = set()

    def __call__(self, table: str, key: str, lang: str) -> str:
        found = self._tables.get(table, {}).get(key)
        if found is None:
            raise DocsFault(f"words.toml: no words for {key!r} in [{table!r}]")
        self._used.add((table, key))
        return str(found if isinstance(found, str) else found[LANGUAGES.index(lang)])

    def unused(self) -> list[str]:
        every = {(name, key) for name, table in self._tables.items() for key in table}
        return sorted(f"[{table}] {key}" for table, key in every - self._used)


class Page:
    """Makes the tables of one language."""

    def __init__(self, words: Words, lang: str) -> None:
        self._words = words
        self._lang = lang
        self._ja = lang == "ja"
        self._makers: dict[str, Callable[..., Iterator[str]]] = {
            "errors": self.errors,
            "exit": self.exit_statuses,
            "fields": self.fields,
            "states": self.states,
            "state-diagram": self.state_diagram,
            "transitions": self.transitions,
            "stages": self.stages,
            "stage-diagram": self.stage_diagram,
            "routes": self.routes,
            "scopes": self.scopes,
            "promises": self.promises,
            "cleared-params": self.cleared_params,
            "mint-routes": self.mint_routes,
        }

    def make(self, what: str) -> str:
        """Return the text that belongs between the markers of ``what``."""
        name, *arguments = what.split()
        return "\n" + "\n".join(self._makers[name](*arguments)) + "\n\n"

    def errors(self) -> Iterator[str]:
        heads = ("コード", "意味", "次にできること") if self._ja else ("code", "what", "next")
        yield from _head(*heads)
        for code in sorted(catalogue(self._lang)):
            if code not in TABLES:
                made = sentence(code, {"ssh": "ssh …"}, self._lang)
                yield _row(f"`{code}`", made.what, made.next)

    def exit_statuses(self) -> Iterator[str]:
        yield from _head(*(("終了コード", "意味") if self._ja else ("status", "meaning")))
        for status, meaning in statuses.table(self._lang):
            yield _row(status, meaning)

    def fields(self, name: str) -> Iterator[str]:
        """Describe every field of a message or table: ``module.Struct``."""
        module, kind = name.split(".")
        struct = getattr(MODULES[module], kind)
        settings = module not in ("v1", "envelope")
        schemas = _properties(struct) if settings else {}
        heads = (
            ("項目", "型", "既定値", "意味") if self._ja else ("key", "type", "default", "meaning")
        )
        yield from _head(*(heads if settings else (heads[0], heads[3])))
        for field in msgspec.structs.fields(struct):
            words = self._words(name, field.name, self._lang)
            kinds = (_kind(schemas[field.name]), self._default(field)) if settings else ()
            yield _row(f"`{field.name}`", *kinds, words)

    def _default(self, field: msgspec.structs.FieldInfo) -> str:
        if field.required:
            return "必須" if self._ja else "required"
        value = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            value = field.default_factory()
        if value is None or isinstance(value, msgspec.Struct) or value in ([], {}, ""):
            return "-"
        return f"`{json.dumps(value, ensure_ascii=False)}`"

    def states(self) -> Iterator[str]:
        heads = ("状態", "表示", "意味") if self._ja else ("state", "in Japanese", "meaning")
        yield from _head(*heads)
        for state in JobState:
            words = self._words("states", state.value, self._lang)
            yield _row(f"`{state}`", text("state", state.value, "ja"), words)

    def state_diagram(self) -> Iterator[str]:
        yield from ("```mermaid", "stateDiagram-v2", "    [*] --> draft")
        for source, row in TRANSITIONS.items():
            for event, target in row.items():
                yield f"    {source} --> {target}: {event.__name__}"
                if event.__name__ == "Returned":
                    yield f"    {source} --> {JobState.FAILED}: {event.__name__}"
        for state in JobState:
            if state.terminal:
                yield f"    {state} --> [*]"
        yield "```"

    def transitions(self) -> Iterator[str]:
        heads = ("元", "出来事", "先", "意味") if self._ja else ("from", "event", "to", "when")
        yield from _head(*heads)
        for source, row in TRANSITIONS.items():
            for event, target in row.items():
                words = self._words("events", event.__name__, self._lang)
                yield _row(f"`{source}`", f"`{event.__name__}`", f"`{target}`", words)

    def stages(self) -> Iterator[str]:
        yield from _head(*(("段階", "意味") if self._ja else ("stage", "meaning")))
        for stage in Stage:
            yield _row(f"`{stage}`", self._words("stages", stage.value, self._lang))

    def stage_diagram(self) -> Iterator[str]:
        yield from ("```mermaid", "stateDiagram-v2", "    [*] --> taken")
        for source, targets in STAGES.items():
            for target in sorted(targets):
                yield f"    {source} --> {target}"
        yield "```"

    def routes(self) -> Iterator[str]:
        heads = ("経路", "権限", "内容") if self._ja else ("route", "scope", "purpose")
        yield from _head(*heads)
        for row in routes(cast(Calls, _Nobody())):
            words = self._words("routes", row.route, self._lang)
            yield _row(f"`{row.route}`", f"`{row.scope}`", words if self._ja else row.purpose)

    def mint_routes(self) -> Iterator[str]:
        """Print the old MInt paths."""
        yield from _head(*(("経路", "側", "内容") if self._ja else ("path", "side", "purpose")))
        nobody = cast(Any, _Nobody())
        for row in MintCalls(nobody, nobody, nobody).rows():
            words = self._words("mint-routes", row.name, self._lang)
            yield _row(f"`{row.method} {row.path}`", f"`{row.side}`", words)

    def scopes(self) -> Iterator[str]:
        heads = ("権限", "できること", "役割") if self._ja else ("scope", "allows", "roles")
        yield from _head(*heads)
        for scope in Scope:
            roles = ", ".join(f"`{role}`" for role in Role if scope in SCOPES[role]) or "-"
            yield _row(f"`{scope}`", self._words("scopes", scope.value, self._lang), roles)

    def promises(self) -> Iterator[str]:
        """Print every promise with the tests that hold it."""
        kept = tomllib.loads((DOCS / "promises.toml").read_text("utf-8"))
        for number, promise in kept.items():
            yield f"### {number} {promise[self._lang][0]}\n"
            yield f"{promise[self._lang][1]}\n"
            yield from (f"- `{test}`" for test in promise["tests"])
            yield ""

    def cleared_params(self) -> Iterator[str]:
        yield ", ".join(f"`{name}`" for name in sorted(egress.REASON_PARAMS))


class _Nobody:
    """Stands where the routes' functions would be: the table is read, not called."""

    def __getattr__(self, _name: str) -> _Nobody:
        return self


def _head(*names: str) -> Iterator[str]:
    yield _row(*names)
    yield _row(*("---" for _ in names))


def _row(*cells: str) -> str:
    plain = (cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(plain)} |"


def _properties(struct: type) -> dict[str, Any]:
    _, components = msgspec.json.schema_components([struct])
    found: dict[str, Any] = components[struct.__name__]["properties"]
    return found


def _kind(schema: dict[str, Any]) -> str:
    """Return a schema in a few words."""
    if "anyOf" in schema:
        kinds = (_kind(part) for part in schema["anyOf"] if part.get("type") != "null")
        return " / ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return " / ".join(f"`{value}`" for value in schema["enum"])
    if "$ref" in schema or schema.get("type") == "object":
        return "table"
    kind = str(schema.get("type", "any"))
    if kind == "array":
        items = schema.get("items", {})
        return f"array of {_kind(items)}" if items else "array"
    return kind + _limits(schema)


def _limits(schema: dict[str, Any]) -> str:
    above, low, high = (schema.get(key) for key in ("exclusiveMinimum", "minimum", "maximum"))
    if above is not None:
        return f" > {above}" + ("" if high is None else f", ≤ {high}")
    return "" if low is None else f" ≥ {low}" if high is None else f" {low}…{high}"


def renewed(page: Path, maker: Page) -> str:
    """Return the text of ``page`` with every generated part as it should be."""
    return MARKED.sub(
        lambda m: m["head"] + maker.make(m["what"]) + m["tail"], page.read_text("utf-8")
    )


def main(arguments: Sequence[str]) -> int:
    """Write, or with `--check` compare; return the exit status."""
    words = Words()
    stale = []
    for lang in LANGUAGES:
        maker = Page(words, lang)
        for page in sorted((DOCS / lang).glob("*.md")):
            fresh = renewed(page, maker)
            if fresh != page.read_text("utf-8"):
                stale.append(str(page.relative_to(DOCS.parent)))
                if "--check" not in arguments:
                    page.write_text(fresh, "utf-8")
    if unused := words.unused():
        raise DocsFault(f"words.toml: nothing is described by {', '.join(unused)}")
    print("\n".join(stale) or "up to date")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
