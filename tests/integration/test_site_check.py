"""The diagnosis of a site against what can be wrong: each fault by its code, and nothing else."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sekisho.adapters import probes_files
from sekisho.adapters.journal_directory import DirectoryJournal
from sekisho.adapters.probes_files import probe_directory, probe_programs, probe_sharing
from sekisho.adapters.probes_network import NetworkProbe
from sekisho.adapters.way import way_to
from sekisho.compose.site_check import Diagnosis
from sekisho.config.manifest import load_manifest
from sekisho.config.site_template import UNNAMED
from sekisho.domain.limits import MAX_PART_BYTES
from sekisho.site.check import Ask, Finding, Grade
from tests.cloning import let_clone, let_copy
from tests.integration.bad_network import (
    Authority,
    Manners,
    a_place,
    an_authority,
    answering,
    proxying,
)
from tests.integration.http_process import broker_process, sekisho
from tests.modes import obeyed

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, *(name.upper() for name in PROXIES)):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return an_authority(tmp_path)


def findings_of(home: Path, *, quick: bool = True) -> list[Finding]:
    return list(Diagnosis(home, {}, quick=quick).run())


def faults(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(f.check, f.code) for f in findings if f.grade in (Grade.FAULT, Grade.WARNING)]


def of(findings: list[Finding], check: str) -> Finding:
    return next(finding for finding in findings if finding.check == check)


def looked_at(
    folder: Path, authority: Authority, manners: Manners, *, quick: bool = True
) -> list[Finding]:
    """Return what is found at a site whose broker has ``manners``; all else is in order."""
    with answering(authority, manners) as url:
        home = a_place(folder, url, ca=authority.file)
        return findings_of(home, quick=quick)


# --- in order ----------------------------------------------------------------------------------


def test_nothing_is_wrong_with_a_site_in_order(tmp_path: Path, authority: Authority) -> None:
    """The control of every test below."""
    manners = Manners()
    findings = looked_at(tmp_path, authority, manners, quick=False)
    assert faults(findings) == []
    checks = [f.check for f in findings if f.grade is Grade.OK]
    assert {"settings", "manifest", "programs", "work", "state", "agent"} <= set(checks)
    assert checks[-9:] == [
        "dns",
        "tcp",
        "proxy",
        "tls",
        "token",
        "clock",
        "version",
        "body",
        "idle",
    ]


def test_quick_leaves_the_silence_out_and_says_so(tmp_path: Path, authority: Authority) -> None:
    manners = Manners()
    findings = looked_at(tmp_path, authority, manners)
    assert of(findings, "idle").code == "check.quick"
    assert not any("idle_s" in line for line in manners.seen)


def test_a_check_leaves_nothing_behind(tmp_path: Path, authority: Authority) -> None:
    looked_at(tmp_path, authority, Manners())
    home = tmp_path / "site"
    left = {str(path.relative_to(home)) for path in home.rglob("*")}
    assert left == {"agent.toml", "manifest.toml", "token", "work", "state"}


# --- the network -------------------------------------------------------------------------------


def test_a_closed_port(tmp_path: Path, authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    findings = findings_of(a_place(tmp_path, f"https://127.0.0.1:{port}", ca=authority.file))
    assert faults(findings) == [("tcp", "check.tcp")]
    assert of(findings, "tcp").params["why"] == "refused"
    assert of(findings, "tcp").ask is Ask.NETWORK
    waiting = {f.check: f.params["first"] for f in findings if f.code == "check.not_tried"}
    expected = ("proxy", "tls", "token", "clock", "version", "body", "idle")
    assert waiting == dict.fromkeys(expected, "tcp")


def test_a_port_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        with socket.create_connection(address):  # the queue has room for this one, and no more
            probe = NetworkProbe(way_to(f"https://127.0.0.1:{address[1]}", None), None, seconds=0.2)
            finding = probe.tls()
    assert (finding.code, finding.params["why"]) == ("check.tcp", "timeout")


@pytest.mark.parametrize(
    ("number", "why"), [(socket.EAI_AGAIN, "name_server"), (socket.EAI_NONAME, "address")]
)
def test_a_name_server_that_is_silent_is_told_from_a_name_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, number: int, why: str
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(number, "no")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    finding = NetworkProbe(way_to("https://broker.example", None), None).dns()
    assert (finding.code, finding.params["why"]) == ("check.dns", why)


def test_a_name_without_an_address(tmp_path: Path, authority: Authority) -> None:
    home = a_place(tmp_path, "https://no-such-host.invalid", ca=authority.file)
    assert faults(findings_of(home)) == [("dns", "check.dns")]


def test_an_unknown_authority(tmp_path: Path, authority: Authority) -> None:
    other = an_authority(tmp_path, "elsewhere")
    with answering(authority, Manners()) as url:
        findings = findings_of(a_place(tmp_path, url, ca=other.file))
    assert faults(findings) == [("tls", "check.tls_issuer")]
    assert "Organisation of ca" in str(of(findings, "tls").params["issuer"])
    assert of(findings, "tls").ask is Ask.BROKER


def test_a_connection_that_is_inspected_on_the_way(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine trusts whoever made the certificate; the settings name somebody else."""
    network = an_authority(tmp_path, "network")
    monkeypatch.setenv("SSL_CERT_FILE", str(network.file))
    with answering(network, Manners()) as url:
        findings = findings_of(a_place(tmp_path, url, ca=authority.file))
    assert faults(findings) == [("tls", "check.tls_inspected")]
    assert "Organisation of network" in str(of(findings, "tls").params["issuer"])
    assert of(findings, "tls").ask is Ask.NETWORK


