"""The new agent at an old broker: our manifest, sandbox, outputs and log, by the old protocol."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sekisho.cli.exit import LATER
from sekisho.wire.mint import job_id_of
from tests.compat.old_broker import TOKEN, OldBroker, old_broker
from tests.compat.old_lines import run
from tests.compat.old_programs import STDERR, STDOUT, a_calc, text_of
from tests.faults.trio import private
from tests.integration.http_process import failing, sekisho
from tests.waiting import until

COMMAND = "/opt/solver/bin/solve"
MANIFEST = """\
schema = 1
site = "company"
submitters = ["tanaka"]

[[command]]
name = "solve"
mint_command = "/opt/solver/bin/solve"
argv = ["/bin/sh", "{place}/solve.sh"]
time_limit_s = 60
stdout = {{ release = true }}
[[command.input]]
path = "*.txt"
required = false
[[command.output]]
path = "out.txt"
"""


@pytest.fixture
def broker() -> Iterator[OldBroker]:
    with old_broker() as broker:
        yield broker


def a_site(broker: OldBroker, place: Path) -> Path:
    """Make the site whose manifest has the one command of these tests; return its directory."""
    home = place / "site"
    words = ("--site", "company", "--user", "tanaka", "--broker", broker.url)
    sekisho("site", "init", "--dir", home, *words)
    (home / "manifest.toml").write_text(MANIFEST.format(place=place))
    return home


@pytest.fixture
def home(tmp_path: Path, broker: OldBroker) -> Path:
    home = a_site(broker, tmp_path)
    private(home / "token", TOKEN + "\n")
    script = (
        "cat in.txt > out.txt; ls -A > seen; echo ran >> {0}/runs; echo done; echo s > secret\n"
    )
    (tmp_path / "solve.sh").write_text(script.format(tmp_path))
    return home


def calc(**what: Any) -> dict[str, Any]:
    usual = {"command": COMMAND, "results": ["out.txt"], "files": {"in.txt": b"42"}}
    info: dict[str, Any] = a_calc(**(usual | what))["calc-info"]
    return info


def serve(home: Path, broker: OldBroker) -> None:
    """Let the agent work, again and again, until nothing is open and nothing waits."""
    for _ in range(20):
        status, text = failing("agent", "--once", "--dir", home, "--mint", broker.url)
        assert status in (0, LATER, 69), text
        open_calcs = {c["progress"] for c in list(broker.calcs.values())} - {"got return"}
        if status == 0 and not open_calcs:
            return
    raise AssertionError(broker.calcs)


def runs(home: Path) -> int:
    file = home.parent / "runs"
    return len(file.read_text().split()) if file.exists() else 0


def test_a_calculation_of_an_old_broker_runs_under_our_manifest(
    home: Path, broker: OldBroker
) -> None:
    accept_id = broker.add(calc(results=["out.txt", "secret2"][:1]))
    serve(home, broker)
    done = broker.calcs[accept_id]
    assert (done["status"], done["progress"]) == ("completed", "got return")
    files = done["result_files"]
    assert files.keys() == {"out.txt", STDOUT, STDERR}
    assert text_of(files["out.txt"]) == "42"
    assert text_of(files[STDOUT]) == "done\n"
    assert files[STDERR]["mimetype1"] == "Error"
    assert runs(home) == 1
    log = sekisho("site", "log", "--dir", home, "--json")
    assert '"released"' in log
    assert not list((home / "state" / "mint").iterdir())


@pytest.mark.parametrize(
    "what",
    [
        {"command": COMMAND + " "},
        {"command": "/bin/sh -c id"},
        {"files": {"in.bin": b"1"}},
        {"results": ["secret"]},
    ],
)
def test_what_the_manifest_refuses_is_an_abnormal_end(
    home: Path, broker: OldBroker, what: dict[str, Any]
) -> None:
    accept_id = broker.add(calc(**what))
    serve(home, broker)
    done = broker.calcs[accept_id]
    assert done["status"] == "abnormal"
    assert {file["mimetype1"] for file in done["result_files"].values()} == {"Error"}
    assert runs(home) == 0


def test_names_that_lie_stay_within_the_work_directory(home: Path, broker: OldBroker) -> None:
    hostile = {"../../evil.txt": b"1", "/etc/evil2.txt": b"2", "in.txt": b"42", "a\0b": b"3"}
    accept_id = broker.add(calc(files=hostile, results=["out.txt", "../../x", "/etc/passwd"]))
    serve(home, broker)
    (seen,) = home.glob("work/**/seen")
    assert set(seen.read_text().split()) >= {"evil.txt", "evil2.txt", "in.txt", "out.txt"}
    assert not list(home.parent.parent.glob("evil*"))
    assert broker.calcs[accept_id]["result_files"].keys() == {"out.txt", STDOUT, STDERR}


def test_broken_base64_is_an_abnormal_end(home: Path, broker: OldBroker) -> None:
    info = calc()
    info["parameter_files"]["in.txt"][0] = "%%%"
    accept_id = broker.add(info)
    serve(home, broker)
    assert broker.calcs[accept_id]["status"] == "abnormal"
    assert runs(home) == 0


@pytest.mark.parametrize(
    "call",
    ["calc-request", "calc-params-complete", "calc-start", "calc-end", "send-results", "end-send"],
)
def test_an_answer_that_is_lost_repeats_no_run(home: Path, broker: OldBroker, call: str) -> None:
    accept_id = broker.add(calc())
    broker.cut.append(call)
    serve(home, broker)
    assert not broker.cut
    assert broker.calcs[accept_id]["status"] == "completed"
    assert runs(home) == 1


def test_inputs_that_were_lost_on_the_way_are_an_abnormal_end(
    home: Path, broker: OldBroker
) -> None:
    """Kills: leaving a calculation for ever that the old broker thinks we have."""
    accept_id = broker.add(calc())
    broker.cut.append("calc-params")
    serve(home, broker)
    assert broker.calcs[accept_id]["status"] == "abnormal"
    assert runs(home) == 0


@pytest.mark.parametrize(
    ("progress", "status"), [("not start", "completed"), ("sending params", "abnormal")]
)
def test_an_agent_that_died_while_it_took_a_calculation_comes_back_to_it(
    home: Path, broker: OldBroker, progress: str, status: str
) -> None:
    accept_id = broker.add(calc())
    broker.calcs[accept_id]["progress"] = progress
    begun = home / "state" / "mint" / job_id_of(accept_id)
    begun.mkdir(parents=True)
    (begun / "inputs").write_bytes(b"half of")
    serve(home, broker)
    assert broker.calcs[accept_id]["status"] == status


def test_what_another_agent_took_is_left_to_it(home: Path, broker: OldBroker) -> None:
    accept_id = broker.add(calc())
    broker.quicker.append(accept_id)
    failing("agent", "--once", "--dir", home, "--mint", broker.url)
    assert broker.calcs[accept_id]["progress"] == "sending params"
    assert not list((home / "state" / "mint").iterdir())


def test_an_answer_with_no_id_is_no_calculation(home: Path, broker: OldBroker) -> None:
    broker.calcs["../../etc"] = {"info": calc(), "progress": "not start", "status": "none"}
    status, text = failing("agent", "--once", "--dir", home, "--mint", broker.url)
    assert status == 0, text
    assert "calc-params" not in broker.calls


def test_a_deleted_calculation_is_dropped(home: Path, broker: OldBroker) -> None:
    accept_id = broker.add(calc())
    failing("agent", "--once", "--dir", home, "--mint", broker.url)
    del broker.calcs[accept_id]
    serve(home, broker)
    assert not list((home / "state" / "mint").iterdir())


def test_a_wrong_token_is_told(home: Path, broker: OldBroker) -> None:
    private(home / "token", "another-token\n")
    status, text = failing("agent", "--once", "--dir", home, "--mint", broker.url)
    assert status == 77
    assert "auth.required" in text


def test_with_two_submitters_it_must_be_said_in_whose_name(home: Path, broker: OldBroker) -> None:
    text = (home / "manifest.toml").read_text()
    (home / "manifest.toml").write_text(text.replace('["tanaka"]', '["suzuki", "tanaka"]'))
    status, said = failing("agent", "--once", "--dir", home, "--mint", broker.url)
    assert (status, "mint.submitter" in said) == (78, True)
    accept_id = broker.add(calc())
    words = ("agent", "--once", "--dir", home, "--mint", broker.url, "--mint-user", "tanaka")
    for _ in range(20):
        failing(*words)
        if broker.calcs[accept_id]["progress"] == "got return":
            break
    assert broker.calcs[accept_id]["status"] == "completed"


@pytest.mark.parametrize(
    ("content", "kinds"),
    [
        (b"\0\xff", ("application/octet-stream;", "charset=binary")),
        ("計算\n".encode(), ("text/plain;", "charset=utf-8")),
        (b"42\n", ("text/plain;", "charset=us-ascii")),
    ],
)
def test_a_result_is_marked_as_text_or_not(
    home: Path, broker: OldBroker, content: bytes, kinds: tuple[str, str]
) -> None:
    accept_id = broker.add(calc(files={"in.txt": content}))
    serve(home, broker)
    file = broker.calcs[accept_id]["result_files"]["out.txt"]
    assert base64.b64decode(file["content"]) == content
    assert (file["mimetype1"], file["mimetype2"]) == kinds


def test_a_requested_result_that_is_missing_is_an_abnormal_end(
    home: Path, broker: OldBroker
) -> None:
    (home.parent / "solve.sh").write_text("echo all is well\n")
    accept_id = broker.add(calc())
    serve(home, broker)
    assert broker.calcs[accept_id]["status"] == "abnormal"
    file = broker.calcs[accept_id]["result_files"]["out.txt"]
    assert (file["content"], file["mimetype1"]) == ("", "Error")
    assert "out.txt" in file["mimetype2"]


@pytest.mark.parametrize(("confined", "got"), [(True, "kept"), (False, "a secret")])
def test_what_an_old_broker_asks_for_is_confined_as_the_manifest_says(
    home: Path, broker: OldBroker, tmp_path: Path, *, confined: bool, got: str
) -> None:
    """The second case is the control: without the line the program reads the secret."""
    (tmp_path / "canary").write_text("a secret")
    (tmp_path / "solve.sh").write_text(f"cat {tmp_path}/canary > out.txt || echo kept > out.txt\n")
    grants = f'sandbox = {{ read = ["{tmp_path}/solve.sh"], network = false }}\n'
    text = (home / "manifest.toml").read_text()
    if confined:
        (home / "manifest.toml").write_text(text.replace("time_limit_s", grants + "time_limit_s"))
    accept_id = broker.add(calc())
    serve(home, broker)
    assert broker.calcs[accept_id]["status"] == "completed"
    assert text_of(broker.calcs[accept_id]["result_files"]["out.txt"]).strip() == got


# ------------------------------------------------------------------------- both ends new


@pytest.mark.parametrize("inside", [False, True])
def test_our_workflow_line_and_our_agent_meet_at_an_old_broker(
    home: Path, broker: OldBroker, tmp_path: Path, *, inside: bool
) -> None:
    """Old answers in both of their forms; the broker has forgotten the calculation at the end."""
    broker.inside = inside
    (tmp_path / "wf").mkdir()
    (tmp_path / "wf" / "in.txt").write_text("入力")
    ins = "in.txt:gone.txt"
    words = (
        broker.url,
        "company",
        f"file:{home}/token",
        COMMAND,
        ins,
        "out.txt",
        "debug=2 b",
        "debug",
    )
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(run, "workflow", *words, cwd=tmp_path / "wf")
        until(lambda: "allow-wait-calc" in broker.calls)
        (info,) = (calc["info"] for calc in broker.calcs.values())
        sent = base64.b64encode("入力".encode()).decode()
        nothing = {"content": "", "mimetype1": "", "mimetype2": ""}
        assert info == {
            "command": COMMAND,
            "remote-site": "company",
            "parameters": "debug=2 b",
            "parameter_files": {
                "in.txt": [sent, "text/plain;", "charset=utf-8"],
                "gone.txt": ["", "", ""],
            },
            "result_files": dict.fromkeys(("out.txt", STDOUT, STDERR), nothing),
        }
        serve(home, broker)
        status, out, err = ended.result(120)
    assert status == 0, err
    assert (tmp_path / "wf" / "out.txt").read_text() == "入力"
    assert (tmp_path / "wf" / STDOUT).read_text() == "done\n"
    assert f"{STDERR}: " in out
    assert broker.calcs == {}


def test_our_workflow_line_hears_an_old_brokers_refusals(
    home: Path, broker: OldBroker, tmp_path: Path
) -> None:
    """And lets nothing behind that it could not let wait."""
    broker.refused.append("allow-wait-calc")
    words = (broker.url, "company", f"file:{home}/token", COMMAND, "", "out.txt")
    status, _, err = run("workflow", *words, cwd=tmp_path)
    assert (status, "mint.answer" in err) == (1, True)
    assert broker.calcs == {}
    assert broker.calls[-1] == "cancel-wait-calc"
