"""The operator's commands, as the operator types them."""

from __future__ import annotations

import io
import json
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast

import click
import msgspec
import pytest
from click.testing import CliRunner, Result

from sekisho.cli.broker import broker
from sekisho.cli.session import Session
from sekisho.compose.broker import desk
from sekisho.config.broker import load_broker
from sekisho.domain.access import Role
from sekisho.domain.errors import Conflict, NotFound, SekishoError, Unauthenticated
from sekisho.domain.token import hash_token, is_token, make_token
from sekisho.i18n.catalogue import catalogue
from sekisho.wire.v1 import Accept, JoinSite, Poll
from tests.component.broker_world import AGENT, a_submission


@pytest.fixture
def config(tmp_path: Path) -> Path:
    home = tmp_path / "b"
    assert run("init", home, "--host", "::1", "--port", "1234").exit_code == 0
    return home / "broker.toml"


class Heard(io.TextIOBase):
    """Passes on what is printed to where the runner listens at that moment."""

    def write(self, text: str) -> int:
        return sys.stdout.write(text)


def run(*argv: object, lang: str = "en") -> Result:
    session = Session(lang=lang, out=cast("TextIO", Heard()))
    return CliRunner().invoke(broker, [str(a) for a in argv], obj=session)


def told(config: Path, *argv: object) -> Any:
    done = run(*argv, "--json", "-c", config)
    assert done.exit_code == 0, done.output
    return msgspec.json.decode(done.stdout)


def error_of(*argv: object) -> SekishoError:
    error = run(*argv).exception
    assert isinstance(error, SekishoError), error
    return error


def test_init_makes_private_files_and_settings_that_can_be_read(config: Path) -> None:
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700
    for file in config.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0
    http = load_broker(config, {}).settings.http
    assert (http.host, http.port, http.tls_cert) == ("::1", 1234, None)


def test_init_overwrites_nothing(config: Path) -> None:
    before = config.read_bytes()
    assert isinstance(error_of("init", config.parent), Conflict)
    assert config.read_bytes() == before


def test_a_site_is_added_listed_switched_and_rotated(config: Path) -> None:
    first = run("site", "add", "kobe", "--user", "alice", "--user", "bob", "-c", config)
    assert is_token(first.stdout.strip())
    run("site", "disable", "kobe", "-c", config)
    said = run("site", "disable", "kobe", "--command", "solve", "-c", config)
    assert "switched off: yes\ncommands switched off: solve\n" in said.stdout
    (site,) = told(config, "site", "list")
    assert (site["id"], site["disabled"], site["connected"]) == ("kobe", True, False)
    assert (site["disabled_commands"], site["submitters"]) == (["solve"], ["alice", "bob"])
    run("site", "enable", "kobe", "-c", config)
    run("site", "enable", "kobe", "--command", "solve", "-c", config)
    said = run("site", "users", "kobe", "--user", "carol", "-c", config)
    assert said.stdout == "site: kobe\nusers: carol\nswitched off: no\ncommands switched off: -\n"
    (site,) = told(config, "site", "list")
    assert (site["disabled"], site["disabled_commands"]) == (False, [])
    assert site["submitters"] == ["carol"]
    second = run("site", "rotate", "kobe", "-c", config)
    with desk(load_broker(config, {})) as services:
        assert services.tokens.authenticate(second.stdout.strip()).name == "kobe"
        with pytest.raises(Unauthenticated):
            services.tokens.authenticate(first.stdout.strip())


