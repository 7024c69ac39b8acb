"""The workflow side's command line, as a user types it, against a real broker and a real site."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import click
import pytest

from sekisho.cli.main import COMMANDS, cli
from sekisho.cli.session import Session
from tests.e2e.conftest import SITE, USER, House
from tests.forked import AS_TYPED, Forked

LOG_NAME = "計算標準出力.txt"


def tree(root: Path) -> None:
    (root / "in" / "deep" / "er").mkdir(parents=True)
    (root / "in" / "deep" / "er" / "名前.txt").write_text("text")
    (root / "in" / "big").write_bytes(os.urandom(3_000_000))
    (root / "in" / "empty").touch()


def test_a_tree_goes_to_the_site_and_comes_back_the_same(house: House, tmp_path: Path) -> None:
    tree(tmp_path)
    words = ("-i", f"in={tmp_path / 'in'}", "-o", "out/**", "--into", tmp_path / "got")
    done = house.call("run", SITE, "copy", *words)
    assert done.status == 0, done.err
    printed = {Path(line).relative_to(tmp_path / "got" / "out") for line in done.out.splitlines()}
    assert printed == {Path("big"), Path("deep/er/名前.txt"), Path("empty")}
    for name in printed:
        assert (tmp_path / "got/out" / name).read_bytes() == (tmp_path / "in" / name).read_bytes()
    assert "succeeded" in done.err


def test_the_result_is_one_json_object_and_nothing_else(house: House, tmp_path: Path) -> None:
    done = house.call("run", SITE, "say", "-p", "text=a b", "--json", "--into", tmp_path)
    assert done.err == ""
    told = done.json
    assert (told["state"], told["exit_code"], told["site"]) == ("succeeded", 0, SITE)
    assert told["files"] == [str(tmp_path / LOG_NAME)]
    assert (tmp_path / LOG_NAME).read_text() == "said a b\n"


def test_who_asked_for_nothing_and_got_nothing_is_told_how_to_ask(
    house: House, tmp_path: Path
) -> None:
    tree(tmp_path)
    words = ("run", SITE, "copy", "-i", f"in={tmp_path / 'in'}", "--into", tmp_path / "got")
    done = house.call(*words)
    assert (done.status, done.out) == (0, "")
    assert "-o result.csv" in done.err
    assert "-o result.csv" not in house.call(*words, "-o", "nothing-like-this*").err
    assert house.call(*words, "--quiet").err == ""
    printed = house.call("run", SITE, "say", "-p", "text=a", "--into", tmp_path)
    assert printed.out
    assert "-o result.csv" not in printed.err


def test_the_exit_code_of_the_command_is_passed_through(house: House, tmp_path: Path) -> None:
    done = house.call("run", SITE, "say", "-p", "code=42", "--into", tmp_path)
    assert done.status == 42
    assert "command.failed" in done.err
    assert (tmp_path / LOG_NAME).exists()


def test_a_death_by_signal_is_128_and_the_signal(house: House, tmp_path: Path) -> None:
    done = house.call("run", SITE, "die", "--json", "--into", tmp_path)
    assert (done.status, done.json["signal"]) == (137, 9)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("nosuch",), "command.unknown"),
        (("say", "-p", "code=256"), "parameter.invalid"),
        (("say", "-p", "text=x;id"), "parameter.invalid"),
        (("say", "-p", "other=1"), "parameter.unknown"),
        (("say", "-o", "secret.dat"), "output.not_permitted"),
    ],
)
def test_a_refusal_is_told_from_a_failure(
    house: House, tmp_path: Path, words: tuple[str, ...], code: str
) -> None:
    done = house.call("run", SITE, *words, "--into", tmp_path)
    assert done.status == 77
    assert f"reason[{code}]" in done.err
    assert "error[job.refused]" in done.err


def test_errors_are_told_in_japanese(house: House, tmp_path: Path) -> None:
    done = house.call("run", SITE, "nosuch", "--into", tmp_path, LC_ALL="ja_JP.UTF-8")
    assert "拠点" in done.err
    assert "待ち受け" in house.call("--lang", "ja", "run", SITE, "nosuch").err


def test_a_site_that_does_not_serve_you_does_not_exist(house: House) -> None:
    done = house.call("run", "elsewhere", "copy")
    assert done.status == 66
    assert "error[site.not_found]" in done.err


def test_quiet_prints_results_only(house: House, tmp_path: Path) -> None:
    done = house.call("run", SITE, "say", "-q", "--into", tmp_path)
    assert (done.out, done.err) == (f"{tmp_path / LOG_NAME}\n", "")


def test_submit_wait_show_jobs_and_fetch_speak_of_one_job(house: House, tmp_path: Path) -> None:
    job = house.call("submit", SITE, "say").out.strip()
    waited = house.call("wait", job, "--no-fetch", "--json").json
    assert (waited["state"], waited["files"]) == ("succeeded", [])
    assert house.call("show", job, "--json").json["submitter"] == USER
    assert job in house.call("jobs").out
    assert job in [view["id"] for view in house.call("jobs", "--json").json]
    for _ in range(2):
        fetched = house.call("fetch", job, "--json", "--into", tmp_path).json
        assert fetched["files"] == [str(tmp_path / LOG_NAME)]
    assert house.call("show", job, "--json").json["received"]


def test_every_list_of_jobs_tells_programs_how_a_job_ended_in_the_same_words(house: House) -> None:
    well = house.call("submit", SITE, "say").out.strip()
    refused = house.call("submit", SITE, "nothing-of-that-name").out.strip()
    for job in (well, refused):
        house.call("wait", job, "--no-fetch")
    listed = {view["id"]: view for view in house.call("jobs", "--json").json}
    assert listed[well]["exit_code"] == 0
    assert listed[refused]["code"] == "command.unknown"
    assert listed[refused]["params"] == {"command": "nothing-of-that-name"}
    for job in (well, refused):
        assert "result" not in listed[job]
        assert house.call("show", job, "--json").json == listed[job]
        assert house.call("cancel", job, "--json").json == listed[job]


def test_a_job_is_shown_in_words_of_one_language(house: House) -> None:
    job = house.call("submit", SITE, "nothing-of-that-name").out.strip()
    house.call("wait", job)
    shown = house.call("show", job).out
    assert re.search(r"^state +refused$", shown, re.MULTILINE)
    assert re.search(r"^reason +The site has no command nothing-of-that-name", shown, re.MULTILINE)
    assert re.search(r"^result received +yes$", shown, re.MULTILINE)
    assert not re.search(r"_|True|False|None", shown.replace(job, ""))
    japanese = house.call("--lang", "ja", "show", job).out
    assert re.search(r"^状態 +拒否$", japanese, re.MULTILINE)
    assert not re.search(r"^[a-z]", japanese, re.MULTILINE)
    asked = house.call("cancel", job)
    assert (asked.out, asked.err) == ("refused\n", ""), "an ended job is not asked for"


def test_sites_tell_who_is_there(house: House) -> None:
    (site,) = house.call("sites", "--json").json
    assert (site["id"], site["connected"]) == (SITE, True)
    assert "connected" in house.call("sites").out
    for name in ("disabled", "disabled_commands", "waiting", "active", "unguarded"):
        assert name in site, "a script need not know what is usual"


def test_the_way_to_the_broker_can_be_checked(house: House) -> None:
    done = house.call("client", "check", "--json")
    assert done.json["sites"] == [SITE]
    assert done.json["clock_difference_s"] < 60


def test_a_job_in_hand_can_be_left_and_found_again(house: House, tmp_path: Path) -> None:
    before = house.starts()
    process = house.start("run", SITE, "gate", "-o", "passed.txt", cwd=tmp_path)
    job = wait_for(process, "submitted").split()[0]
    wait_for(process, "running")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 81
    assert f"sekisho wait {job}" in err
    house.open_gate("later")
    done = house.call("wait", job, cwd=tmp_path)
    assert done.status == 0
    assert (tmp_path / "passed.txt").read_text() == "later"
    assert house.starts() == before + 1


def test_a_killed_client_goes_on_with_the_same_id_and_nothing_runs_twice(
    house: House, tmp_path: Path
) -> None:
    before = house.starts()
    words = ("run", SITE, "gate", "-o", "passed.txt")
    process = house.start(*words, cwd=tmp_path)
    job = wait_for(process, "submitted").split()[0]
    wait_for(process, "running")
    process.kill()
    process.wait(30)
    again = house.start(*words, "--id", job, "--json", cwd=tmp_path)
    house.open_gate()
    out, err = again.communicate(timeout=30)
    assert (again.returncode, job in out) == (0, True), err
    assert house.starts() == before + 1


def test_an_id_kept_in_a_file_makes_a_repeated_call_the_same_job(
    house: House, tmp_path: Path
) -> None:
    words = ("run", SITE, "say", "--id-file", "job", "--json")
    first = house.call(*words, cwd=tmp_path).json
    again = house.call(*words, cwd=tmp_path).json
    assert again["job"] == first["job"] == (tmp_path / "job").read_text().strip()
    changed = house.call(*words, "-p", "text=other", cwd=tmp_path)
    assert (changed.status, changed.json["error"]["code"]) == (73, "job.different_request")


def test_an_interrupt_can_mean_cancel(house: House, tmp_path: Path) -> None:
    words = ("run", SITE, "gate", "-o", "passed.txt", "--on-interrupt", "cancel")
    process = house.start(*words, cwd=tmp_path)
    wait_for(process, "running")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 80
    assert "error[job.cancelled]" in err


def test_a_wait_that_takes_too_long_ends_and_the_job_goes_on(house: House) -> None:
    job = house.call("submit", SITE, "gate", "-o", "passed.txt").out.strip()
    done = house.call("wait", job, "--timeout", "0.2s")
    assert done.status == 81
    assert "error[job.goes_on]" in done.err
    assert house.call("cancel", job).status == 0
    assert house.call("wait", job).status == 80


def test_at_a_terminal_ctrl_c_asks(house: House, tmp_path: Path) -> None:
    """First go on, then detach; the terminal shows the question both times."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*AS_TYPED, "run", SITE, "gate", "-o", "passed.txt"],
        cwd=tmp_path,
        env=house.environ | {"TERM": "xterm"},
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=follower,
        text=True,
    )
    house.asides.append(process)
    os.close(follower)
    try:
        shown = read_until(leader, "running")
        job = next(word for word in shown.split() if word.startswith("job_"))
        process.send_signal(signal.SIGINT)
        read_until(leader, "[g]o on")
        os.write(leader, b"g\n")
        read_until(leader, "running")
        process.send_signal(signal.SIGINT)
        read_until(leader, "[d]etach")
        process.send_signal(signal.SIGINT)  # a second one, at the question itself: detach
        read_until(leader, f"sekisho wait {job}")
        assert process.wait(30) == 81
    finally:
        os.close(leader)
    house.call("cancel", job)
    assert house.call("wait", job).status == 80


