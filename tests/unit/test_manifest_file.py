"""The manifest as its owner writes it: everything it can say, and every fault with its line."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
import tomllib
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from sekisho.adapters.desires_directory import DirectoryDesires
from sekisho.config.manifest import load_manifest, parse_manifest
from sekisho.config.site import BrokerTable, SiteFiles, SiteSettings, load_site
from sekisho.config.size import size_of
from sekisho.domain import parameter
from sekisho.domain.access import Submitters
from sekisho.domain.egress import LogRule, OutputRule
from sekisho.domain.errors import ConfigError, Refused
from sekisho.domain.files import Pattern
from sekisho.domain.launch import LaunchLimits
from sekisho.domain.manifest import InputRule
from sekisho.domain.resources import BatchSystem, Resources, Venue, granted
from tests.other_group import share

OPENED = [share, lambda place: place.chmod(place.stat().st_mode | 0o002)]

FULL = """\
schema = 1
site = "tohoku"
submitters = ["alice", "bob@example.org"]
max_running = 7

[[command]]
name = "solve"
argv = ["/opt/solve", "{model}", ["--steps", "{steps}"], "{verbose}", "--tol={tolerance}", "{mode}"]
time_limit_s = 90
max_running = 2
idempotent = true
retention_days = 0.5
submitters = ["alice"]
enabled = false
description = { en = "Solves.", ja = "解く。" }
environment = { OMP_NUM_THREADS = "4", MODEL = "{CALC_DIR}/model" }

[command.parameters]
model = { type = "text", pattern = "[a-z]+", max_length = 9, default = "steel" }
steps = { type = "integer", minimum = 1, maximum = 10 }
verbose = { type = "boolean", flag = "-v", default = false }
tolerance = { type = "number", minimum = 0, maximum = 1, default = 0 }
mode = { type = "choice", values = ["fast", "slow"], default = "slow" }

[[command.input]]
path = "in/*.dat"
max_bytes = "10 MiB"
max_files = 5
required = false

[[command.output]]
path = "out/**"
max_bytes = 2048
max_files = 3
required = true

[command.stdout]
release = true
max_bytes = "2KiB"
"""

MORE = """
[scheduler.big]
dialect = "slurm"
submit = ["/usr/bin/sbatch"]
environment = { CLUSTER = "b" }

[[command]]
name = "sweep"
scheduler = "big"
host = "ssh:far"
argv = ["/opt/sweep", "{nodes}", "{queue}"]
time_limit_s = 5
licence = ["/opt/licence"]
before = { argv = ["/opt/before"], time_limit_s = 1 }
[command.parameters]
nodes = { type = "integer", minimum = 1, maximum = 9 }
queue = { type = "choice", values = ["a", "b"] }
[command.resources]
queue = { parameter = "queue", values = ["a", "b"] }
nodes = { parameter = "nodes", max = 4 }
memory = "1 GiB"
licences = ["solver"]
directives = ["--site"]
array = { elements = 4, at_once = 2 }

[[command]]
name = "shown"
argv = ["/opt/shown"]
time_limit_s = 5
sandbox = { read = ["/opt"], connect = [1] }
limits = { max_file_bytes = 4096 }
publish = { every_s = 10, progress = "p", file = [{ path = "a" }] }
"""
SMALL = """\
schema = 1
site = "tohoku"
submitters = []

