"""The site's command line, as its people type it, with a real broker and real agents."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import stat
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sekisho.adapters.hosts.process_tree import look
from sekisho.broker.ports import Sighting
from sekisho.cli.main import run
from sekisho.cli.site import site
from sekisho.compose.broker import desk
from sekisho.config.broker import load_broker
from sekisho.i18n.catalogue import catalogue
from sekisho.wire.envelope import Request, open_outcome, seal
from sekisho.wire.v1 import SubmitJob
from tests.e2e.own_site import USER, Hall, a_hall
from tests.other_group import share
from tests.sshd import free_port
from tests.waiting import until
from tests.world import an_id

LANGUAGES = ("en", "ja")
JAPANESE = re.compile(r"[぀-ヿ一-鿿]")


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hall]:
    home = tmp_path_factory.mktemp("hall")
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8"}
    environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    with a_hall(home, environ) as made:
        yield made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- setting up --------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("verb", ["", *sorted(site.places)])
def test_every_command_explains_itself_in_both_languages(
    capsys: pytest.CaptureFixture[str], verb: str, lang: str
) -> None:
    assert run(["--lang", lang, "site", *([verb] if verb else []), "--help"]) == 0
    assert (JAPANESE.search(capsys.readouterr().out) is not None) == (lang == "ja")


def test_a_new_site_is_private_and_serves_nobody(hall: Hall, tmp_path: Path) -> None:
    home = tmp_path / "deep" / "new"
    told = hall.must("site", "init", "--dir", home)
    assert str(home) in told
    assert {str(p.relative_to(home)): mode(p) for p in home.rglob("*")} == {
        "agent.toml": 0o600,
        "manifest.toml": 0o600,
        "work": 0o700,
        "state": 0o700,
    }
    assert mode(home) == 0o700


@pytest.mark.parametrize("name", ["manifest.toml", "agent.toml"])
def test_nothing_is_ever_overwritten(hall: Hall, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    done = hall.call("site", "init", "--dir", tmp_path)
    assert (done.status, "site.file_exists" in done.err) == (73, True)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(name, "mine")]


def test_a_directory_that_others_can_write_to_is_refused_before_anything_is_made(
    hall: Hall, tmp_path: Path
) -> None:
    """As `mkdir` makes them where groups share their files."""
    home = tmp_path / "site"
    home.mkdir()
    share(home)
    words = ("site", "init", "--site", "kobe", "--broker", hall.url, "--dir", str(home))
    refused = hall.call(*words)
    assert refused.status == 78
    assert f"chmod go-w {home}" in refused.err
    assert list(home.iterdir()) == []
    home.chmod(0o755)
    assert hall.call(*words).status == 0


@pytest.mark.parametrize(
    ("option", "value", "status"),
    [
        ("--site", "Not A Name", 64),
        ("--user", "not a user", 64),
        ("--broker", "http://elsewhere.example", 78),
        ("--ca", "cert.pem.missing", 64),
    ],
)
def test_a_wrong_word_makes_no_site(
    hall: Hall, tmp_path: Path, option: str, value: str, status: int
) -> None:
    home = tmp_path / "new"
    assert hall.call("site", "init", "--dir", home, option, value).status == status
    assert not home.exists()


@pytest.mark.parametrize("lang", LANGUAGES)
def test_joining_fills_in_what_nobody_has_decided(hall: Hall, tmp_path: Path, lang: str) -> None:
    name, invitation = hall.invite()
    home = tmp_path / "site"
    hall.must("site", "init", "--dir", home, "--broker", hall.url, "--ca", hall.ca)
    told = hall.must("--lang", lang, "site", "join", "--dir", home, given=invitation.read_text())
    assert name in told
    assert USER in told
    manifest = (home / "manifest.toml").read_text()
    assert f'site = "{name}"\n' in manifest
    assert f'submitters = ["{USER}"]\n' in manifest
    assert (mode(home / "token"), mode(home / "state" / "instance")) == (0o600, 0o600)
    assert (home / "token").read_text().startswith("ska_")
    assert not list((home / "state").glob("joining-*"))


def test_joining_leaves_decisions_alone(hall: Hall, tmp_path: Path) -> None:
    name, invitation = hall.invite()
    home = tmp_path / "site"
    decided = ("--site", name, "--user", "sato")
    hall.must("site", "init", "--dir", home, "--broker", hall.url, "--ca", hall.ca, *decided)
    before = (home / "manifest.toml").read_text()
    told = hall.must("site", "join", "--dir", home, "--json", "--invitation-file", invitation)
    assert json.loads(told) == {"site": name, "submitters": [USER], "manifest_changed": False}
    assert (home / "manifest.toml").read_text() == before


def test_joining_under_another_name_says_so_and_keeps_the_credential(
    hall: Hall, tmp_path: Path
) -> None:
    _, invitation = hall.invite()
    home = tmp_path / "site"
    words = ("--broker", hall.url, "--ca", hall.ca, "--site", "elsewhere")
    hall.must("site", "init", "--dir", home, *words)
    done = hall.call("site", "join", "--dir", home, "--invitation-file", invitation)
    assert (done.status, "site.other_name" in done.err) == (78, True)
    assert (home / "token").exists()


@pytest.mark.parametrize("crashpoint", ["file.kept:2", "file.begun:3", "file.renamed:3"])
def test_an_invitation_can_be_used_again_after_a_breakdown(
    hall: Hall, tmp_path: Path, crashpoint: str
) -> None:
    """The agent dies before the broker is asked, and after it answered: the same token joins."""
    name, invitation = hall.invite()
    home = tmp_path / "site"
    hall.must("site", "init", "--dir", home, "--broker", hall.url, "--ca", hall.ca)
    words = ("site", "join", "--dir", home, "--invitation-file", invitation)
    assert hall.call(*words, SEKISHO_CRASHPOINT=crashpoint).status == 137
    assert name in hall.must(*words)
    checked = hall.call("site", "check", "--quick", "--dir", home)
    assert checked.status == 0, checked.out


def test_an_invitation_cannot_be_used_twice(hall: Hall, tmp_path: Path) -> None:
    _, invitation = hall.invite()
    first, second = tmp_path / "first", tmp_path / "second"
    for home in (first, second):
        hall.must("site", "init", "--dir", home, "--broker", hall.url, "--ca", hall.ca)
    hall.must("site", "join", "--dir", first, "--invitation-file", invitation)
    done = hall.call("site", "join", "--dir", second, "--invitation-file", invitation)
    assert (done.status, "site.invitation_refused" in done.err) == (77, True)
    assert not (second / "token").exists()
    assert not list((second / "state").glob("joining-*"))


def test_what_is_no_invitation_is_not_sent(hall: Hall, tmp_path: Path) -> None:
    hall.must("site", "init", "--dir", tmp_path / "site", "--broker", "https://127.0.0.1:1")
    done = hall.call("site", "join", "--dir", tmp_path / "site", given="hello\n")
    assert (done.status, "site.invitation_malformed" in done.err) == (64, True)


# --- the diagnosis -----------------------------------------------------------------------------


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_site_in_order_is_told_with_its_manifest(hall: Hall, lang: str) -> None:
    place = hall.joined()
    told = hall.must("--lang", lang, "site", "check", "--quick", "--dir", place.home)
    assert "/bin/echo Hello, {name}" in told
    assert "passed.txt ≤ 1 GiB" in told
    assert "manifest_" not in told  # a key of the catalogue that has no words
    assert (JAPANESE.search(told) is not None) == (lang == "ja")
    assert (place.home / "token").read_text().strip() not in told


def test_the_diagnosis_is_one_json_object(hall: Hall) -> None:
    place = hall.joined()
    told = json.loads(hall.must("site", "check", "--quick", "--json", "--dir", place.home))
    assert told["ok"] is True
    grades = {check["check"]: check["grade"] for check in told["checks"]}
    assert grades["token"] == "ok"
    assert grades["idle"] == "skipped"
    commands = [command["name"] for command in told["manifest"]["commands"]]
    assert commands == ["hello", "gate"]


@pytest.mark.parametrize(
    ("lang", "ask"), [("en", "the broker's operator"), ("ja", "中継サーバーの管理者")]
)
def test_a_fault_has_a_code_a_meaning_and_somebody_to_ask(hall: Hall, lang: str, ask: str) -> None:
    place = hall.joined()
    hall.must("broker", "site", "rotate", place.name, "-c", hall.config)
    done = hall.call("--lang", lang, "site", "check", "--quick", "--dir", place.home)
    assert done.status == 1
    assert "[auth.required]" in done.out
    assert ask in done.out


# --- an agent, and what is seen of it ----------------------------------------------------------


def _stage(row: dict[str, str]) -> tuple[str, str]:
    return row["job"], row["stage"]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_an_agent_does_is_seen_from_outside(hall: Hall, lang: str) -> None:
    place = hall.joined()
    assert place.json("status")["running"] is False
    with place.agent() as agent:
        job = place.submit("gate", "-o", "passed.txt")
        rows = [(job, "running")]  # written down when the first moments are over
        until(lambda: [_stage(row) for row in place.json("status")["open_jobs"]] == rows, "a state")
        status = place.json("status")
        assert (status["running"], status["pid"]) == (True, agent.process.pid)
        assert (status["connected"], status["paused"], status["last_fault"]) == (True, False, None)
        shown = hall.must("--lang", lang, "site", "status", "--dir", place.home)
        assert job in shown
        assert ("計算中" in shown) == (lang == "ja")
        assert job in hall.must("site", "jobs", "--dir", place.home)
        place.gate.write_text("open")
        assert place.wait(job).status == 0
        agent.event("run_moved", job=job, stage="returned")
    assert place.json("jobs") == []
    assert [row["stage"] for row in place.json("jobs", "--all")] == ["returned"]


def test_why_the_line_is_bad_is_told_in_words(hall: Hall) -> None:
    place = hall.joined()
    settings = place.home / "agent.toml"
    settings.write_text(settings.read_text().replace(hall.url, f"https://127.0.0.1:{free_port()}"))
    with place.agent():
        until(lambda: place.json("status")["last_fault"] == "broker.unreachable", "a fault")
        for lang, words in (
            ("en", "The broker did not answer"),
            ("ja", "中継サーバーから応答がありません"),
        ):
            shown = hall.must("--lang", lang, "site", "status", "--dir", place.home)
            assert f"broker.unreachable: {words}" in shown


def test_what_is_known_of_a_job_names_its_work_directory(hall: Hall) -> None:
    place = hall.joined()
    with place.agent():
        job = place.run("hello", "-p", "name=Taro").json["job"]
    facts = place.json("show", job)
    assert facts["run"]["argv"] == ["/bin/echo", "Hello,", "Taro"]
    assert Path(facts["run"]["work_dir"]).is_dir()
    assert [record["kind"] for record in facts["log"]][:3] == ["offered", "accepted", "started"]
    assert facts["run"]["work_dir"] in hall.must("site", "show", job, "--dir", place.home)
    assert place.site("show", "job_" + "0" * 26).status == 66


def test_the_log_says_what_ran_what_left_and_for_whom(hall: Hall) -> None:
    place = hall.joined()
    with place.agent():
        done = place.run("hello")
        assert (done.status, done.json["state"]) == (0, "succeeded")
    job = done.json["job"]
    lines = hall.must("site", "log", "--dir", place.home).splitlines()
    assert [line.split()[1] for line in lines] == [
        "offered",
        "accepted",
        "started",
        "ended",
        "released",
        "returned",
    ]
    assert all(job in line and USER in line and "hello" in line for line in lines)
    assert "計算標準出力.txt" in lines[4]
    records = [
        json.loads(line)
        for line in hall.must("site", "log", "--json", "--dir", place.home).splitlines()
    ]
    month = records[0]["at"][:7]
    assert hall.must("site", "log", "--month", month, "--dir", place.home).splitlines() == lines
    assert hall.must("site", "log", "--month", "1999-01", "--dir", place.home) == ""
    assert hall.must("site", "log", "--job", job, "--dir", place.home).splitlines() == lines
    assert place.site("log", "--month", "2026-13").status == 64
    assert place.site("log", "--job", "job_never_heard_of").status == 66
    assert records[-1]["digest"] in hall.must("site", "log", "--verify", "--dir", place.home)


def test_a_receipt_proves_what_left(hall: Hall) -> None:
    """The digest in the outcome's envelope is that of the record of the release."""
    place = hall.joined()
    with place.agent():
        job = place.run("hello").json["job"]
    run = json.loads((place.home / "state" / "runs" / f"{job}.json").read_text())
    receipt = open_outcome(base64.b64decode(run["result"])).receipt
    assert receipt is not None
    proved = place.json("log", "--receipt", receipt)
    assert (proved["kind"], proved["job"], proved["proved"]) == ("released", job, True)
    told = hall.must("site", "log", "--receipt", receipt, "--dir", place.home)
    assert "計算標準出力.txt" in told
    assert all(word in told for word in (str(proved["seq"]), job, USER, "released"))
    assert place.site("log", "--receipt", "0" * 64).status == 66
    assert place.site("log", "--receipt", "short").status == 64