def test_a_job_is_left_when_its_terminal_is_closed(house: House, tmp_path: Path) -> None:
    """Whoever started it there reads its status, not that of words that nobody could read."""
    pid, leader = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        words = [*AS_TYPED, "run", SITE, "gate", "-o", "passed.txt"]
        os.execvpe(words[0], words, house.environ | {"TERM": "xterm"})  # noqa: S606
    try:
        shown = read_until(leader, "running")
        job = next(word for word in shown.split() if word.startswith("job_"))
    finally:
        os.close(leader)
    _, ended = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(ended) == 81
    house.call("cancel", job)
    assert house.call("wait", job).status == 80


def test_a_broker_that_does_not_answer_is_told_from_a_job_that_failed(
    house: House, tmp_path: Path
) -> None:
    config = settings(tmp_path, house, url="https://127.0.0.1:1")
    done = house.call("--config", config, "run", SITE, "say")
    assert done.status == 69
    assert "error[broker.unreachable]" in done.err


def test_a_broker_with_a_foreign_certificate_is_not_talked_to(house: House, tmp_path: Path) -> None:
    import trustme  # noqa: PLC0415

    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    config = settings(tmp_path, house, url=house.url, ca=other)
    done = house.call("--config", config, "client", "check")
    assert done.status == 69
    assert "error[broker.tls]" in done.err


