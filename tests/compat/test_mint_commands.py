"""The old command lines: what they print, how they end, and that they do not show a token."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from sekisho.adapters.job_notes import JobNotes
from sekisho.i18n.catalogue import catalogue
from sekisho.wire.mint import job_id_of
from tests import forked
from tests.bare_site import SITE, BareWorld, bare_world
from tests.compat.old_broker import TOKEN, OldBroker, old_broker
from tests.compat.old_lines import SECONDS, argv, run
from tests.compat.old_programs import LISTED, STDOUT, House, OldAgent, OldWorkflow, a_house, text_of
from tests.compat.test_mint_agent import MANIFEST, a_site, calc
from tests.faults.program import clean_environ
from tests.faults.trio import private
from tests.forked import AS_TYPED
from tests.integration.http_process import sekisho
from tests.waiting import until


def begun(home: Path, words: Sequence[str], out: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """Start an agent's command line for the site in ``home``; its stderr is to be read."""
    return subprocess.Popen(
        words,
        cwd=home.parent,
        env=clean_environ(home.parent) | {"SEKISHO_SITE_DIR": str(home)},
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with a_house(tmp_path_factory.mktemp("house")).serving() as serving:
        yield serving


@pytest.fixture
def broker() -> Iterator[OldBroker]:
    with old_broker() as broker:
        yield broker


def working(house: House, base: Path, program: str) -> threading.Thread:
    def work() -> None:
        with house.line() as line:
            agent = OldAgent(line, base)
            while not agent.work(program):
                pass

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_the_workflows_command_line_runs_a_calculation(house: House, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("42")
    thread = working(
        house,
        tmp_path / "calc",
        "cp in.txt out.txt; test -e gone.txt -a ! -s gone.txt && echo done",
    )
    token = house.token("tanaka")
    words = (house.url, "old-site", token, LISTED, "in.txt:gone.txt", "out.txt:no.txt", "a b")
    status, out, err = run("workflow", *words, cwd=tmp_path)
    thread.join(SECONDS)
    assert status == 0, err
    assert out.splitlines()[:3] == ["site id = old-site", f"base url = {house.url}", " token = …"]
    assert "gone.txt" in out
    assert (tmp_path / "out.txt").read_text() == "42"
    assert (tmp_path / "計算標準出力.txt").read_text() == "done\n"
    assert "no.txt: " in out
    assert token not in out + err
    assert "warning" in err


def test_words_for_the_program_itself_are_none_of_the_calculations(
    house: House, tmp_path: Path
) -> None:
    """Wherever they stand among its parameters. And who names no files gets none."""
    with house.line() as line:
        agent = OldAgent(line, tmp_path / "calc")
        with ThreadPoolExecutor(1) as beside:
            served = beside.submit(lambda: until(lambda: agent.work("true"), "a job"))
            ours = ("debug", f"port:{house.url.rpartition(':')[2]}", "retry:3,0.5")
            words = (house.url, "old-site", house.token("tanaka"), LISTED, "", "")
            status, _, err = run("workflow", *words, "a b", ours[0], "c", *ours[1:], cwd=tmp_path)
            served.result(SECONDS)
    assert status == 0, err
    assert agent.parameters == ["a b c"]


@pytest.mark.parametrize("given", range(6))
def test_too_few_words_are_one_line_of_help_and_an_error(tmp_path: Path, given: int) -> None:
    words = ("https://127.0.0.1:1", "old-site", "file:/no/such/token", LISTED, "", "")[:given]
    status, _, err = run("workflow", *words, cwd=tmp_path)
    assert status == 1
    assert "error[usage.arguments]" in err
    assert "Traceback" not in err


def test_an_abnormal_end_is_status_1(house: House, tmp_path: Path) -> None:
    thread = working(house, tmp_path / "calc", "exit 3")
    token = private(tmp_path / "token", house.token("tanaka"))
    words = (house.url, "old-site", f"file:{token}", LISTED, "", "out.txt")
    status, _, err = run("workflow", *words, cwd=tmp_path)
    thread.join(SECONDS)
    assert (status, "warning" in err) == (1, False)


@pytest.mark.parametrize(
    ("site", "command", "said"),
    [("nowhere", LISTED, "nowhere"), ("old-site", "/bin/sh", "許可されていない")],
)
def test_a_refusal_is_status_1_and_says_why(
    house: House, tmp_path: Path, site: str, command: str, said: str
) -> None:
    words = (house.url, site, house.token("tanaka"), command, "", "out.txt")
    status, _, err = run("workflow", *words, cwd=tmp_path)
    assert (status, said in err) == (1, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_ended_workflow_deletes_its_calculation(
    house: House, tmp_path: Path, number: signal.Signals
) -> None:
    words = (house.url, "old-site", house.token("tanaka"), LISTED, "", "out.txt")
    with subprocess.Popen(
        argv("workflow", *words),
        cwd=tmp_path,
        env=clean_environ(tmp_path),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = iter(process.stdout)
        accept_id = next(x for x in lines if x.startswith("accept_id")).split()[-1]
        assert next(lines).startswith("status: ")
        shown = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert house.token("tanaka").encode() not in shown
        assert b"old-site" in shown
        process.send_signal(number)
        assert process.wait(SECONDS) == 1
    with house.line() as line:
        assert accept_id not in line.get("get-calcinfo").json()


WATCHED = """
import pathlib, sys
class Watch:
    def find_spec(self, name, path, target=None):
        if name == "sekisho.cli.mint":
            here = pathlib.Path("/proc/self/cmdline").read_bytes().replace(b"\\0", b" ")
            words = [*here.decode().split(), *sys.argv[1:]]
            sys.stderr.write("arguments: " + " ".join(words) + "\\n")
sys.meta_path.insert(0, Watch())
from sekisho.cli.mint_main import {entry}; {entry}()
"""


@pytest.mark.parametrize("entry", ["remote", "workflow"])
def test_a_token_is_gone_from_the_arguments_before_anything_else_is_done(
    tmp_path: Path, entry: str
) -> None:
    """Kills: hiding it after the imports, which take long. With a control that is shown."""
    shown = {}
    for token in ("a-secret-token-123", "file:/no/such/token"):
        done = subprocess.run(
            [sys.executable, "-c", WATCHED.format(entry=entry), "site", "https://x.invalid", token],
            cwd=tmp_path,
            env=clean_environ(tmp_path),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        (line,) = [x for x in done.stderr.splitlines() if x.startswith("arguments: ")]
        shown[token] = token in line
        assert "x.invalid" in line
    assert shown == {"a-secret-token-123": False, "file:/no/such/token": True}


@pytest.mark.parametrize("hides", [True, False])
def test_where_arguments_cannot_be_hidden_it_is_said(tmp_path: Path, *, hides: bool) -> None:
    words = ("https://127.0.0.1:1", "old-site", "a-secret-token-123", LISTED, "", "")
    unable = "" if hides else "import sekisho.cli.mint_main as here; here.hidden = lambda _: False"
    env, program = clean_environ(tmp_path), "sekisho.cli.mint_main:workflow"
    done = forked.run(words, env=env, timeout=SECONDS, program=program, first=unable)
    assert done.returncode == 1
    assert (catalogue("en")["say"]["mint_token_open"] in done.stderr) is not hides


def at_terminal(words: list[str], cwd: Path, typed: str, **more: str) -> tuple[int, str]:
    """Run a command line at a terminal, typing when asked; return its status and the screen."""
    environ = clean_environ(cwd) | more
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        os.execve(sys.executable, words, environ)  # noqa: S606 (no shell is meant)
    screen, asked = b"", False
    end = time.monotonic() + SECONDS
    while select.select([terminal], [], [], max(0.0, end - time.monotonic()))[0]:
        try:
            screen += os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        if not asked and "token: " in screen.decode("utf-8", "replace").lower():
            asked = True
            os.write(terminal, f"{typed}\n".encode())
    os.close(terminal)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, screen.decode("utf-8", "replace")


def test_login_asks_for_the_token_and_does_not_show_it(house: House, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("42")
    thread = working(house, tmp_path / "calc", "cp in.txt out.txt")
    words = (house.url, "old-site", "login", LISTED, "in.txt", "out.txt")
    token = house.token("tanaka")
    status, screen = at_terminal(argv("workflow", *words), tmp_path, f" {token} ")
    thread.join(SECONDS)
    assert status == 0, screen
    assert token not in screen
    assert "warning" not in screen
    assert (tmp_path / "out.txt").read_text() == "42"
    status, screen = at_terminal(argv("workflow", *words), tmp_path, "a-wrong-token")
    assert status == 1
    assert "auth.required" in screen


def test_the_agents_login_asks_for_the_token_too(broker: OldBroker, tmp_path: Path) -> None:
    """With another site's manifest it ends there, after its question."""
    home = a_site(broker, tmp_path)
    line = argv("remote", "other", broker.url, "login")
    status, screen = at_terminal(line, tmp_path, TOKEN, SEKISHO_SITE_DIR=str(home))
    assert (status, "mint.other_site" in screen) == (1, True), screen
    assert "oken: " in screen
    assert TOKEN not in screen


def test_plain_no_auth_is_refused_with_the_other_form(house: House, tmp_path: Path) -> None:
    words = (house.url, "old-site", "t" * 20, LISTED, "", "out.txt", "no_auth")
    status, _, err = run("workflow", *words, cwd=tmp_path)
    assert status == 1
    assert "no_auth:/path/ca.pem" in err
    status, _, err = run("remote", "company", house.url, "t" * 20, "no_auth", cwd=tmp_path)
    assert (status, "mint.no_auth" in err) == (1, True)


def test_too_few_arguments_show_how(tmp_path: Path) -> None:
    for entry in ("remote", "workflow", "push"):
        status, _, err = run(entry, "one", cwd=tmp_path)
        assert (status, len(err.splitlines()) > 1) == (1, True)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("remote", ["port:", "no_auth:", "calc_base:", "user:", "retry:", "debug", "login"]),
        ("workflow", ["port:", "no_auth:", "login", "file:"]),
        ("push", ["client_name:", "client_cmd:", "client_files:", "ssh_config:"]),
    ],
)
def test_help_names_every_word_in_either_language(
    tmp_path: Path, entry: str, words: list[str]
) -> None:
    """Kills: an error that says "see --help" where --help is that same error."""
    for lang, said in (
        ("en_US.UTF-8", "with 1 after" if entry != "remote" else "Ctrl+C"),
        ("ja_JP.UTF-8", "です"),
    ):
        status, out, err = run(entry, "--help", cwd=tmp_path, LC_ALL=lang)
        assert (status, err) == (0, "")
        assert said in out
        assert len(out.splitlines()) > 5
        assert [word for word in words if word not in out] == []


def test_the_agents_command_line_serves_an_old_broker(broker: OldBroker, tmp_path: Path) -> None:
    home = a_site(broker, tmp_path)
    (tmp_path / "solve.sh").write_text("cat in.txt > out.txt; pwd\n")
    (tmp_path / "base").mkdir()
    accept_id = broker.add(calc())
    options = ("debug", "retry:5,60", "port:443", f"calc_base:{tmp_path}/base")
    with begun(home, argv("remote", "company", broker.url, TOKEN, *options)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = [next(process.stdout) for _ in range(3)]
        assert said == ["site id = company\n", f"base url = {broker.url}\n", " token = …\n"]
        heard = ""
        while '"stage":"returned"' not in heard:
            heard = next(process.stderr)
            assert TOKEN not in heard
        assert TOKEN.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        os.kill(process.pid, signal.SIGINT)
        process.stderr.read()
        assert process.wait(SECONDS) == 0
    assert broker.calcs[accept_id]["status"] == "completed"
    assert list((tmp_path / "base").iterdir())


@pytest.mark.parametrize("own", [False, True])
def test_an_agent_takes_up_the_token_that_replaces_an_old_one(
    broker: OldBroker, tmp_path: Path, *, own: bool
) -> None:
    """Kills: polling in vain, until somebody starts it anew, after a token has come to its end."""
    home = a_site(broker, tmp_path)
    (tmp_path / "solve.sh").write_text("cat in.txt > out.txt\n")
    token = private(home / "token" if own else tmp_path / "another", "a-token-of-yesterday")
    ours = [*AS_TYPED, "agent", "--mint", broker.url]
    theirs = argv("remote", "company", broker.url, f"file:{token}")
    with begun(home, ours if own else theirs, subprocess.DEVNULL) as process:
        assert process.stderr is not None
        assert any('"code":"auth.required"' in line for line in process.stderr)
        private(token, TOKEN)
        accept_id = broker.add(calc())
        try:
            until(lambda: broker.calcs[accept_id]["progress"] == "got return")
        finally:
            process.kill()
    assert broker.calcs[accept_id]["status"] == "completed"


def test_ctrl_c_finishes_the_work_in_hand_and_takes_no_more(
    broker: OldBroker, tmp_path: Path
) -> None:
    home = a_site(broker, tmp_path)
    os.mkfifo(tmp_path / "go")
    (tmp_path / "solve.sh").write_text(
        f"echo $CALC_DIR; read word < {tmp_path}/go; echo $word > out.txt\n"
    )
    held = broker.add(calc())
    token = private(tmp_path / "token", TOKEN)
    with begun(
        home, argv("remote", "company", broker.url, f"file:{token}", f"calc_base:{tmp_path}/base")
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert any(line == "POST calc-start: 200\n" for line in process.stdout)
        left = broker.add(calc())
        process.send_signal(signal.SIGINT)
        assert any(job_id_of(held) in line for line in process.stderr if "{" not in line)
        assert process.poll() is None
        (tmp_path / "go").write_text("finished\n")
        since = time.monotonic()
        process.communicate()
        assert process.wait(SECONDS) == 0
        assert time.monotonic() - since < SECONDS
    assert broker.calcs[held]["status"] == "completed"
    files = broker.calcs[held]["result_files"]
    assert text_of(files["out.txt"]) == "finished\n"
    assert text_of(files[STDOUT]).startswith(f"{tmp_path}/base/")
    assert broker.calcs[left]["progress"] == "not start"


def test_a_site_goes_on_under_the_name_that_the_old_broker_has_for_it(
    broker: OldBroker, tmp_path: Path
) -> None:
    home = tmp_path / "site"
    sekisho("site", "init", "--dir", home, "--site", "site-c", "--broker", broker.url)
    manifest = MANIFEST.format(place=tmp_path).replace('"company"', '"site-c"')
    (home / "manifest.toml").write_text(manifest.replace('["tanaka"]', '["suzuki", "tanaka"]'))
    (tmp_path / "solve.sh").write_text("cat in.txt > out.txt\n")
    accept_id = broker.add(calc())
    words = ("Site_C", broker.url, TOKEN, "user:tanaka")
    with begun(home, argv("remote", *words)) as process:
        assert process.stdout is not None
        lines = iter(process.stdout)
        assert next(lines) == "site id = Site_C\n"
        assert next(line for line in lines if "end-send" in line) == "POST end-send: 200\n"
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert broker.calcs[accept_id]["status"] == "completed"
    assert broker.sites == {"Site_C"}


def test_another_sites_manifest_is_not_served(broker: OldBroker, tmp_path: Path) -> None:
    home = a_site(broker, tmp_path)
    other = ("other", broker.url, TOKEN)
    status, _, err = run("remote", *other, cwd=tmp_path, SEKISHO_SITE_DIR=str(home))
    assert (status, "mint.other_site" in err) == (1, True)
    status, _, err = run("remote", "company", "ftp://x", TOKEN, cwd=tmp_path)
    assert (status, "broker.url" in err) == (1, True)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[BareWorld]:
    with bare_world(tmp_path) as made:
        made.settle()
        yield made


def pushed(world: BareWorld, cwd: Path, command: str, files: str) -> tuple[int, str, str]:
    words = (f"client_name:{SITE}", f"client_cmd:{command}", f"client_files:{files}")
    config = f"ssh_config:{world.place / 'ssh_config'}"
    state = world.place / "state"
    environ = {"XDG_RUNTIME_DIR": str(world.runtime), "XDG_STATE_HOME": str(state)}
    try:
        return run("push", *words, config, cwd=cwd, **environ)
    finally:  # the old form has no other base than /tmp, where a job stays for its retention
        (note,) = JobNotes(state / "sekisho" / "jobs").all("remote")
        shutil.rmtree(Path("/tmp") / note.job)


def test_the_ssh_scripts_command_line_brings_everything_back(
    world: BareWorld, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "a.txt").write_text("a")
    (work / "b.txt").write_text("b")
    world.program("join", "cat a.txt b.txt > both.txt; echo said")
    status, _, err = pushed(world, work, str(world.place / "join.sh"), "a.txt,b.txt")
    assert status == 0, err
    assert (work / "both.txt").read_text() == "ab"
    assert "said" in (work / "remote_program_exec.log").read_text()


def test_a_failure_shows_the_log_of_the_other_side(world: BareWorld, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    world.program("fail", "echo the reason; exit 4")
    status, _, err = pushed(world, work, str(world.place / "fail.sh"), "")[:3]
    assert status == 1
    lines = err.splitlines()
    rule = "---------- remote side log ----------------"
    begin = lines.index(rule)
    assert lines[begin : begin + 3] == [rule, "the reason", rule]


def test_a_line_for_a_shell_is_refused(tmp_path: Path) -> None:
    words = ("client_name:x", "client_cmd:solve; rm -rf /", "client_files:a")
    status, _, err = run("push", *words, cwd=tmp_path)
    assert (status, "mint.shell_text" in err) == (1, True)


def test_a_revoked_token_names_the_calculation_that_nobody_can_end_any_more(
    house: House, tmp_path: Path
) -> None:
    words = ("--role", "submitter", "--user", "suzuki", "--to", tmp_path / "token")
    made = sekisho("broker", "token", "create", *words, "--config", house.config).split()[0]
    headers = {"Authorization": f"Bearer {(tmp_path / 'token').read_text().strip()}"}
    url = f"{house.url}/mi-distcomp-api/"
    with house.line("suzuki") as submitter, httpx2.Client(base_url=url, headers=headers) as line:
        accept_id = OldWorkflow(submitter).ready()
        agent = OldAgent(line, tmp_path)
        assert agent.ask() == accept_id
        assert "calc-info" in agent.params(accept_id).json()
        agent.step("calc-params-complete", accept_id)
        agent.step("calc-start", accept_id)
    job = job_id_of(accept_id)
    argv = [*AS_TYPED, "broker", "token", "revoke", made, "--config", str(house.config)]
    told = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert f"sekisho broker lost {job} --by NAME" in told.stderr
    assert "unknown_fate" in sekisho("broker", "jobs", "--json", "--config", house.config)
    sekisho("broker", "lost", job, "--by", "operator", "--config", house.config)
    again = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert job not in again.stderr
