"""Taking an old installation over: its settings, a first manifest, the gateway before it."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import httpx2
import pytest

from sekisho.broker.policy import Gateway
from sekisho.config.broker import load_broker
from sekisho.config.manifest import parse_manifest
from sekisho.domain.errors import ConfigError
from tests.compat.old_programs import OldAgent, OldWorkflow, a_house
from tests.integration.http_process import failing, sekisho
from tests.integration.http_world import HttpWorld

INI = """\
[Server]
ipaddress = 192.168.0.10
portnumber = 8082
loglevel = 4
colour = blue
[RemoteSites]
remote_site_ids = site-a
                  site-b
                  Site_C
                  計算
[unused]
commands = /bin/old
[site-a]
commands = /opt/solver/bin/solve
           create_inp_file.sh
           /opt/other/solve -x "a b"
           /opt/計算/実行
[site-b]
commands =
"""


@pytest.fixture
def ini(tmp_path: Path) -> Path:
    file = tmp_path / "old.ini"
    file.write_text(INI)
    return file


@pytest.fixture
def config(tmp_path: Path) -> Path:
    sekisho("broker", "init", tmp_path / "broker", "--port", "0")
    return tmp_path / "broker" / "broker.toml"


def test_old_settings_become_sites_and_commands(ini: Path, config: Path) -> None:
    words = ("broker", "import-ini", ini, "--user", "tanaka", "--write", "--config", config)
    status, said = failing(*words)
    assert (status, "sekisho broker reload" in said) == (0, True)
    mint = load_broker(config, {}).settings.mint
    assert mint.enabled
    assert mint.site["site-a"].unguarded
    assert mint.site["site-a"].commands == {
        "solve": "/opt/solver/bin/solve",
        "create-inp-file": "create_inp_file.sh",
        "solve-2": '/opt/other/solve -x "a b"',
        "command": "/opt/計算/実行",
    }
    assert mint.site["site-b"].commands == {}
    assert mint.site["site-c"].known_as == "Site_C"
    listed = sekisho("broker", "site", "list", "--config", config)
    assert [line.split()[0] for line in listed.splitlines()[1:]] == ["site-a", "site-b", "site-c"]


def test_what_has_no_counterpart_is_told_and_nothing_is_written_unasked(
    ini: Path, config: Path
) -> None:
    before = config.read_text()
    status, said = failing("broker", "import-ini", ini, "--user", "tanaka", "--config", config)
    assert status == 0
    told = ("Server.colour", "loglevel = 4", "計算", "[Site_C] commands", "unused.commands")
    for what in (*told, "http.host is 192.168.0.10", "http.port is 8082"):
        assert what in said
    assert config.read_text() == before
    assert len(sekisho("broker", "site", "list", "--config", config).splitlines()) == 1


def test_settings_that_have_the_paths_already_are_left_alone(ini: Path, config: Path) -> None:
    words = ("broker", "import-ini", ini, "--user", "tanaka", "--write", "--config", config)
    sekisho(*words)
    before = config.read_text()
    _, said = failing(*words)
    assert "not written" in said
    assert config.read_text() == before


def test_a_file_as_editors_of_today_and_of_yesterday_leave_it_is_read(
    tmp_path: Path, config: Path
) -> None:
    """With a mark of its encoding, lines that end in two ways, tabs, comments and percent signs."""
    text = (
        "; 旧設定\n[Server]\nPortNumber: 8082\n# commands = no\n[RemoteSites]\n"
        "remote_site_ids = site-a\n\tsite-b\n[site-a]\nCommands =\n"
        "\t/opt/a --date %Y  x\n\t# not this\n\t/opt/b\n\t/opt/b\n[site-b]\ncommands = c.sh\n"
    )
    (tmp_path / "x.ini").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    words = ("broker", "import-ini", tmp_path / "x.ini", "--user", "tanaka", "--write")
    sekisho(*words, "--config", config)
    sites = load_broker(config, {}).settings.mint.site
    assert {name: list(site.commands.values()) for name, site in sites.items()} == {
        "site-a": ["/opt/a --date %Y  x", "/opt/b"],
        "site-b": ["c.sh"],
    }


def test_the_sites_that_were_taken_over_work_at_once(ini: Path, tmp_path: Path) -> None:
    """From the old file to a calculation, with a site whose old name is none of ours."""
    text = ini.read_text().replace("[site-b]", "[Site_C]\ncommands = c.sh\n[site-b]")
    ini.write_text(text)
    house = a_house(tmp_path / "house", "[quota]\nfree_floor_bytes = 0\n")
    words = ("broker", "import-ini", ini, "--user", "tanaka", "--write", "--config", house.config)
    sekisho(*words)
    with house.serving(), house.line() as line:
        for site, command in (("site-a", "create_inp_file.sh"), ("Site_C", "c.sh")):
            workflow, agent = OldWorkflow(line), OldAgent(line, tmp_path / site, site=site)
            accept_id = workflow.ready(site=site, command=command, results=["out.txt"])
            listed = line.get("get-calcinfo").json()[accept_id]
            assert listed["remote-site"] == site
            assert agent.ask() == accept_id
            assert agent.params(accept_id).json()["calc-info"]["remote-site"] == site
            for call, more in (
                ("calc-params-complete", {}),
                ("calc-start", {}),
                ("calc-end", {"result": "calc end"}),
                ("send-results", {}),
                ("end-send", {"result": "end send"}),
            ):
                agent.step(call, accept_id, **more)
            assert workflow.status(accept_id) == "completed"


@pytest.mark.parametrize(
    "text",
    [
        '[mint.site.one]\nknown_as = "two"\n[mint.site.two]\n',
        '[mint.site.one]\nknown_as = "X"\n[mint.site.two]\nknown_as = "X"\n',
        '[mint.site.one]\nknown_as = "a b"\n',
        '[mint.site.one]\nknown_as = ""\n',
    ],
)
def test_two_sites_of_one_old_name_are_a_fault_of_the_settings(tmp_path: Path, text: str) -> None:
    file = tmp_path / "broker.toml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        load_broker(file, {})


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "x.ini ([RemoteSites]"),
        ("\nnonsense\n", "x.ini:2 (nonsense)"),
        ("[Server]\nipaddress = x\n", "x.ini ([RemoteSites]"),
        ("[RemoteSites]\nremote_site_ids = a\n= b\nc\n", "x.ini:3 (= b)"),
        ("[RemoteSites\nremote_site_ids = a\n", "x.ini:1 ([RemoteSites)"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, config: Path, text: str, where: str) -> None:
    (tmp_path / "x.ini").write_text(text)
    words = ("broker", "import-ini", tmp_path / "x.ini", "--user", "tanaka", "--config", config)
    status, said = failing(*words)
    assert (status, "mint.ini" in said) == (78, True)
    assert where in said


def test_a_manifest_is_drafted_of_the_old_settings_and_a_sample(ini: Path, tmp_path: Path) -> None:
    sample = tmp_path / "sample"
    (sample / "sub").mkdir(parents=True)
    (sample / "in.txt").write_text("1")
    (sample / "sub" / "out.csv").write_bytes(bytes(3 << 20))
    (sample / "計算標準出力.txt").write_text("log")
    words = ("--ini", ini, "--site", "site-a", "--sample", sample, "--input", "in.txt")
    text = sekisho("site", "manifest-from", *words, "--user", "tanaka")
    manifest = parse_manifest(text, "manifest.toml")
    assert manifest.submitters.users == {"tanaka"}
    solve = manifest.commands["solve"]
    assert solve.mint_command == "/opt/solver/bin/solve"
    assert [rule.path.text for rule in solve.inputs] == ["in.txt"]
    assert [(r.path.text, r.max_bytes >> 20) for r in solve.outputs] == [("sub/out.csv", 12)]
    assert not solve.stdout.release
    assert manifest.commands["solve-2"].argv == ("/opt/other/solve", "-x", "a b")
    assert "/COMPLETE/create_inp_file.sh" in text


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        ("/opt/a -x 'b c'", ("/opt/a", "-x", "b c")),
        ("cd run; ./solve > log", ("/COMPLETE/script.sh",)),
        ("~/bin/solve.sh", ("/COMPLETE/script.sh",)),
        ("solve 'unclosed", ("/COMPLETE/script.sh",)),
        ("./no-such-program -a", ("/COMPLETE/./no-such-program", "-a")),
        ("計算.sh", ("/COMPLETE/計算.sh",)),
    ],
)
def test_whatever_the_old_command_was_its_draft_is_a_manifest_that_says_what_to_do(
    command: str, argv: tuple[str, ...]
) -> None:
    """Kills: a draft that splits what a shell read, or that cannot be read at all."""
    text = sekisho("site", "manifest-from", "--site", "a", "--command", command, "--user", "tanaka")
    (made,) = parse_manifest(text, "manifest.toml").commands.values()
    assert (made.argv, made.mint_command) == (argv, command)
    assert ("# A shell" in text or "# Complete" in text) == argv[0].startswith("/COMPLETE")


def test_a_draft_without_a_sample_shows_how_files_are_named() -> None:
    """With the hints' marks taken away it is a manifest still: kills a hint that is none."""
    words = ("--site", "a", "--command", "/opt/a", "--command", "/opt/b", "--user", "tanaka")
    text = sekisho("site", "manifest-from", *words)
    for made in parse_manifest(text, "manifest.toml").commands.values():
        assert not made.inputs
        assert not made.outputs
    bare = re.sub(r"(?m)^# (?=[\[a-z_]+( = |\.|\]))", "", text)
    for made in parse_manifest(bare, "manifest.toml").commands.values():
        assert [rule.path.text for rule in made.inputs] == ["*.inp"]
        assert [rule.path.text for rule in made.outputs] == ["result.csv"]