def test_a_changed_log_is_found_by_its_line(hall: Hall) -> None:
    place = hall.joined()
    with place.agent():
        assert place.run("hello").status == 0
    (file,) = (place.home / "state" / "log").glob("*.jsonl")
    lines = file.read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b"hello", b"other")
    file.write_bytes(b"\n".join(lines))
    done = place.site("log", "--verify")
    assert (done.status, "site.log_broken" in done.err) == (76, True)
    assert f"{file.name}, line 4" in done.err  # the first that does not follow what is before it


# --- pausing, switching off --------------------------------------------------------------------


def test_a_paused_site_takes_nothing_until_it_is_resumed(hall: Hall) -> None:
    place = hall.joined()
    with place.agent():
        assert place.site("pause").status == 0
        assert place.json("status")["paused"] is True
        job = place.submit("hello")
        shown = json.loads(hall.must("show", job, "--json"))
        assert shown["state"] in ("queued", "offered")
        assert place.site("resume").status == 0
        assert place.wait(job).json["state"] == "succeeded"


def test_a_pause_holds_across_a_restart(hall: Hall) -> None:
    place = hall.joined()
    assert place.site("pause").status == 0
    job = place.submit("hello")
    once = hall.call("agent", "--once", "--json", "--dir", place.home)
    assert (once.status, once.json) == (0, {"open": 0})
    assert json.loads(hall.must("show", job, "--json"))["state"] == "queued"
    assert place.site("resume").status == 0
    while hall.call("agent", "--once", "--dir", place.home).status == 75:
        pass  # the command may not have ended when the first look was taken
    assert place.wait(job).json["state"] == "succeeded"