def test_a_short_command_tells_that_it_tries_again(house: House, tmp_path: Path) -> None:
    """Kills: half a minute without a word."""
    config = settings(tmp_path, house, url="https://127.0.0.1:9")
    config.write_text(config.read_text().replace("first_contact_s = 0.5", "first_contact_s = 60"))
    process = house.start("--config", config, "jobs", cwd=tmp_path)
    try:
        assert "Trying again" in wait_for(process, "broker")
    finally:
        process.kill()
        process.communicate()


def test_a_token_that_is_not_known_is_not_accepted(house: House, tmp_path: Path) -> None:
    from sekisho.domain.access import Role  # noqa: PLC0415
    from sekisho.domain.token import make_token  # noqa: PLC0415

    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text(make_token(Role.SUBMITTER, bytes(32)).reveal())
    config = settings(tmp_path, house, url=house.url, token=token)
    done = house.call("--config", config, "sites")
    assert done.status == 77
    assert "error[auth.required]" in done.err


def test_a_token_may_come_from_stdin_and_is_kept_private(house: House, tmp_path: Path) -> None:
    config = tmp_path / "new" / "client.toml"
    words = ("--config", config, "client", "init", "--broker", house.url, "--ca", house.ca)
    done = subprocess.run(
        [*AS_TYPED, *map(str, words), "--token-file", "-"],
        check=False,
        env=house.environ,
        input=house.token + "\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new" / "token").stat().st_mode & 0o777 == 0o600
    assert house.call("--config", config, "sites").status == 0
    again = house.call(*words, "--token-file", house.home / "token")
    assert (again.status, "error[client.exists]" in again.err) == (73, True)