def test_a_draft_needs_a_command_and_a_known_site(ini: Path) -> None:
    assert failing("site", "manifest-from", "--site", "site-a")[0] == 64
    assert failing("site", "manifest-from", "--site", "nowhere", "--ini", ini)[0] == 78


# ------------------------------------------------------------------------- a gateway in front


def behind(address: str, *networks: str) -> tuple[HttpWorld, httpx2.AsyncClient]:
    """Return a broker that trusts ``networks``, and a client at ``address``."""
    world = HttpWorld()
    gateway = Gateway(user_header="X-User", addresses=tuple(map(ip_network, networks)))
    world.world.policy.value = replace(world.world.policy.value, gateway=gateway)
    way = httpx2.ASGITransport(app=world.app, client=(address, 1234))
    return world, httpx2.AsyncClient(transport=way, base_url="http://broker")


@pytest.mark.anyio
async def test_the_gateways_word_on_the_user_counts() -> None:
    _, client = behind("10.1.2.3", "10.1.0.0/16")
    async with client:
        answer = await client.get("/v1/sites", headers={"X-User": "alice"})
    assert [site["id"] for site in answer.json()["sites"]] == ["one"]


@pytest.mark.anyio
@pytest.mark.parametrize("address", ["10.2.0.1", "127.0.0.1", "fe80::1", "testclient"])
async def test_nobody_elses_word_counts(address: str) -> None:
    _, client = behind(address, "10.1.0.0/16")
    async with client:
        headers = {"X-User": "alice", "X-Forwarded-For": "10.1.2.3", "Forwarded": "for=10.1.2.3"}
        assert (await client.get("/v1/sites", headers=headers)).status_code == 401