def test_a_command_that_is_switched_off_is_refused(hall: Hall) -> None:
    place = hall.joined()
    with place.agent():
        assert place.site("disable", "hello").status == 0
        assert place.json("status")["disabled_commands"] == ["hello"]
        refused = place.run("hello")
        assert refused.status == 77
        assert "command.disabled" in refused.out + refused.err
        assert place.site("enable", "hello").status == 0
        assert place.run("hello").status == 0
    assert place.site("disable", "no-such").status == 66


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("why", ["unseen", "absent", "disabled"])
def test_whoever_waits_for_a_site_that_is_not_there_is_told(
    hall: Hall, why: str, lang: str
) -> None:
    """Kills: a job that waits without a word for somebody who does not come."""
    site, _ = hall.invite()
    job = hall.must("submit", site, "hello").strip()
    with desk(load_broker(hall.config, {})) as broker:
        if why == "absent":
            at = datetime.now(UTC) - timedelta(hours=1)
            seen = Sighting(site=site, at=at, agent_version="1", instance=an_id("ins"))
            broker.ports.store.directory.seen([seen])
        broker.sites.switch(site, disabled=why == "disabled")
    done = hall.call("--lang", lang, "wait", job, "--timeout", "6s")
    assert done.status == 81
    before, _, after = catalogue(lang)["say"][f"waits_for_{why}"].partition("{site}")
    assert f"{before}{site}{after[:3]}" in done.err
    assert done.err.count(site) == 1
    assert site not in hall.call("wait", job, "--timeout", "4s", "--quiet").err
    (listed,) = [s for s in hall.call("sites", "--json").json if s["id"] == site]
    assert (listed["connected"], listed.get("disabled", False)) == (False, why == "disabled")