[[command]]
name = "solve"
argv = ["/opt/solve"]
time_limit_s = 1
"""


def faults_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_manifest(text, "manifest.toml")
    assert caught.value.code == "config.invalid"
    found = caught.value.params["faults"]
    assert isinstance(found, list)
    return [str(fault) for fault in found]


@pytest.mark.parametrize(
    ("line", "most"), [("", 64 << 10), ('max_output_name_bytes = "1 MiB"', 1 << 20)]
)
def test_how_long_the_names_of_outputs_may_be_is_the_commands(line: str, most: int) -> None:
    manifest = parse_manifest(SMALL + line, "manifest.toml")
    assert manifest.commands["solve"].max_output_name_bytes == most


def test_everything_that_a_manifest_can_say_is_understood() -> None:
    manifest = parse_manifest(FULL, "manifest.toml")
    assert (manifest.site, manifest.max_running) == ("tohoku", 7)
    assert manifest.submitters == Submitters(frozenset({"alice", "bob@example.org"}))
    command = manifest.commands["solve"]
    assert command.argv[:3] == ("/opt/solve", "{model}", ("--steps", "{steps}"))
    assert command.parameters == {
        "model": parameter.Text(pattern="[a-z]+", max_length=9, default="steel"),
        "steps": parameter.Integer(minimum=1, maximum=10),
        "verbose": parameter.Boolean(flag="-v", default=False),
        "tolerance": parameter.Number(minimum=0, maximum=1, default=0),
        "mode": parameter.Choice(values=("fast", "slow"), default="slow"),
    }
    assert command.inputs == (
        InputRule(path=Pattern("in/*.dat"), max_bytes=10 << 20, max_files=5, required=False),
    )
    assert command.outputs == (
        OutputRule(path=Pattern("out/**"), max_bytes=2048, max_files=3, required=True),
    )
    assert (command.stdout, command.stderr) == (LogRule(release=True, max_bytes=2048), LogRule())
    assert command.environment == {"OMP_NUM_THREADS": "4", "MODEL": "{CALC_DIR}/model"}
    assert command.description == {"en": "Solves.", "ja": "解く。"}
    assert command.submitters == Submitters(frozenset({"alice"}))
    assert (command.time_limit, command.retention) == (
        timedelta(seconds=90),
        timedelta(hours=12),
    )
    assert (command.max_running, command.idempotent, command.enabled) == (2, True, False)


def test_that_a_command_only_reads_an_input_is_said_by_the_rule() -> None:
    text = FULL.replace('path = "in/*.dat"', 'path = "in/*.dat"\nread_only = true')
    (rule,) = parse_manifest(text, "manifest.toml").commands["solve"].inputs
    assert rule.read_only


def test_what_is_not_said_is_careful() -> None:
    command = parse_manifest(SMALL, "manifest.toml").commands["solve"]
    assert (command.stdout.release, command.stderr.release) == (False, False)
    assert (command.inputs, command.outputs, command.environment) == ((), (), {})
    assert (command.max_running, command.idempotent, command.submitters) == (1, False, None)


def test_a_digest_names_the_very_text(tmp_path: Path) -> None:
    file = tmp_path / "manifest.toml"
    file.write_text(FULL, "utf-8")
    manifest = load_manifest(file)
    assert manifest.digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert parse_manifest(FULL + "\n", "manifest.toml").digest != manifest.digest


def test_five_faults_are_told_at_once_each_with_its_line() -> None:
    text = (
        FULL.replace('site = "tohoku"', 'site = "Tohoku"')
        .replace("time_limit_s = 90", "time_limit_s = -1")
        .replace('"/opt/solve", "{model}"', '"solve", "{model}"')
        .replace('path = "out/**"', 'path = "../out"')
        .replace("[command.stdout]\nrelease = true", "[command.stdout]\nreleased = true")
    )
    found = faults_of(text)
    assert [fault.split(": ")[:2] for fault in found] == [
        ["manifest.toml:2", "site"],
        ["manifest.toml:8", "command[0].argv"],
        ["manifest.toml:9", "command[0].time_limit_s"],
        ["manifest.toml:32", "command[0].output[0].path"],
        ["manifest.toml:38", "command[0].stdout.released"],
    ]


@pytest.mark.parametrize(
    ("before", "after", "line", "key"),
    [
        ("schema = 1", "schema = 2", 1, "schema"),
        ("max_running = 7", "max_running = 0", 4, "max_running"),
        ("max_running = 7", "max_runing = 7", 4, "max_runing"),
        ('"bob@example.org"', '"bob smith"', 3, "submitters"),
        ('name = "solve"', 'name = "Solve It"', 7, "name"),
        ('["/opt/solve", ', '["opt/solve", ', 8, "argv"),
        ('["/opt/solve", ', '["/opt/{model}", ', 8, "argv"),
        ('["/opt/solve", ', '[["/opt/solve", "{steps}"], ', 8, "argv"),
        ('"{mode}"]', '"{mode}", "a\\u0000b"]', 8, "argv"),
        ('"{mode}"]', '"{mode}", ["a\\u0000b"]]', 8, "argv"),
        ('"{mode}"]', '"{mode}", "{colour}"]', 8, "argv"),
        (', "{mode}"]', "]", 8, "argv"),
        ("time_limit_s = 90", "time_limit_s = 0", 9, "time_limit_s"),
        ("time_limit_s = 90", 'time_limit_s = "90"', 9, "time_limit_s"),
        ("retention_days = 0.5", "retention_days = -1", 12, "retention_days"),
        ('en = "Solves."', 'de = "Loest."', 15, "description"),
        ('OMP_NUM_THREADS = "4"', "OMP_NUM_THREADS = 4", 16, "environment"),
        ('OMP_NUM_THREADS = "4"', 'IFS = "4"', 16, "environment"),
        ('OMP_NUM_THREADS = "4"', 'OMP_NUM_THREADS = "4\\u0000"', 16, "environment"),
        ('"[a-z]+"', '"[a-z"', 19, "parameters.model"),
        ('"[a-z]+"', '"(a+)+b"', 19, "parameters.model"),
        ('default = "steel"', 'default = "STEEL"', 19, "parameters.model"),
        ('default = "steel"', "default = 3", 19, "parameters.model"),
        ('default = "steel"', 'flag = "-m"', 19, "parameters.model"),
        ('type = "text", pattern = "[a-z]+"', 'type = "text"', 19, "parameters.model"),
        ("minimum = 1, maximum = 10", "minimum = 1", 20, "parameters.steps"),
        (
            "minimum = 1, maximum = 10",
            "minimum = 9, maximum = 1",
            20,
            "parameters.steps",
        ),
        (
            "minimum = 1, maximum = 10",
            "minimum = 1.5, maximum = 10",
            20,
            "parameters.steps",
        ),
        (
            "minimum = 1, maximum = 10",
            "minimum = true, maximum = 10",
            20,
            "parameters.steps",
        ),
        ('type = "integer"', 'type = "float"', 20, "parameters.steps"),
        ('flag = "-v"', 'flag = "-v\\n"', 21, "parameters.verbose"),
        ("minimum = 0, maximum = 1,", "minimum = nan, maximum = 1,", 22, "parameters.tolerance"),
        ("minimum = 0, maximum = 1,", "minimum = 0, maximum = nan,", 22, "parameters.tolerance"),
        ('"slow"]', '"slow\\u0000"]', 23, "parameters.mode"),
        ('["fast", "slow"], default = "slow"', "[]", 23, "parameters.mode"),
        ("default = false", 'default = "no"', 21, "parameters.verbose"),
        (
            "maximum = 1, default = 0",
            "maximum = 1, default = 2",
            22,
            "parameters.tolerance",
        ),
        (
            "maximum = 1, default = 0",
            'maximum = 1, default = "a"',
            22,
            "parameters.tolerance",
        ),
        ('default = "slow"', 'default = "medium"', 23, "parameters.mode"),
        ('path = "in/*.dat"', 'path = "/in"', 26, "input[0].path"),
        ('path = "in/*.dat"', "path = 3", 26, "input[0].path"),
        ('"10 MiB"', '"10 MB"', 27, "input[0].max_bytes"),
        ('"10 MiB"', "-1", 27, "input[0].max_bytes"),
        ('path = "out/**"', 'path = "a/**/b/**"', 32, "output[0].path"),
        ("max_files = 3", "max_files = 0", 34, "output[0].max_files"),
        ("release = true", 'release = "yes"', 38, "stdout.release"),
    ],
)
def test_a_fault_is_told_with_its_line_and_key(
    before: str, after: str, line: int, key: str
) -> None:
    assert FULL.count(before) >= 1
    found = faults_of(FULL.replace(before, after, 1))
    wheres = [fault.split(": ")[:2] for fault in found]
    keys = (key, f"command[0].{key}")
    assert any(w[0] == f"manifest.toml:{line}" and w[1].startswith(keys) for w in wheres), found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "schema = 1",
        "command = 3",
        SMALL + "command = 1",
        "[[[",
        SMALL.replace('"/opt', '"/opt"'),
    ],
)
def test_what_is_no_manifest_at_all_is_told_without_a_crash(text: str) -> None:
    assert faults_of(text) != []


def test_limits_below_what_a_program_needs_to_start_are_told_with_their_line() -> None:
    text = SMALL + "[command.limits]\nmax_file_bytes = 1\n"
    (fault,) = faults_of(text)
    line = text.splitlines().index("[command.limits]") + 1
    assert fault.startswith(f"manifest.toml:{line}: command[0].limits: launch.limits")
    least = "max_file_bytes = 4096\nmax_open_files = 16\nmax_processes = 8\n"
    (command,) = parse_manifest(text.replace("max_file_bytes = 1\n", least), "m").commands.values()
    assert command.limits == LaunchLimits(max_file_bytes=4096, max_open_files=16, max_processes=8)


@pytest.mark.parametrize("line", [f"max_open_files = {2**64}", "max_processes = 4194305"])
def test_limits_beyond_what_a_system_has_are_told_with_their_line(line: str) -> None:
    (fault,) = faults_of(SMALL + f"[command.limits]\n{line}\n")
    assert "setting.range" in fault


@pytest.mark.parametrize(
    "broken",
    [
        "command = 3\n",
        "[command]\nname = 3\n",
        "[[command]]\nname = [1]\n",
        "[[command]]\nname = { x = 1 }\n",
        "[[command]]\nparameters = 3\ninput = 3\noutput = [3]\n",
        '[[command]]\nname = "a"\nparameters = { x = 3 }\n',
        '[[command]]\nname = "a"\nargv = 3\ntime_limit_s = 1\n',
        '[scheduler.big]\ndialect = "slurm"\n[[command]]\nname = "a"\nscheduler = []\n',
    ],
)
def test_a_document_of_another_shape_is_told_by_its_keys(broken: str) -> None:
    head = 'schema = 1\nsite = "one"\nsubmitters = []\n'
    assert all(fault.startswith("manifest.toml:") for fault in faults_of(head + broken))


def test_two_commands_of_one_name_are_a_fault_of_the_second() -> None:
    text = SMALL + SMALL[SMALL.index("\n[[command]]") :]
    assert faults_of(text) == ["manifest.toml:11: command[1].name: setting.duplicate (value=solve)"]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_manifest(tmp_path / "manifest.toml")
    assert caught.value.code == "config.unreadable"


@pytest.mark.parametrize("above", [0, 1, 2])
@pytest.mark.parametrize("opened", OPENED)
def test_what_others_could_have_written_is_not_the_sites_word(
    tmp_path: Path, above: int, opened: Callable[[Path], None]
) -> None:
    """Kills: a look at the file and its directory, of which another could be put in its place."""
    file = tmp_path / "home" / "manifest.toml"
    file.parent.mkdir()
    file.write_text(SMALL)
    place = (file, *file.parents)[above]
    before = place.stat().st_mode
    opened(place)
    with pytest.raises(ConfigError) as caught:
        load_manifest(file)
    assert caught.value.code == "config.open_to_others"
    assert caught.value.params == {"file": str(place)}
    place.chmod(before)
    assert load_manifest(file).site == "tohoku"


def test_a_link_counts_for_what_it_leads_to(tmp_path: Path) -> None:
    """Kills: a look at the folder of the link, and none at the folder in which others put files."""
    shared, home = tmp_path / "shared", tmp_path / "home"
    for folder in (shared, home):
        folder.mkdir()
    (shared / "ours.toml").write_text(SMALL)
    (home / "manifest.toml").symlink_to(shared / "ours.toml")
    assert load_manifest(home / "manifest.toml").site == "tohoku"
    shared.chmod(0o777)
    with pytest.raises(ConfigError) as caught:
        load_manifest(home / "manifest.toml")
    assert caught.value.params == {"file": str(shared)}


@pytest.mark.parametrize("name", ["agent.toml", "."])
@pytest.mark.parametrize("opened", OPENED)
def test_settings_that_others_could_have_written_are_not_followed(
    tmp_path: Path, name: str, opened: Callable[[Path], None]
) -> None:
    """They say which manifest it is, and whom the token is shown."""
    (tmp_path / "agent.toml").write_text('[broker]\nurl = "https://b"\n')
    before = (tmp_path / name).stat().st_mode
    opened(tmp_path / name)
    with pytest.raises(ConfigError) as caught:
        load_site(tmp_path)
    assert caught.value.params == {"file": str(tmp_path / name)}
    (tmp_path / name).chmod(before)
    assert load_site(tmp_path).settings.broker.url == "https://b"


def test_a_change_that_others_could_have_made_does_not_hold_until_it_is_ours(
    tmp_path: Path,
) -> None:
    file = tmp_path / "manifest.toml"
    file.write_text(SMALL)
    files = SiteFiles(tmp_path, SiteSettings(broker=BrokerTable(url="https://b")))
    desires = DirectoryDesires(files, load_manifest(file))
    file.chmod(0o666)
    file.write_text(SMALL.replace("submitters = []", 'submitters = ["eve"]'))
    assert desires.word().manifest.digest == parse_manifest(SMALL, "m").digest
    file.chmod(0o644)
    assert desires.word().manifest.submitters.users == {"eve"}


@pytest.mark.parametrize(
    ("size", "value"),
    [(0, 0), (77, 77), ("3B", 3), ("1 KiB", 1024), ("2MiB", 2 << 20), ("1 GiB", 1 << 30)],
)
def test_sizes_are_bytes_or_say_their_unit(size: int | str, value: int) -> None:
    assert size_of(size) == value


BATCH = """
schema = 1
site = "tohoku"
submitters = ["alice"]