@pytest.mark.anyio
async def test_a_gateway_speaks_for_submitters_only_and_in_plain_words() -> None:
    _, client = behind("10.1.2.3", "10.1.0.0/16")
    async with client:
        headers = {"X-User": "alice"}
        assert (await client.get("/v1/admin/status", headers=headers)).status_code == 403
        assert (await client.get("/v1/site", headers=headers)).status_code == 403
        for name in ("", "a b", "../x", "alice,bob"):
            answer = await client.get("/v1/sites", headers={"X-User": name})
            assert answer.status_code == 401
        twice = [("X-User", "alice"), ("X-User", "bob")]
        assert (await client.get("/v1/sites", headers=twice)).status_code == 401
        assert (await client.get("/v1/sites")).status_code == 401


@pytest.mark.parametrize(
    "text",
    [
        '[gateway]\nuser_header = "X-User"\n',
        '[gateway]\naddresses = ["10.0.0.1"]\n',
        '[gateway]\nuser_header = "X-User"\naddresses = ["nonsense"]\n',
        '[http]\ntrusted_proxies = ["10.0.0.1"]\n'
        '[gateway]\nuser_header = "X-User"\naddresses = ["10.0.0.1"]\n',
    ],
)
def test_half_a_gateway_is_a_fault_of_the_settings(tmp_path: Path, text: str) -> None:
    file = tmp_path / "broker.toml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        load_broker(file, {})