@pytest.mark.parametrize("lang", LANGUAGES)
def test_whoever_waits_for_inputs_that_nobody_sends_is_told(hall: Hall, lang: str) -> None:
    """As after a sender was killed. Kills: a wait without a word, and without an end."""
    site, _ = hall.invite()
    job = an_id("job")
    with desk(load_broker(hall.config, {})) as broker:
        request = seal(Request(command="hello"))
        message = SubmitJob(id=job, site=site, request=request, has_inputs=True)
        broker.submissions.submit(USER, message)
    done = hall.call("--lang", lang, "wait", job, "--timeout", "6s")
    assert done.status == 81
    assert f"--id {job}" in done.err
    assert site not in done.err
    assert "--id" not in hall.call("wait", job, "--timeout", "4s", "--quiet").err


# --- ending ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["drain", "signal"])
def test_a_draining_agent_finishes_what_it_has_in_hand(hall: Hall, how: str) -> None:
    place = hall.joined()
    with place.agent() as agent:
        job = place.submit("gate", "-o", "passed.txt")
        agent.event("run_moved", job=job, stage="running")
        if how == "drain":
            assert place.site("drain", "--no-wait").status == 0
        else:
            agent.send(signal.SIGINT)
        agent.says("waiting for 1", job)
        place.gate.write_text("open")
        assert agent.status() == 0
    assert place.wait(job).json["state"] == "succeeded"
    assert place.starts() == 1


