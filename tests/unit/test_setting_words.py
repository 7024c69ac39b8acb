"""Whatever is wrong with a file of settings is told in the reader's language, by our own codes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

import sekisho
from sekisho.cli import output
from sekisho.cli.session import Session
from sekisho.config.broker import BrokerSettings
from sekisho.config.client import ClientSettings
from sekisho.config.complaint import complaint
from sekisho.config.load import examine, parse
from sekisho.config.manifest import parse_manifest
from sekisho.config.site import SiteSettings
from sekisho.domain.errors import ConfigError
from sekisho.domain.setting import SettingFault
from sekisho.i18n.catalogue import LANGUAGES, catalogue, sentence
from tests.unit.test_manifest_file import BATCH, FULL, SMALL

CONFIG = Path(sekisho.__file__).parent / "config"
JAPANESE = re.compile(r"[ぁ-んァ-ヶ一-龠]")
#: What may be English in a Japanese sentence: names, values, and what a library is quoted with.
QUOTED = re.compile(r"`[^`]*`|「[^」]*」|次の.*: .*|条件 [<>=]+ \S+")
#: Words that stand in the manifest and in Japanese texts as they are.
NAMES = re.compile(r"argv|sandbox|true|false|TOML|publish|steel|[A-Za-z0-9_./+-]*[0-9/._][\w./+-]*")

CLIENT = (
    '[broker]\nurl = 3\nca_fil = "x"\nfirst_contact_s = -1\nmax_mbit_s = "fast"\n',
    '[broker]\nurl = "x"\n',
    "[broker]\n",
    "broker = 1\nsite = 2\n",
    '[site.a]\nmode = "smtp"\nhost = ""\npersist_s = 99999999\nbase = "; rm"\nbefore = [1]\n',
    '[site."A B"]\nmode = "ssh"\n[site.b]\nmode = "ssh"\nkind = "naked"\nprogram = { x = "y" }\n',
    '[site.X]\nmode = "ssh"\n',
    '[site.x]\nmode = "ssh"\n[site.x.program]\n"a b" = ["/x"]\n',
    "x = = 3\n",
    "[broker\n",
    'x = "\n',
)
AGENT = (
    '[broker]\nurl = true\n[site]\nwork_base = 1\ncache_bytes = -3\n[log]\nlevel = "loud"\n',
    '[broker]\nurl = "https://b"\n[host."-x"]\nbase = "/a/b"\n[host.y]\nbase = "tmp"\n',
    "[host.y]\n[sites]\n",
    '[broker]\nurl = "https://b"\n[host."-x"]\nbase = "/a/b"\n',
)
BROKER = (
    '[http]\nport = 70000\nhots = 1\nprefix = "x/"\ntrusted_proxies = [3]\n',
    '[mint.site.a.commands]\nx = ""\n[quota]\nsite_jobs = 1.5\n[retention]\nreceived_days = 0\n',
    "[mint.site.A]\nunguarded = true\n",
    "http = [1]\nlog = 2020-01-01\nmint = 12:00:00\nquota = 2020-01-01T00:00:00Z\n",
)
MANIFEST = (
    SMALL.replace('["/opt/solve"]', '["solve"]'),
    SMALL + SMALL[SMALL.index("\n[[command]]") :],
    SMALL + "[command.limits]\nmax_file_bytes = 1\n",
    SMALL + '[command.sandbox]\nread = ["/"]\n',
    SMALL + '[command.sandbox]\nread = ["x"]\nconnect = [0]\n',
    SMALL + "[command.publish]\nevery_s = 1\n",
    SMALL + "[command.resources]\ncpus = 1\n",
    SMALL + '[command.before]\nargv = ["x"]\ntime_limit_s = 1\n',
    SMALL + '[[command.output]]\npath = "../x"\n[[command.input]]\npath = "a/**/b/**"\n',
    SMALL + "[command.environment]\nIFS = ''\n",
    FULL.replace('"{mode}"]', '"{mode}", "{colour}"]'),
    FULL.replace(', "{mode}"]', "]"),
    FULL.replace('"[a-z]+"', '"[a-z"'),
    FULL.replace('"[a-z]+"', '"(a+)+b"'),
    FULL.replace('default = "steel"', 'default = "STEEL"'),
    FULL.replace('default = "steel"', "default = 3"),
    FULL.replace('default = "steel"', 'flag = "-m"'),
    FULL.replace("minimum = 1, maximum = 10", "minimum = 9, maximum = 1"),
    FULL.replace("minimum = 1, maximum = 10", "minimum = 1"),
    FULL.replace('"10 MiB"', '"10 MB"').replace("max_files = 3", "max_files = 0"),
    BATCH.replace('scheduler = "cluster"', 'scheduler = "clutser"'),
    BATCH.replace('parameter = "cpus", max', 'parameter = "queue", max'),
    BATCH.replace("max = 32 }", "max = 32, min = 33 }"),
    BATCH.replace("max = 32 }", "maximum = 32 }"),
    BATCH.replace("[scheduler.cluster]", '[scheduler.local]\ndialect = "sge"\n[scheduler.cluster]'),
    BATCH.replace('{ PBS_SERVER = "pbs01" }', '{ BASH_ENV = "x" }'),
    SMALL + '[scheduler."x y"]\ndialect = "pbs"\n',
    SMALL + '[command.parameters.X]\ntype = "boolean"\n',
    'host = "ssh:a"\n' + SMALL + "[command.sandbox]\n",
    "[[[",
    "",
)
EVERY: list[tuple[type[msgspec.Struct] | None, str]] = [
    *((ClientSettings, text) for text in CLIENT),
    *((SiteSettings, text) for text in AGENT),
    *((BrokerSettings, text) for text in BROKER),
    *((None, text) for text in MANIFEST),
]


def faults(kind: type[msgspec.Struct] | None, text: str) -> list[SettingFault]:
    try:
        if kind is not None:
            return examine(text, "file.toml", kind)[1]
        parse_manifest(text, "file.toml")
    except ConfigError as error:
        found: Any = error.params["faults"]
        return list(found)
    return []


@pytest.mark.parametrize(("kind", "text"), EVERY, ids=range(len(EVERY)))
def test_a_fault_is_told_in_japanese_to_who_reads_japanese(
    kind: type[msgspec.Struct] | None, text: str
) -> None:
    found = faults(kind, text)
    assert found
    for fault in found:
        assert fault.code != "setting.wrong", fault
        told = sentence(fault.code, fault.params, "ja").what
        assert JAPANESE.search(told), told
        rest = NAMES.sub("", QUOTED.sub("", told).replace("\n", " "))
        english = set(re.findall(r"[A-Za-z]{3,}", rest)) - {str(v) for v in fault.params.values()}
        assert not english, (english, told)
        assert sentence(fault.code, fault.params, "en").what != fault.code


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_form_of_a_text_is_told_in_words(lang: str) -> None:
    """Kills: a regular expression as an explanation; a form without words."""
    found = [fault for kind, text in EVERY for fault in faults(kind, text)]
    forms = {str(fault.params["form"]) for fault in found if fault.code == "setting.form"}
    assert len(forms) > 5
    source = "".join(file.read_text("utf-8") for file in CONFIG.glob("*.py"))
    named = set(re.findall(r'formed\("(\w+)"', source))
    assert forms <= named == catalogue(lang)["form"].keys()
    assert source.count("pattern=") == 1


@pytest.mark.parametrize("base", ["~", "~/", "~/jobs", "~/a b/c/", "jobs", "/", "/tmp/", "a~b"])
def test_a_base_may_begin_at_the_home(base: str) -> None:
    text = f'[site.x]\nmode = "ssh"\nbase = "{base}"\n'
    found = faults(ClientSettings, text)
    if base == "a~b":
        (fault,) = found
        assert "~/NAME" in sentence(fault.code, fault.params, "en").what
    else:
        place = parse(text, "f", ClientSettings).site["x"].place
        expected = {"~": ".", "~/": ".", "~/jobs": "jobs", "~/a b/c/": "a b/c", "/tmp/": "/tmp"}
        assert (found, place) == ([], expected.get(base, base))


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_line_of_a_fault_is_printed_with_its_place_and_its_words(
    lang: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = faults(ClientSettings, '[broker]\nurl = "https://b"\nurll = 1\n')
    output.error(Session(lang=lang), ConfigError("config.invalid", faults=fault))
    told = capsys.readouterr().err.splitlines()[1]
    words = {"en": "There is no key `urll` here.", "ja": "`urll` というキーはここにはありません。"}
    assert told == f"  file.toml:3: broker.urll: {words[lang]}"


def test_what_a_file_says_cannot_begin_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fault = faults(ClientSettings, '"x\\nerror[forged]: y\\u001b[2J" = 1\n')
    output.error(Session(lang="en"), ConfigError("config.invalid", faults=fault))
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 3
    assert "\x1b" not in told


def test_a_program_gets_code_and_parameters_of_each_fault(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fault = faults(ClientSettings, '[broker]\nurl = "https://b"\nfirst_contact_s = -1\n')
    session = Session(lang="en", json=True)
    output.error(session, ConfigError("config.invalid", faults=fault))
    (told,) = msgspec.json.decode(capsys.readouterr().out)["error"]["params"]["faults"]
    assert told == {
        "file": "file.toml",
        "line": 3,
        "key": "broker.first_contact_s",
        "code": "setting.range",
        "params": {"bound": ">= 0.0"},
    }


@pytest.mark.parametrize(
    ("value", "kind", "where", "code"),
    [
        (3, str, "", "setting.type"),
        ([3], list[str], "[0]", "setting.type"),
        ("x", int | None, "", "setting.type"),
        ({"a": 3}, dict[str, str], "[...]", "setting.type"),
        (0, bool, "", "setting.type"),
    ],
)
def test_a_complaint_of_the_library_is_understood_with_its_place(
    value: Any, kind: Any, where: str, code: str
) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(value, kind)
    place, error = complaint(caught.value, kind)
    assert (place, error.code) == (where, code)


def test_a_complaint_that_is_not_understood_is_quoted() -> None:
    _, error = complaint(msgspec.ValidationError("Quite wrong"), str)
    assert (error.code, error.params) == ("setting.wrong", {"why": "Quite wrong"})
    assert "「Quite wrong」" in sentence(error.code, error.params, "ja").what
