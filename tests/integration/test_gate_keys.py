"""Lines of gate keys: byte for byte what sshd accepts, and no byte of anybody else's changed."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sekisho.adapters.gate_keys import add_key, fingerprint_of, gate_keys, line_for, remove_key
from sekisho.cli.main import run
from sekisho.domain.errors import Conflict, NotFound, SekishoError, UsageError
from tests.gated import gated_site
from tests.sshd import make_key

HOME = Path("/srv/site")
FOREIGN = [
    b"",
    b"# a comment",
    b"   ",
    b"no-pty ssh-rsa AAAAB3NzaC1yc2E= someone",
    b'command="echo \\"hi\\"",no-pty ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 quoted',
    b"ssh-rsa AAAAB3 latin-\xe9\xff",
    b"ssh-rsa AAAAB4 separators \x0b\x0c\x1c\x85 \xe2\x80\xa8 within",
    b"ssh-rsa AAAAB5 a carriage return\r",
    b'restrict,command="/bin/true" ssh-rsa AAAAB6 like ours',
    b"cert-authority ssh-rsa AAAAB7",
    b"\x00\x01 what is this",
]


@pytest.fixture
def key(tmp_path: Path) -> str:
    return make_key(tmp_path / "key").with_suffix(".pub").read_text().strip()


def a_line(
    key: str,
    *,
    home: Path = HOME,
    submitter: str = "alice",
    sources: str | None = None,
    expires: datetime | None = None,
) -> str:
    return line_for(key, home=home, submitter=submitter, sources=sources, expires=expires)


# ---------------------------------------------------------------------------- the line


def test_a_fingerprint_is_that_of_ssh_keygen(key: str, tmp_path: Path) -> None:
    said = subprocess.run(
        ["ssh-keygen", "-lf", str(tmp_path / "key.pub")], capture_output=True, check=True, text=True
    ).stdout
    assert fingerprint_of(key) == said.split()[1]


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "ssh-ed25519 !!!!",
        "ssh-rsa {data}",
        "restrict {key}",
        'command="x" {key}',
        "{key}\n{key}",
        "{key} a\x0bb",
        "{key} a\x00b",
        "{key} a\rb",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "ssh-ed25519  {data}",
        "ssh-ed25519 {data}==",
    ],
)
def test_what_is_no_public_key_makes_no_line(key: str, bad: str) -> None:
    text = bad.replace("{key}", key).replace("{data}", key.split()[1])
    with pytest.raises(UsageError) as caught:
        a_line(text)
    assert caught.value.code == "gate.key_invalid"


@pytest.mark.parametrize(
    "place",
    ['a"b', "a'b", "a\\b", "a\nb", "a\rb", "a\tb", "a\x00b", "a\x7fb", "a!b", 'a" ssh-rsa AAAA'],
)
def test_a_path_that_could_end_the_quotation_is_refused(key: str, place: str) -> None:
    with pytest.raises(UsageError) as caught:
        a_line(key, home=Path("/srv") / place)
    assert caught.value.code == "gate.path_unsafe"


@pytest.mark.parametrize("user", ["", "-x", "a b", "a'b", 'a"b', "a;b", "$(id)", "a\nb", "x" * 65])
def test_a_name_that_is_none_is_refused(key: str, user: str) -> None:
    with pytest.raises(SekishoError):
        a_line(key, submitter=user)


@pytest.mark.parametrize("sources", ["", 'a"b', "a b", "a\nb", "a\\b", "x" * 301, "a,b;c"])
def test_a_pattern_that_is_none_is_refused(key: str, sources: str) -> None:
    with pytest.raises(UsageError) as caught:
        a_line(key, sources=sources)
    assert caught.value.code == "gate.from_invalid"


def test_a_line_restricts_first(key: str) -> None:
    line = a_line(key, sources="192.0.2.0/24", expires=datetime(2027, 3, 31, 12, tzinfo=UTC))
    assert line.startswith('restrict,command="')
    assert ' -I -m sekisho.cli.gate --dir /srv/site --submitter alice"' in line
    assert line.endswith(f" {key}")


# ---------------------------------------------------------------------------- the file


def test_lines_of_others_stay_byte_for_byte(key: str, tmp_path: Path) -> None:
    file = tmp_path / "authorized_keys"
    before = b"\n".join(FOREIGN) + b"\n"
    file.write_bytes(before)
    add_key(file, a_line(key))
    assert file.read_bytes() == before + a_line(key).encode() + b"\n"
    remove_key(file, fingerprint_of(key))
    assert file.read_bytes() == before


def test_a_last_line_without_an_end_is_not_run_into(key: str, tmp_path: Path) -> None:
    file = tmp_path / "authorized_keys"
    file.write_bytes(b"ssh-rsa AAAAB3 last")
    add_key(file, a_line(key))
    assert file.read_bytes().splitlines()[0] == b"ssh-rsa AAAAB3 last"
    assert [k.submitter for k in gate_keys(file)] == ["alice"]


def test_a_new_file_is_private_and_an_old_ones_mode_stays(key: str, tmp_path: Path) -> None:
    file = tmp_path / "ssh" / "authorized_keys"
    add_key(file, a_line(key))
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    file.chmod(0o644)
    remove_key(file, fingerprint_of(key))
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_link_to_the_file_stays_one(key: str, tmp_path: Path) -> None:
    file, link = tmp_path / "real", tmp_path / "authorized_keys"
    file.write_text("")
    link.symlink_to(file)
    add_key(link, a_line(key))
    assert link.is_symlink()
    assert gate_keys(file) == gate_keys(link)


@pytest.mark.parametrize(
    "there", ["{key}", "no-pty {key}", "# {key}", "ssh-ed25519 {data} other note", "{line}"]
)
def test_a_key_stands_in_one_line_only(key: str, tmp_path: Path, there: str) -> None:
    file = tmp_path / "authorized_keys"
    fill = {"{key}": key, "{data}": key.split()[1], "{line}": a_line(key, submitter="bob")}
    for name, text in fill.items():
        there = there.replace(name, text)
    file.write_text(f"{there}\n")
    with pytest.raises(Conflict) as caught:
        add_key(file, a_line(key))
    assert caught.value.code == "gate.key_present"
    assert file.read_text() == f"{there}\n"


def test_a_path_that_looks_like_a_key_hides_no_second_line(key: str, tmp_path: Path) -> None:
    home = Path("/srv/ssh-x AAAA")
    file = tmp_path / "authorized_keys"
    add_key(file, a_line(key, home=home))
    with pytest.raises(Conflict):
        add_key(file, a_line(key, home=home, submitter="bob"))


def test_what_is_not_there_cannot_be_removed(key: str, tmp_path: Path) -> None:
    file = tmp_path / "authorized_keys"
    for content in (None, f"{key}\n", f'restrict,command="/bin/true" {key}\n'):
        if content is not None:
            file.write_text(content)
        with pytest.raises(NotFound):
            remove_key(file, fingerprint_of(key))


def test_keys_are_listed_with_what_bounds_them(key: str, tmp_path: Path) -> None:
    file = tmp_path / "authorized_keys"
    file.write_bytes(b"\n".join(FOREIGN) + b"\n")
    add_key(file, a_line(key, sources="10.0.0.0/8"))
    (found,) = gate_keys(file)
    assert (found.submitter, found.options) == ("alice", 'from="10.0.0.0/8"')
    assert (found.fingerprint, found.note) == (fingerprint_of(key), "trial")


# ------------------------------------------------------------------------ as a person types it


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("2027-03-31", "202704010000"), ("2027-03-31T12:30", "202703311230")],
)
def test_a_day_is_kept_whole_and_a_time_is_the_sites(
    key: str, tmp_path: Path, text: str, minutes: str
) -> None:
    home = gated_site(tmp_path).home
    file = tmp_path / "authorized_keys"
    words = ["site", "gate-key", "add", str(tmp_path / "key.pub"), "--dir", str(home)]
    words += ["--submitter", "alice", "--authorized-keys", str(file), "--expires", text]
    assert run(words) == 0
    assert gate_keys(file)[0].options == f'expiry-time="{minutes}"'
    assert key in file.read_text()


@pytest.mark.parametrize("text", ["soon", "2027-02-30", "9999-12-31", "0001-01-01T00:00+14:00"])
def test_what_is_no_date_adds_nothing(key: str, tmp_path: Path, text: str) -> None:
    home = gated_site(tmp_path).home
    file = tmp_path / "authorized_keys"
    words = ["site", "gate-key", "add", str(tmp_path / "key.pub"), "--dir", str(home)]
    words += ["--submitter", "alice", "--authorized-keys", str(file), "--expires", text]
    assert run(words) == 64
    assert not file.exists()
    assert key


def test_a_person_adds_lists_and_removes_a_key(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = gated_site(tmp_path).home
    file = ["--authorized-keys", str(tmp_path / "authorized_keys")]
    add = ["site", "gate-key", "add", str(tmp_path / "key.pub"), "--dir", str(home), *file]
    assert run([*add, "--submitter", "alice", "--from", "10.0.0.0/8"]) == 0
    assert run(["site", "gate-key", "list", *file]) == 0
    said = capsys.readouterr().out
    assert fingerprint_of(key) in said
    assert "alice" in said
    assert run([*add, "--submitter", "bob"]) == 73
    assert run(["site", "gate-key", "remove", fingerprint_of(key), *file]) == 0
    assert run(["site", "gate-key", "remove", fingerprint_of(key), *file]) == 66