def test_whoever_drains_sees_what_is_waited_for_until_the_agent_has_ended(hall: Hall) -> None:
    place = hall.joined()
    with place.agent() as agent:
        job = place.submit("gate", "-o", "passed.txt")
        agent.event("run_moved", job=job, stage="running")
        with place.beside("site", "drain") as drain:
            drain.says("waiting for 1", job)
            assert drain.process.poll() is None
            place.gate.write_text("open")
            assert drain.status() == 0
            assert agent.process.poll() == 0  # it has ended before


def test_whoever_drains_is_told_what_an_ended_agent_left_running(hall: Hall) -> None:
    place = hall.joined()
    with place.agent() as agent, ThreadPoolExecutor(1) as beside:
        job = place.submit("gate", "-o", "passed.txt")
        agent.event("run_moved", job=job, stage="running")
        draining = beside.submit(place.site, "drain", "--json")
        agent.says("waiting for 1", job)
        agent.send(signal.SIGTERM)
        left = draining.result(60)
    assert (left.status, left.json) == (75, {"ended": True, "open": [job]})
    with place.agent():
        place.gate.write_text("open")
        assert place.wait(job).json["state"] == "succeeded"


def test_a_second_signal_ends_at_once_and_the_job_is_adopted(hall: Hall) -> None:
    place = hall.joined()
    with place.agent() as agent:
        job = place.submit("gate", "-o", "passed.txt")
        agent.event("run_moved", job=job, stage="running")
        agent.send(signal.SIGTERM)
        agent.says("waiting for 1", job)
        agent.send(signal.SIGTERM)
        assert agent.status() == 75
        agent.says("adopts")
    with place.agent() as agent:
        agent.event("run_adopted", job=job)
        place.gate.write_text("open")
        assert place.wait(job).json["state"] == "succeeded"
    assert place.starts() == 1