def test_the_token_is_in_no_argument_and_no_environment(house: House, tmp_path: Path) -> None:
    words = [*AS_TYPED, "run", SITE, "gate", "-o", "passed.txt"]
    process = subprocess.Popen(
        words, cwd=tmp_path, env=house.environ, stdout=-1, stderr=-1, text=True
    )
    house.asides.append(process)
    wait_for(process, "running")
    seen = b"".join(Path(f"/proc/{process.pid}/{n}").read_bytes() for n in ("cmdline", "environ"))
    house.open_gate()
    out, err = process.communicate(timeout=30)
    assert b"sekisho" in seen
    assert house.token.encode() not in seen
    assert house.token not in out + err


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("run",), 64),
        (("run", SITE, "copy", "--nosuch"), 64),
        (("run", SITE, "copy", "-p", "novalue"), 64),
        (("run", SITE, "copy", "-i", "absent"), 64),
        (("run", SITE, "copy", "-o", "../up"), 64),
        (("run", SITE, "copy", "--timeout", "soon"), 64),
        (("run", SITE, "copy", "-i", ""), 64),
        (("run", SITE, "copy", "-i", "in="), 64),
        (("submit", SITE, "copy", "--queue-limit", "999999999.999d"), 64),
        (("submit", SITE, "copy", "--queue-limit", "0"), 64),
        (("run", SITE, "copy", "--into", "/dev/null/below"), 73),
        (("wait", "not-an-id"), 64),
        (("wait", "job_" + "0" * 26), 66),
        (("nosuch",), 64),
    ],
)
def test_what_is_asked_wrongly_is_told_with_a_code(
    house: House, words: tuple[str, ...], status: int
) -> None:
    done = house.call(*words)
    assert done.status == status
    assert "error[" in done.err
    assert "Traceback" not in done.err


def test_an_empty_file_for_an_id_gets_one_and_keeps_it(house: House, tmp_path: Path) -> None:
    """Kills: another job at each call, after a call that ended between making and writing it."""
    kept = tmp_path / "id"
    kept.touch()
    first, again = (house.call("submit", SITE, "say", "--id-file", kept).out for _ in range(2))
    assert first == again == kept.read_text()


def test_a_place_for_outputs_that_cannot_be_is_told_before_anything_is_submitted(
    house: House,
) -> None:
    before = len(house.call("jobs", "--json", "--limit", "10000").json)
    assert "error[fetch.into]" in house.call("run", SITE, "say", "--into", "/dev/null/x").err
    assert len(house.call("jobs", "--json", "--limit", "10000").json) == before


@pytest.mark.parametrize("verb", ["fetch", "wait"])
def test_a_place_for_outputs_that_cannot_be_is_told_the_same_when_they_are_there(
    house: House, verb: str
) -> None:
    """Kills: a failure of the disk, to be tried again, from all commands but `run`."""
    job = house.call("submit", SITE, "say").out.strip()
    assert house.call("wait", job, "--no-fetch", "--into", "/dev/null").status == 0
    done = house.call(verb, job, "--into", "/dev/null")
    assert (done.status, "error[fetch.into]" in done.err) == (73, True)


def test_errors_are_json_when_json_is_asked_for(house: House) -> None:
    done = house.call("wait", "not-an-id", "--json")
    assert done.json["error"]["code"] == "name.invalid"
    assert done.err == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_be_taught_to_complete(house: House, shell: str) -> None:
    done = house.call("completion", shell)
    assert (done.status, "_SEKISHO_COMPLETE" in done.out) == (0, True)