def test_rotation_names_the_jobs_that_an_old_agent_cannot_tell_of_any_more(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kills: a site that is rotated without a word on what its old agent computes."""
    run("site", "add", "kobe", "--user", "alice", "-c", config)
    text = config.read_text().replace(
        "# enabled = false\n# queue_minutes", "enabled = true\n# queue_minutes"
    )
    config.write_text(text + "[mint.site.kobe]\nunguarded = true\n")
    job = a_submission(site="kobe")
    with desk(load_broker(config, {})) as services:
        services.tokens.create(Role.SUBMITTER, "kobe")  # another's, of this name
        invitation = services.tokens.authenticate(services.tokens.invite("kobe")[1].reveal())
        secret = make_token(Role.SITE, b"k" * 32).reveal()
        message = JoinSite(instance=AGENT, token_hash=hash_token(secret))
        services.tokens.join(invitation, message)
        agent = services.mint_work.agent(services.tokens.authenticate(secret), "kobe", "::1")
        assert agent is not None
        services.submissions.submit("alice", job)
        (offer,) = services.offers.look("kobe", Poll(instance=agent.instance, free=1)).offers
        held = Accept(epoch=offer.epoch, instance=agent.instance)
        services.offers.accept("kobe", offer.job, held)
    done = run("site", "rotate", "kobe", "-c", config)
    assert f"sekisho broker lost {job.id} --by NAME" in capsys.readouterr().err
    assert is_token(done.stdout.strip())
    again = told(config, "site", "rotate", "kobe")
    assert (again["site"], again["orphaned"]) == ("kobe", [job.id])


def test_a_token_goes_to_a_private_file_unless_it_is_to_be_shown(
    config: Path, tmp_path: Path
) -> None:
    file = tmp_path / "alice.token"
    argv = ["token", "create", "--role", "submitter", "--user", "alice", "-c", config]
    written = run(*argv, "--to", file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secret = file.read_text().strip()
    assert is_token(secret)
    assert secret not in written.output
    assert isinstance(error_of(*argv, "--to", file), Conflict)
    shown = run(*argv, "--show", "--days", "1").stdout.strip()
    listed = run("token", "list", "--json", "-c", config).stdout
    assert secret not in listed
    assert shown not in listed
    tokens = msgspec.json.decode(listed)
    assert [t["expires_at"] is None for t in tokens] == [True, False]
    run("token", "revoke", tokens[0]["id"], "-c", config)
    with desk(load_broker(config, {})) as services:
        assert services.tokens.authenticate(shown).role is Role.SUBMITTER
        with pytest.raises(Unauthenticated):
            services.tokens.authenticate(secret)


def test_jobs_are_listed_shown_and_declared_lost(config: Path) -> None:
    run("site", "add", "one", "--user", "alice", "-c", config)
    with desk(load_broker(config, {})) as services:
        job, _ = services.submissions.submit("alice", a_submission())
        services.offers.look("one", Poll(instance=AGENT, free=1))
    (row,) = told(config, "jobs", "--site", "one", "--user", "alice", "--state", "offered")
    assert row["id"] == job.id
    assert told(config, "jobs", "--user", "bob") == []
    table = [re.split(" {2,}", line) for line in run("jobs", "-c", config).stdout.splitlines()]
    assert table[0] == ["id", "site", "user", "state", "last change", "unguarded"]
    assert table[1][:4] == [job.id, "one", "alice", "offered to the site"]
    shown = told(config, "show", job.id)
    assert [step["state"] for step in shown["history"]] == ["queued", "offered"]
    assert isinstance(error_of("lost", job.id, "--by", "operator", "-c", config), Conflict)
    nameless = error_of("lost", job.id, "--by", "a\nb", "-c", config)
    assert nameless.code == "name.invalid"
    assert isinstance(error_of("show", "job_" + "0" * 26, "-c", config), NotFound)


@pytest.mark.parametrize(
    "words",
    [("jobs",), ("status",), ("site", "list"), ("token", "list"), ("show", "JOB")],
    ids=" ".join,
)
def test_what_an_operator_reads_has_words_in_both_languages_and_programs_read_the_same_keys(
    config: Path, words: tuple[str, ...]
) -> None:
    """Kills: a key of the JSON as a label, a label that is nobody's language, `True`."""
    run("site", "add", "one", "--user", "alice", "-c", config)
    with desk(load_broker(config, {})) as services:
        job, _ = services.submissions.submit("alice", a_submission())
    words = tuple(job.id if word == "JOB" else word for word in words)
    keys = set(keys_of(json.loads(run(*words, "-c", config, "--json").stdout)))
    assert keys
    for lang in ("en", "ja"):
        labels = catalogue(lang)["column"] | catalogue(lang)["state"]
        assert keys <= labels.keys()
        shown = run(*words, "-c", config, lang=lang).stdout
        assert any(labels[key] in shown for key in ("state", "serving", "connected", "role"))
        assert not re.search(r"[a-z]_[a-z]+(:|=|  )|True|False|None", shown.replace(job.id, ""))


def keys_of(value: Any) -> Iterator[str]:
    """Yield every key of ``value`` and of what it holds; what a site is called is no key."""
    for item in value if isinstance(value, list) else [value] if isinstance(value, dict) else []:
        for key, inner in item.items() if isinstance(item, dict) else []:
            yield key
            yield from keys_of(inner)


def test_status_is_told_without_a_serving_broker(config: Path) -> None:
    status = told(config, "status")
    assert (status["serving"], status["jobs"], status["stored_bytes"]) == (False, {}, 0)


def test_every_command_has_a_help() -> None:
    def walk(group: click.Group) -> None:
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            assert command.name == name
            assert command.help, name
            if isinstance(command, click.Group):
                walk(command)

    walk(broker)


def test_a_job_is_shown_with_a_line_for_each_fact_and_each_state(config: Path) -> None:
    run("site", "add", "one", "--user", "alice", "-c", config)
    with desk(load_broker(config, {})) as services:
        job, _ = services.submissions.submit("alice", a_submission())
        services.offers.look("one", Poll(instance=AGENT, free=1))
    lines = run("show", job.id, "-c", config).stdout.splitlines()
    assert f"id: {job.id}" in lines
    begin = lines.index("history:") + 1
    moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"
    for line, state in zip(
        lines[begin:], ("waiting for the site", "offered to the site"), strict=True
    ):
        assert re.fullmatch(rf"  {moment}  {state}", line), line
    assert re.search(rf"^last change: {moment}$", "\n".join(lines), re.MULTILINE)