def test_the_authorities_of_the_machine_are_used_when_none_is_named(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with answering(authority, Manners()) as url:
        assert faults(findings_of(a_place(tmp_path, url))) == []


def test_a_certificate_of_another_host(tmp_path: Path, authority: Authority) -> None:
    findings = looked_at(tmp_path, authority, Manners(hosts=("elsewhere.example",)))
    assert faults(findings) == [("tls", "check.tls_host")]
    assert "elsewhere.example" in str(of(findings, "tls").params["names"])


def test_a_certificate_that_has_ended(tmp_path: Path, authority: Authority) -> None:
    ended = datetime.now(UTC) - timedelta(days=1)
    findings = looked_at(tmp_path, authority, Manners(ends=ended))
    assert faults(findings) == [("tls", "check.tls_expired")]
    assert f"{ended:%Y} GMT" in str(of(findings, "tls").params["ended"])


def test_a_port_where_no_tls_is_spoken(tmp_path: Path, authority: Authority) -> None:
    with answering(None, Manners()) as url:
        home = a_place(tmp_path, url.replace("http:", "https:"), ca=authority.file)
        findings = findings_of(home)
    assert faults(findings) == [("tls", "check.tls_broken")]
    assert of(findings, "tls").params["why"] == "tls"


def test_a_line_that_is_cut_before_tls(tmp_path: Path, authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            for _ in range(2):  # one connection for each layer
                listener.accept()[0].close()

        ending = threading.Thread(target=hang_up)
        ending.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        findings = findings_of(a_place(tmp_path, url, ca=authority.file))
        ending.join()
    assert of(findings, "tls").code == "check.tls_broken"
    assert of(findings, "tls").params["why"] in ("cut", "ECONNRESET", "tls")


def test_a_file_of_authorities_that_is_none(tmp_path: Path, authority: Authority) -> None:
    authority.file.write_text("no certificate")
    findings = looked_at(tmp_path, authority, Manners())
    assert faults(findings) == [("tls", "tls.ca_file")]


def test_plain_http_on_this_machine_is_allowed_and_said(tmp_path: Path) -> None:
    with answering(None, Manners()) as url:
        findings = findings_of(a_place(tmp_path, url))
    assert (faults(findings), of(findings, "tls").code) == ([], "check.tls_unused")


# --- proxies -----------------------------------------------------------------------------------


def test_a_proxy_that_asks_for_a_login(tmp_path: Path, authority: Authority) -> None:
    with answering(authority, Manners()) as url, proxying(login="no-such-words") as (proxy, _):
        findings = findings_of(a_place(tmp_path, url, ca=authority.file, proxy=proxy))
    assert faults(findings) == [("proxy", "check.proxy_login")]
    assert of(findings, "proxy").ask is Ask.NETWORK


def test_a_login_is_given_to_the_proxy_and_never_told(tmp_path: Path, authority: Authority) -> None:
    words = "Proxy-Authorization: Basic dXNlcjpwYXNz"
    with answering(authority, Manners()) as url, proxying(login=words) as (proxy, asked):
        named = proxy.replace("http://", "http://user:pass@")
        findings = findings_of(a_place(tmp_path, url, ca=authority.file, proxy=named))
    assert faults(findings) == []
    assert of(findings, "proxy").detail == f"{proxy} (proxy)"
    assert all(line.startswith("CONNECT 127.0.0.1:") for line in asked)


@pytest.mark.parametrize("answer", [b"403 Forbidden", b"502 Bad Gateway", b"nonsense"])
def test_a_proxy_that_refuses(tmp_path: Path, authority: Authority, answer: bytes) -> None:
    with answering(authority, Manners()) as url, proxying(answer) as (proxy, _):
        findings = findings_of(a_place(tmp_path, url, ca=authority.file, proxy=proxy))
    assert faults(findings) == [("proxy", "check.proxy_refused")]


def test_the_proxy_of_the_environment_is_used_and_named(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(authority, Manners()) as url, proxying() as (proxy, asked):
        monkeypatch.setenv("https_proxy", proxy)
        findings = findings_of(a_place(tmp_path, url, ca=authority.file))
    assert of(findings, "proxy").detail == f"{proxy} (https_proxy)"
    assert len(asked) >= 3


def test_a_host_of_no_proxy_is_reached_directly(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(authority, Manners()) as url, proxying(b"403 Forbidden") as (proxy, asked):
        monkeypatch.setenv("https_proxy", proxy)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        findings = findings_of(a_place(tmp_path, url, ca=authority.file))
    assert (faults(findings), asked) == ([], [])


def test_a_proxy_of_an_unknown_kind(tmp_path: Path, authority: Authority) -> None:
    with answering(authority, Manners()) as url:
        proxy = url.replace("https:", "gopher:")
        findings = findings_of(a_place(tmp_path, url, ca=authority.file, proxy=proxy))
    assert faults(findings) == [("proxy", "check.proxy_kind")]


def test_a_proxy_that_is_spoken_to_by_tls_is_left_to_the_requests(
    tmp_path: Path, authority: Authority
) -> None:
    with answering(authority, Manners()) as url, answering(authority, Manners()) as proxy:
        findings = findings_of(a_place(tmp_path, url, ca=authority.file, proxy=proxy))
    assert of(findings, "proxy").code == "check.proxy_https"
    assert (of(findings, "tls").code, of(findings, "tls").params) == (
        "check.not_tried",
        {"first": "proxy"},
    )


# --- what the path bears -----------------------------------------------------------------------


def test_a_line_that_is_cut_when_it_is_silent(tmp_path: Path, authority: Authority) -> None:
    findings = looked_at(tmp_path, authority, Manners(idle_s=1.0), quick=False)
    assert faults(findings) == [("idle", "check.idle_cut")]
    cut_after = of(findings, "idle").params["seconds"]
    assert isinstance(cut_after, float)
    assert 0.9 <= cut_after < 5


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_gateway_that_gives_up_when_it_is_silent(
    tmp_path: Path, authority: Authority, status: int
) -> None:
    findings = looked_at(tmp_path, authority, Manners(idle_status=status), quick=False)
    assert faults(findings) == [("idle", "check.idle_cut")]


@pytest.mark.parametrize(
    ("status", "code"), [(429, "broker.gateway"), (403, "broker.strange_answer")]
)
def test_what_is_answered_to_a_long_poll_is_not_taken_for_a_cut(
    tmp_path: Path, authority: Authority, status: int, code: str
) -> None:
    findings = looked_at(tmp_path, authority, Manners(idle_status=status), quick=False)
    assert faults(findings) == [("idle", code)]


def test_a_path_that_takes_no_body_worth_speaking_of(tmp_path: Path, authority: Authority) -> None:
    findings = looked_at(tmp_path, authority, Manners(max_body_bytes=1000))
    assert of(findings, "body").params["passed"] == 0


def test_a_path_that_takes_no_large_body(tmp_path: Path, authority: Authority) -> None:
    findings = looked_at(tmp_path, authority, Manners(max_body_bytes=64 << 10))
    assert faults(findings) == [("body", "check.body_limited")]
    params = of(findings, "body").params
    assert (params["needed"], params["passed"]) == (MAX_PART_BYTES, MAX_PART_BYTES // 16)


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_that_is_a_day_off(tmp_path: Path, authority: Authority, days: int) -> None:
    findings = looked_at(tmp_path, authority, Manners(ahead=timedelta(days=days)))
    assert faults(findings) == [("clock", "check.clock_off")]
    assert of(findings, "clock").params["seconds"] == pytest.approx(-days * 86_400, abs=5)


def test_a_clock_that_is_a_minute_off_is_worth_a_word(tmp_path: Path, authority: Authority) -> None:
    findings = looked_at(tmp_path, authority, Manners(ahead=timedelta(minutes=1)))
    assert faults(findings) == [("clock", "check.clock_differs")]


def test_another_version_is_worth_a_word(tmp_path: Path, authority: Authority) -> None:
    findings = looked_at(tmp_path, authority, Manners(version="99.0.0"))
    assert faults(findings) == [("version", "check.version_differs")]


@pytest.mark.parametrize(
    ("status", "code"), [(502, "broker.gateway"), (302, "broker.strange_answer")]
)
def test_somebody_else_who_answers(
    tmp_path: Path, authority: Authority, status: int, code: str
) -> None:
    findings = looked_at(tmp_path, authority, Manners(status=status))
    assert faults(findings) == [("token", code)]
    assert of(findings, "token").ask is Ask.NETWORK
    assert of(findings, "clock").grade is Grade.OK  # of the Date of whoever answered


# --- the token, at a real broker ---------------------------------------------------------------


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Run a real broker that knows the site one; give its URL and its settings."""
    home = tmp_path_factory.mktemp("broker")
    leaf = an_authority(home).ca.issue_cert("127.0.0.1")
    leaf.cert_chain_pems[0].write_to_path(home / "cert.pem")
    leaf.private_key_pem.write_to_path(home / "key.pem")
    config = home / "data" / "broker.toml"
    files = ("--tls-cert", home / "cert.pem", "--tls-key", home / "key.pem")
    sekisho("broker", "init", config.parent, "--port", "0", *files)
    for site in ("one", "two"):
        invitation = sekisho("broker", "site", "add", site, "--user", "tanaka", "-c", config)
        (home / f"{site}.invitation").touch(0o600)
        (home / f"{site}.invitation").write_text(invitation)
    with broker_process(config) as running:
        yield f"https://127.0.0.1:{running.port}", config


def joined(folder: Path, broker: tuple[str, Path], site: str) -> Path:
    """Make a place whose token is that of ``site``; its manifest says that it is the site one."""
    url, config = broker
    home = a_place(folder, url, ca=config.parent.parent / "ca.pem")
    (home / "token").unlink()
    manifest = (home / "manifest.toml").read_text()
    (home / "manifest.toml").write_text(manifest.replace('"one"', f'"{UNNAMED}"'))
    invitation = config.parent.parent / f"{site}.invitation"
    sekisho("site", "join", "--dir", home, "--invitation-file", invitation)
    (home / "manifest.toml").write_text(manifest)
    return home


def test_a_token_that_the_broker_never_saw(tmp_path: Path, broker: tuple[str, Path]) -> None:
    url, config = broker
    findings = findings_of(a_place(tmp_path, url, ca=config.parent.parent / "ca.pem"))
    assert faults(findings) == [("token", "auth.required")]
    assert of(findings, "token").ask is Ask.BROKER
    assert of(findings, "clock").grade is Grade.OK


def test_a_token_of_somebody_else(tmp_path: Path, broker: tuple[str, Path]) -> None:
    url, config = broker
    words = ("--role", "submitter", "--user", "tanaka", "--show", "-c", config)
    token = sekisho("broker", "token", "create", *words)
    home = a_place(tmp_path, url, ca=config.parent.parent / "ca.pem", token=token)
    assert faults(findings_of(home)) == [("token", "auth.scope")]


def test_a_token_of_another_site_and_one_that_was_revoked(
    tmp_path: Path, broker: tuple[str, Path]
) -> None:
    home = joined(tmp_path, broker, "two")
    findings = findings_of(home)
    assert faults(findings) == [("token", "check.other_site")]
    assert of(findings, "token").params == {"joined": "two", "site": "one"}
    assert of(findings, "body").grade is Grade.OK
    sekisho("broker", "site", "rotate", "two", "-c", broker[1])
    assert faults(findings_of(home)) == [("token", "auth.required")]


def test_a_whole_site_at_a_real_broker(tmp_path: Path, broker: tuple[str, Path]) -> None:
    assert faults(findings_of(joined(tmp_path, broker, "one"))) == []


# --- the site's own files ----------------------------------------------------------------------


def test_a_token_that_others_may_read(tmp_path: Path, authority: Authority) -> None:
    with answering(authority, Manners()) as url:
        home = a_place(tmp_path, url, ca=authority.file)
        (home / "token").chmod(0o644)
        assert faults(findings_of(home)) == [("token", "token.file_open")]


def test_without_a_token_the_way_is_looked_at_all_the_same(
    tmp_path: Path, authority: Authority
) -> None:
    with answering(authority, Manners()) as url:
        home = a_place(tmp_path, url, ca=authority.file)
        (home / "token").unlink()
        findings = findings_of(home)
    assert [check for check, _ in faults(findings)] == ["token"]
    assert of(findings, "tls").grade is Grade.OK
    waiting = {f.check: f.params["first"] for f in findings if f.code == "check.not_tried"}
    assert waiting == dict.fromkeys(("clock", "version", "body", "idle"), "token")


def test_batch_systems_are_left_out_when_it_is_to_be_quick(tmp_path: Path) -> None:
    home = a_place(tmp_path, "https://127.0.0.1:1")
    text = (home / "manifest.toml").read_text()
    command = text[text.index("[[command]]") :].replace("argv", 'scheduler = "slurm"\nargv')
    twice = command.replace("hello", "a") + command.replace("hello", "b")
    (home / "manifest.toml").write_text(text + twice)
    batch = [f.code for f in findings_of(home) if f.check == "batch"]
    assert batch == ["check.quick"]  # once for each way in which they are used


def test_settings_and_manifest_with_faults_are_all_told(tmp_path: Path) -> None:
    home = a_place(tmp_path, "https://127.0.0.1:1")
    (home / "agent.toml").write_text("[broker]\nurl = 5\nwrong = 1\n[log]\nlevel = 'loud'\n")
    (home / "manifest.toml").write_text("schema = 2\nsite = 'NO'\nsubmitters = 'x'\n")
    findings = findings_of(home)
    assert faults(findings) == [("settings", "config.invalid"), ("manifest", "config.invalid")]
    told = [f.params["faults"] for f in findings[:2]]
    assert [len(list(each)) for each in told] == [3, 3]  # type: ignore[call-overload]
    waiting = {f.check: f.params["first"] for f in findings if f.code == "check.not_tried"}
    of_settings = ("work", "state", "dns", "tcp", "proxy", "tls")
    asked = ("token", "clock", "version", "body", "idle")
    expected = dict.fromkeys((*of_settings, *asked), "settings") | {"programs": "manifest"}
    assert waiting == expected


def test_what_is_hardly_meant_in_a_manifest_is_told(tmp_path: Path) -> None:
    home = a_place(tmp_path, "https://127.0.0.1:1")
    manifest = home / "manifest.toml"
    manifest.write_text(manifest.read_text() + EVERYTHING)
    found = of([f for f in findings_of(home) if f.code], "manifest")
    assert (found.code, found.params) == (
        "check.releases_everything",
        {"command": "all", "output": "**"},
    )


def test_an_address_that_is_none(tmp_path: Path) -> None:
    findings = findings_of(a_place(tmp_path, "http://broker.example"))
    assert faults(findings) == [("dns", "broker.url")]


def test_programs_that_cannot_run(tmp_path: Path) -> None:
    home = a_place(tmp_path, "https://127.0.0.1:1")
    plain = tmp_path / "plain"
    plain.write_text("no program")
    text = (home / "manifest.toml").read_text()
    command = '[[command]]\nname = "{}"\nargv = ["{}"]\ntime_limit_s = 1\n'
    text += command.format("missing", tmp_path / "nothing") + command.format("plain", plain)
    (home / "manifest.toml").write_text(text)
    found = [f for f in findings_of(home) if f.check == "programs"]
    codes = [(f.params.get("command"), f.code) for f in found]
    assert codes == [
        (None, ""),
        ("missing", "check.program_missing"),
        ("plain", "check.program_not_executable"),
    ]


def test_programs_of_another_host_are_not_looked_for_here(tmp_path: Path) -> None:
    home = a_place(tmp_path, "https://127.0.0.1:1")
    there = '[[command]]\nname = "far"\nhost = "ssh:far"\nargv = ["/no/such"]\ntime_limit_s = 1\n'
    manifest = home / "manifest.toml"
    manifest.write_text(manifest.read_text() + there)
    found = list(probe_programs(load_manifest(manifest)))
    assert [f.code for f in found] == [""]


def test_a_home_that_others_may_look_into(tmp_path: Path) -> None:
    home = a_place(tmp_path, "https://127.0.0.1:1")
    home.chmod(0o755)
    assert ("settings", "check.home_open") in faults(findings_of(home))


@pytest.mark.parametrize("name", ["manifest.toml", "."])
def test_a_manifest_that_others_could_change(tmp_path: Path, name: str) -> None:
    home = a_place(tmp_path, "https://127.0.0.1:1")
    (home / name).chmod((home / name).stat().st_mode | stat.S_IWOTH)
    assert ("manifest", "config.open_to_others") in faults(findings_of(home))


def test_a_work_base_that_others_may_write_into(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert [f.code for f in probe_directory("work", tmp_path)] == ["check.directory_open"]


def test_a_work_base_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("nothing", "file"):
        codes = [f.code for f in probe_directory("work", tmp_path / name)]
        assert codes == ["check.directory_missing"]


def test_a_work_base_that_belongs_to_somebody_else(tmp_path: Path) -> None:
    """As root, of another user; as anybody else, the root directory."""
    folder = Path("/")
    if os.geteuid() == 0:
        folder = tmp_path / "theirs"
        folder.mkdir()
        os.chown(folder, 65_534, 65_534)
    assert [f.code for f in probe_directory("work", folder)] == ["check.directory_owner"]


def test_a_file_system_that_cannot_be_written() -> None:
    """/proc is a directory of this user where nothing can be made, for root too."""
    folder = Path(f"/proc/{os.getpid()}")
    findings = list(probe_directory("work", folder))
    broken = next(f for f in findings if f.code == "check.file_system")
    assert broken.params["operation"] == "write"


def test_every_trial_passes_on_a_local_disk_and_can_fail(tmp_path: Path) -> None:
    """Each trial fails in a directory where what it needs has been taken away."""
    for name, attempt in probes_files.TRIALS.items():
        good = tmp_path / name
        good.mkdir()
        assert attempt(good) == ""
        with pytest.raises(OSError):  # noqa: PT011 (which one is the system's business)
            attempt(tmp_path / "gone")


def _mkdir_again(real: Any, path: Path, mode: int = 0o777) -> None:
    real(path, mode, exist_ok=True)


def _shared_open(real: Any, path: Path, flags: int, mode: int = 0o777, **named: Any) -> int:
    return int(real(path, flags & ~os.O_EXCL, mode, **named))


def _written_over(_: Any, path: Path, target: Path) -> None:
    target.write_bytes(path.read_bytes())


def _lost(_: Any, path: Path, target: Path) -> None:
    path.unlink()
    target.unlink()
    target.touch()


def _fails(*_: Any) -> None:
    raise OSError(errno.EINVAL, "not here")


def _open_to_all(real: Any, path: Path, mode: int) -> None:
    real(path, mode)
    path.chmod(0o777)


@pytest.mark.parametrize(
    ("owner", "name", "lie", "operation", "why"),
    [
        (Path, "mkdir", _mkdir_again, "mkdir", "made twice"),
        (os, "open", _shared_open, "O_EXCL", "made twice"),
        (Path, "replace", _written_over, "rename", "content"),
        (Path, "replace", _lost, "rename", "content"),
        (os, "fsync", _fails, "fsync", "EINVAL"),
        (fcntl, "flock", lambda *_: None, "flock", "held twice"),
        (Path, "touch", _open_to_all, "chmod", "mode"),
    ],
)
def test_a_file_system_that_does_not_keep_its_word(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    lie: Any,
    operation: str,
    why: str,
) -> None:
    real = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *given, **named: lie(real, *given, **named))
    findings = [f for f in probe_directory("work", tmp_path) if f.code == "check.file_system"]
    monkeypatch.undo()
    assert [(f.params["operation"], f.params["why"]) for f in findings] == [(operation, why)]
    assert list(tmp_path.iterdir()) == []


EVERYTHING = """
[[command]]
name = "all"
argv = ["/bin/true"]
time_limit_s = 1
[[command.output]]
path = "**"
"""
READING = """
[[command]]
name = "reads"
argv = ["/bin/true"]
time_limit_s = 1
[[command.input]]
path = "in/**"
read_only = true
"""


def test_read_only_inputs_that_no_mode_protects_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root, that is; an ordinary account is held back, and clones need no protection."""
    let_copy(monkeypatch)
    home = a_place(tmp_path, "https://127.0.0.1:1")
    powerless = ("work", "check.modes_powerless")
    assert powerless not in faults(findings_of(home))
    manifest = home / "manifest.toml"
    before = manifest.read_text()
    elsewhere = READING.replace("argv", 'host = "ssh:far"\nargv')
    manifest.write_text(before + elsewhere)
    assert powerless not in faults(list(probe_sharing(load_manifest(manifest), home)))
    manifest.write_text(before + READING)
    assert (powerless in faults(findings_of(home))) == (os.geteuid() == 0)
    with obeyed():
        assert powerless not in faults(findings_of(home))
    monkeypatch.undo()
    let_clone(monkeypatch, tmp_path)
    assert powerless not in faults(findings_of(home))
    assert list((home / "work").iterdir()) == []


def test_whether_files_can_be_cloned_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = a_place(tmp_path, "https://127.0.0.1:1")
    let_copy(monkeypatch)
    assert of(findings_of(home), "clones").code == "check.no_clones"
    monkeypatch.undo()
    let_clone(monkeypatch, tmp_path)
    assert of(findings_of(home), "clones").grade is Grade.OK
    assert list((home / "work").iterdir()) == []


def test_a_running_agent_is_named(tmp_path: Path) -> None:
    home = a_place(tmp_path, "https://127.0.0.1:1")
    assert of(findings_of(home), "agent").detail == "-"
    journal = DirectoryJournal(home / "state")
    journal.lock()
    try:
        assert of(findings_of(home), "agent").detail == f"pid {os.getpid()}"
    finally:
        journal.unlock()