@pytest.mark.parametrize(
    ("typed", "at", "offered"),
    [
        ("sekisho si", 1, {"site", "sites"}),
        ("sekisho broker site r", 3, {"rotate"}),
        ("sekisho run --in", 2, {"--input", "--into"}),
        ("sekisho broker jobs --state lo", 4, {"lost"}),
    ],
)
def test_a_shell_that_was_taught_completes(
    house: House, typed: str, at: int, offered: set[str]
) -> None:
    done = house.call(_SEKISHO_COMPLETE="bash_complete", COMP_WORDS=typed, COMP_CWORD=str(at))
    assert (done.status, done.err) == (0, "")
    assert {line.partition(",")[2] for line in done.out.splitlines()} == offered


def test_nothing_heavy_is_loaded_to_say_the_version(house: House) -> None:
    code = (
        "import sys; from sekisho.cli.main import run; run(['--version']);"
        "print([m for m in ('httpx2', 'msgspec', 'rich', 'sqlalchemy') if m in sys.modules])"
    )
    argv = [AS_TYPED[0], "-c", code]
    done = subprocess.run(
        argv, check=False, env=house.environ, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_no_option_of_any_command_takes_a_secret() -> None:
    secret = [
        (command.name, option)
        for command in all_commands()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
        if any(word in option for word in ("token", "secret", "password"))
        if not option.endswith("-file")
    ]
    assert secret == []


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_every_command_of_the_workflow_side_explains_itself(house: House, lang: str) -> None:
    for name in ("run", "submit", "wait", "fetch", "cancel", "jobs", "show", "sites"):
        text = house.call("--lang", lang, name, "--help").out
        options = [line for line in text.splitlines() if line.startswith("  -")]
        assert options
        assert any("\u3040" <= c <= "\u30ff" for c in text) == (lang == "ja")


def all_commands() -> list[click.Command]:
    context = click.Context(cli, obj=Session())
    found: list[click.Command] = []
    waiting = [cli.get_command(context, name) for name in COMMANDS]
    while waiting:
        command = waiting.pop()
        assert command is not None
        found.append(command)
        if isinstance(command, click.Group):
            waiting += [command.get_command(context, n) for n in command.list_commands(context)]
    assert len(found) > 30
    return found


def settings(
    folder: Path, house: House, *, url: str, ca: Path | None = None, token: Path | None = None
) -> Path:
    file = folder / "client.toml"
    file.write_text(
        f'[broker]\nurl = "{url}"\nca_file = "{ca or house.ca}"\n'
        f'token_file = "{token or house.home / "token"}"\nfirst_contact_s = 0.5\n'
    )
    return file


def wait_for(process: subprocess.Popen[str] | Forked, word: str) -> str:
    """Return the line of stderr that has ``word``; the end of the stream fails the test."""
    assert process.stderr is not None
    for line in process.stderr:
        if word in line:
            return line
    raise AssertionError(f"ended without saying {word!r}")


def read_until(terminal: int, word: str) -> str:
    """Return what a terminal shows up to ``word``."""
    shown = ""
    end = time.monotonic() + 30
    while word not in shown:
        ready, _, _ = select.select([terminal], [], [], max(0, end - time.monotonic()))
        assert ready, shown
        shown += os.read(terminal, 4096).decode("utf-8", "replace")
    return shown


def test_a_receipt_proves_what_left_in_the_sites_log(house: House, tmp_path: Path) -> None:
    told = house.call("run", SITE, "say", "-p", "text=hello", "--json", "--into", tmp_path).json
    receipt = told["receipt"]
    proof = house.call("site", "log", "--dir", house.home / "site", "--receipt", receipt, "--json")
    assert (proof.json["proved"], proof.json["kind"]) == (True, "released")
    assert house.call("show", told["job"], "--json").json["receipt"] == receipt


@pytest.mark.parametrize(("lang", "word"), [("en", "Warning"), ("ja", "警告")])
def test_settings_that_others_could_change_are_used_and_that_is_told(
    house: House, lang: str, word: str
) -> None:
    before = house.config.stat().st_mode
    assert house.call("--lang", lang, "sites").err == ""  # the control
    house.config.chmod(before | 0o002)
    try:
        done = house.call("--lang", lang, "sites")
    finally:
        house.config.chmod(before)
    assert done.status == 0
    assert done.err.startswith(word)
    assert str(house.config) in done.err