def test_an_idle_agent_ends_at_once(hall: Hall) -> None:
    place = hall.joined()
    with place.agent() as agent:
        agent.send(signal.SIGTERM)
        assert agent.status() == 0
        agent.says("nothing is in hand")
    assert place.site("drain").status == 66


def test_once_says_by_its_status_whether_jobs_are_open(hall: Hall) -> None:
    place = hall.joined()
    job = place.submit("gate", "-o", "passed.txt")
    begun = hall.call("agent", "--once", "--json", "--dir", place.home)
    assert (begun.status, begun.json) == (75, {"open": 1}), begun.err
    place.gate.write_text("open")
    done = hall.call("agent", "--once", "--json", "--dir", place.home)
    while done.status == 75:  # the command needs a moment to end after its gate
        done = hall.call("agent", "--once", "--json", "--dir", place.home)
    assert (done.status, done.json) == (0, {"open": 0}), done.err
    assert place.wait(job).json["state"] == "succeeded"
    assert place.starts() == 1


def test_a_second_agent_of_a_site_is_refused(hall: Hall) -> None:
    place = hall.joined()
    with place.agent():
        done = hall.call("agent", "--dir", place.home)
        assert (done.status, "agent.running" in done.err) == (73, True)


@pytest.mark.parametrize("words", [("agent",), ("site", "join"), ("site", "status")])
def test_where_no_site_is_made_it_is_said_how_to_make_one(
    hall: Hall, tmp_path: Path, words: tuple[str, ...]
) -> None:
    done = hall.call(*words, "--dir", tmp_path / "nowhere")
    assert (done.status, "site.not_set_up" in done.err) == (78, True)
    assert "sekisho site init" in done.err


def test_an_agent_that_has_not_joined_says_so(hall: Hall, tmp_path: Path) -> None:
    hall.must("site", "init", "--dir", tmp_path / "site", "--broker", hall.url, "--ca", hall.ca)
    done = hall.call("agent", "--dir", tmp_path / "site")
    assert (done.status, "site.not_joined" in done.err) == (78, True)
    assert "sekisho site join" in done.err


def test_an_agent_opens_no_port_and_tells_no_token(hall: Hall) -> None:
    place = hall.joined()
    token = (place.home / "token").read_text().strip()
    with place.agent() as agent:
        assert place.run("hello").status == 0
        pid = agent.process.pid
        assert listening(pid) == set()
        cmdline = Path(f"/proc/{pid}/cmdline").read_bytes()
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        assert token.encode() not in cmdline + environ
        agent.send(signal.SIGTERM)
        agent.status()
        said = "".join(agent.lines)
    assert "agent_stopped" in said
    assert token not in said
    assert look(pid) is None


def test_the_search_for_open_ports_finds_one(hall: Hall) -> None:
    """The control of the test above: the broker does listen."""
    pids = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]
    broker = str(hall.config).encode()
    found = [p for p in pids if broker in _bytes(Path(f"/proc/{p}/cmdline"))]
    assert any(listening(pid) for pid in found)


def listening(pid: int) -> set[str]:
    """Return the listening sockets, of any family, that the process holds."""
    held = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        name = os.readlink(entry)  # noqa: PTH115 (it names no file)
        if name.startswith("socket:["):
            held.add(name[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A":
                found.add(columns[9])
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        columns = line.split()
        if int(columns[3], 16) & 0x10000:  # __SO_ACCEPTCON
            found.add(columns[6])
    return held & found


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"ins_short\n"])
def test_an_agent_whose_own_name_is_damaged_says_so(hall: Hall, damage: bytes) -> None:
    place = hall.joined()
    (place.home / "state" / "instance").write_bytes(damage)
    done = hall.call("agent", "--once", "--dir", place.home)
    assert (done.status, "error[site.instance]" in done.err) == (78, True)