[[command]]
name = "solve"
argv = ["/opt/solve", "{steps}"]
time_limit_s = 90
scheduler = "cluster"
licence = ["/opt/probe", "solver"]

[command.resources]
queue = { parameter = "queue", values = ["short", "long"] }
account = "g01"
cpus = { parameter = "cpus", max = 32 }
memory = { parameter = "gib", max = "64 GiB", unit = "1 GiB" }
wall_time_s = 3600
licences = ["solver:2"]
directives = ["--constraint=fast"]

[command.parameters]
steps = { type = "integer", minimum = 1, maximum = 9 }
cpus = { type = "integer", minimum = 1, maximum = 128, default = 4 }
gib = { type = "integer", minimum = 1, maximum = 128 }
queue = { type = "choice", values = ["short", "long", "night"], default = "short" }

[scheduler.cluster]
dialect = "pbs"
submit = ["qsub2"]
poll_s = 5
environment = { PBS_SERVER = "pbs01" }
"""


SWEEP = 'array = { elements = { parameter = "steps", max = 9 }, at_once = 4 }\n'


def test_an_array_has_as_many_elements_as_the_request_chooses_within_bounds() -> None:
    text = BATCH.replace("[command.parameters]", SWEEP + "[command.parameters]")
    command = parse_manifest(text, "manifest.toml").commands["solve"]
    asked = granted(command.resources, {"steps": "9"}, command.time_limit)
    assert (asked.elements, asked.at_once) == (9, 4)
    with pytest.raises(Refused):
        granted(command.resources, {"steps": "10"}, command.time_limit)
    assert granted(command.resources, {}, command.time_limit).elements == 1
    plain = parse_manifest(BATCH, "manifest.toml").commands["solve"]
    assert granted(plain.resources, {"steps": "9"}, plain.time_limit).elements is None


def test_the_batch_system_alone_holds_an_element_to_the_limit_of_time() -> None:
    text = BATCH.replace("wall_time_s = 3600", "array = { elements = 20 }")
    command = parse_manifest(text, "manifest.toml").commands["solve"]
    assert granted(command.resources, {}, command.time_limit).wall_time == 90
    plain = BATCH.replace("wall_time_s = 3600", "")
    command = parse_manifest(plain, "manifest.toml").commands["solve"]
    assert granted(command.resources, {}, command.time_limit).wall_time == 90 + 120


@pytest.mark.parametrize(
    ("array", "key"),
    [
        ("{ elements = 0 }", "array.elements"),
        ("{ elements = 10001 }", "array.elements"),
        ("{ at_once = 3 }", "array"),
        ('{ elements = { parameter = "steps", max = 10001 } }', "array.elements"),
        ('{ elements = { parameter = "steps", max = 3, min = 4 } }', "array.elements"),
        ("{ elements = 9, at_once = 0 }", "array.at_once"),
    ],
)
def test_a_fault_of_an_array_is_told_with_its_line(array: str, key: str) -> None:
    text = BATCH.replace("wall_time_s = 3600", f"array = {array}")
    where = f"manifest.toml:18: command[0].resources.{key}"
    assert any(fault.startswith(where) for fault in faults_of(text))


def test_a_batch_system_that_cannot_limit_an_array_is_not_asked_to() -> None:
    text = BATCH.replace("wall_time_s = 3600", "array = { elements = 9, at_once = 3 }")
    assert parse_manifest(text, "manifest.toml").commands.keys() == {"solve"}
    pjsub = text.replace('dialect = "pbs"', 'dialect = "pjsub"')
    where = "manifest.toml:18: command[0].resources.array.at_once: manifest.at_once"
    assert faults_of(pjsub) == [f"{where} (dialect=pjsub)"]


def test_a_batch_system_and_what_is_asked_of_it_are_read_with_their_bounds() -> None:
    manifest = parse_manifest(BATCH, "manifest.toml")
    command = manifest.commands["solve"]
    assert command.venue == Venue(host="local", scheduler="cluster")
    assert command.licence == ("/opt/probe", "solver")
    assert manifest.batch_systems["cluster"] == BatchSystem(
        name="cluster",
        dialect="pbs",
        submit=("qsub2",),
        poll_s=5.0,
        environment={"PBS_SERVER": "pbs01"},
    )
    assert manifest.batch_systems["slurm"].dialect == "slurm"
    texts = {"steps": "1", "cpus": "32", "gib": "64", "queue": "long"}
    assert granted(command.resources, texts, command.time_limit) == Resources(
        queue="long",
        account="g01",
        cpus=32,
        memory=64 << 30,
        wall_time=3600,
        licences=("solver:2",),
        directives=("--constraint=fast",),
    )
    for name, text in (("cpus", "33"), ("gib", "65"), ("queue", "night")):
        with pytest.raises(Refused):
            granted(command.resources, texts | {name: text}, command.time_limit)
    unset = granted(command.resources, {}, command.time_limit)
    assert (unset.cpus, unset.memory, unset.queue) == (None, None, None)


def test_what_a_batch_system_is_asked_for_is_a_parameter_of_the_right_type() -> None:
    """Kills: a request that fails by accident, long after the manifest was read."""
    text = BATCH.replace('parameter = "cpus", max', 'parameter = "queue", max')
    found = faults_of(text.replace("cpus = { type", "# cpus = { type"))
    assert len(found) == 1
    assert found[0].startswith("manifest.toml:8: command[0].argv: manifest.resource")


@pytest.mark.parametrize(
    ("before", "after", "line", "key"),
    [
        ('scheduler = "cluster"', 'scheduler = "clutser"', 10, "command[0].scheduler"),
        ('scheduler = "cluster"', 'scheduler = "local"', 13, "command[0].resources"),
        ('["/opt/probe", "solver"]', '["probe"]', 11, "command[0].licence"),
        ('parameter = "cpus", max', 'parameter = "steps2", max', 8, "command[0].argv"),
        ('parameter = "cpus", max', 'parameter = "queue", max', 8, "command[0].argv"),
        ("max = 32 }", "max = 32, min = 33 }", 16, "command[0].resources.cpus"),
        ("max = 32 }", "maximum = 32 }", 16, "command[0].resources.cpus"),
        ('account = "g01"', 'account = "-g01"', 15, "command[0].resources.account"),
        ('["--constraint=fast"]', r'["--x\n#SBATCH"]', 20, "command[0].resources.directives"),
        ('dialect = "pbs"', 'dialect = "lsf"', 29, "scheduler.cluster.dialect"),
        ('{ PBS_SERVER = "pbs01" }', '{ BASH_ENV = "x" }', 32, "scheduler.cluster.environment"),
        ("[scheduler.cluster]", '[scheduler.local]\ndialect = "sge"\n[scheduler.cluster]', 28, ""),
    ],
)
def test_a_fault_about_a_batch_system_is_told_with_its_line(
    before: str, after: str, line: int, key: str
) -> None:
    assert before in BATCH
    found = faults_of(BATCH.replace(before, after, 1))
    assert any(f.startswith(f"manifest.toml:{line}: {key}") for f in found), found


NOBODY_MEANT: tuple[Any, ...] = ("a\0b", math.inf, [], {})


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return the way to everything in ``value``."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*above, key)
        if isinstance(item, dict | list):
            yield from places(item, (*above, key))


def test_no_value_at_any_place_of_a_manifest_is_a_crash() -> None:
    """What is read is a manifest, or every fault of it has its place."""
    document = tomllib.loads(FULL + MORE)
    parse_manifest(tomlkit.dumps(document), "manifest.toml")
    for place in places(document):
        for value in NOBODY_MEANT:
            changed = copy.deepcopy(document)
            inner: Any = changed
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = value
            with contextlib.suppress(ConfigError):
                parse_manifest(tomlkit.dumps(changed), "manifest.toml")
