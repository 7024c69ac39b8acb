"""The contract of `Workplace`: what is collected, and copies that do not change."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sekisho.domain.egress import STDERR_NAME, STDOUT_NAME, Found, LogRule
from sekisho.domain.errors import (
    Corrupt,
    StorageFull,
)
from sekisho.domain.files import RelPath
from sekisho.domain.limits import CHUNK_BYTES
from sekisho.site.workplace import CollectCaps, Place, Workplace
from sekisho.transfer.tree import Tree
from tests.contract.placing import (
    ALL,
    JOB,
    NONE,
    Maker,
    leave,
    names_in,
    staged_content,
    staged_in,
)


@pytest.fixture
def workplace(maker: Maker) -> Workplace:
    return maker()


@pytest.fixture
def place(workplace: Workplace) -> Place:
    return workplace.prepare(JOB, 1)


def become_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def test_collect_finds_plain_files_by_name_and_size_in_order(
    workplace: Workplace, place: Place
) -> None:
    leave(place, b=b"22", a=b"1")
    (Path(place.work_dir) / "sub").mkdir()
    (Path(place.work_dir) / "sub" / "結果.txt").write_bytes(b"333")
    collected = workplace.collect(place)
    assert [(str(f.path), f.size) for f in collected.found] == [
        ("a", 1),
        ("b", 2),
        ("sub/結果.txt", 3),
    ]
    assert (collected.withheld, collected.unlisted, collected.faults) == ((), 0, ())


def test_collect_changes_nothing_and_may_be_repeated(workplace: Workplace, place: Place) -> None:
    leave(place, a=b"1")
    assert workplace.collect(place) == workplace.collect(place)


def test_what_is_staged_has_the_bytes_and_the_executable_bit(
    workplace: Workplace, place: Place
) -> None:
    leave(place, small=b"x", empty=b"", large=os.urandom(2 * CHUNK_BYTES + 7))
    (Path(place.work_dir) / "small").chmod(0o700)
    staged = workplace.stage(place, workplace.collect(place).found, None)
    assert staged_content(staged) == {
        name: (Path(place.work_dir) / name).read_bytes() for name in ("empty", "large", "small")
    }
    assert {str(f.path) for f in staged.tree.files if f.executable} == {"small"}
    assert (staged.withheld, staged.faults) == ((), ())


def test_only_what_was_released_is_copied(workplace: Workplace, place: Place) -> None:
    leave(place, wanted=b"wanted", secret=b"CANARY")
    staged = workplace.stage(place, [Found(RelPath.parse("wanted"), 6)], (NONE, NONE))
    assert list(staged_content(staged)) == ["wanted"]
    copied = b"".join(p.read_bytes() for p in Path(place.staging_dir).iterdir())
    assert b"wanted" in copied
    assert b"CANARY" not in copied
    assert b"secret" not in copied


def test_what_was_staged_no_longer_depends_on_the_job(workplace: Workplace, place: Place) -> None:
    leave(place, a=b"before")
    staged = workplace.stage(place, workplace.collect(place).found, None)
    leave(place, a=b"after!")
    assert staged_content(staged) == {"a": b"before"}


def test_what_was_staged_is_found_again_after_a_restart(maker: Maker, place: Place) -> None:
    leave(place, a=b"1", b=b"2")
    workplace = maker()
    staged = workplace.stage(place, workplace.collect(place).found, None)
    again = maker().staged(place)
    assert again.tree == staged.tree
    assert staged_content(again) == staged_content(staged)


def test_staging_again_replaces_the_copy(workplace: Workplace, place: Place) -> None:
    leave(place, a=b"1", b=b"2")
    workplace.stage(place, workplace.collect(place).found, None)
    again = workplace.stage(place, [Found(RelPath.parse("b"), 1)], None)
    assert list(staged_content(again)) == ["b"]
    assert workplace.staged(place).tree == again.tree


def test_nothing_released_is_an_empty_tree_and_no_copy(workplace: Workplace, place: Place) -> None:
    leave(place, a=b"1")
    workplace.stage(place, workplace.collect(place).found, None)
    assert workplace.stage(place, (), (NONE, NONE)).tree == Tree()
    assert not Path(place.staging_dir).exists()
    with pytest.raises(Corrupt):
        workplace.staged(place)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(lambda p: p.write_bytes(b"longer"), "changed", id="grown"),
        pytest.param(lambda p: p.write_bytes(b""), "changed", id="shrunk"),
        pytest.param(lambda p: p.unlink(), "gone", id="removed"),
        pytest.param(lambda p: (p.unlink(), p.mkdir()), "changed", id="a directory now"),
        pytest.param(lambda p: (p.unlink(), p.symlink_to("/etc/passwd")), "symlink", id="a link"),
        pytest.param(become_fifo, "special", id="a FIFO now"),
        pytest.param(lambda p: p.with_name("b").hardlink_to(p), "hard_link", id="a second name"),
    ],
)
def test_what_is_no_longer_as_decided_is_withheld_with_a_fault(
    workplace: Workplace, place: Place, change: Callable[[Path], object], why: str
) -> None:
    leave(place, a=b"1")
    found = workplace.collect(place).found
    change(Path(place.work_dir) / "a")
    staged = workplace.stage(place, found, None)
    assert staged.tree == Tree()
    assert [(w.path, w.why) for w in staged.withheld] == [("a", why)]
    assert [(f.code, f.params) for f in staged.faults] == [("output.changed", (("output", "a"),))]


@pytest.mark.parametrize("names", [("A", "a"), ("a", "A/b"), ("ß", "SS"), ("d/x", "D", "d/y")])
def test_names_that_collide_elsewhere_are_withheld_all_of_them(
    workplace: Workplace, place: Place, names: tuple[str, ...]
) -> None:
    for name in (*names, "plain"):
        file = Path(place.work_dir) / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"1")
    staged = workplace.stage(place, workplace.collect(place).found, None)
    assert list(staged_content(staged)) == ["plain"]
    assert {(w.path, w.why) for w in staged.withheld} == {(n, "collision") for n in names}


def test_names_that_collide_do_no_harm_when_only_one_is_released(
    workplace: Workplace, place: Place
) -> None:
    leave(place, A=b"1", a=b"2")
    staged = workplace.stage(place, [Found(RelPath.parse("a"), 1)], None)
    assert staged_content(staged) == {"a": b"2"}


def test_logs_leave_only_as_their_own_rules_say(workplace: Workplace, place: Place) -> None:
    control = Path(place.control_dir)
    (control / "stdout").write_bytes(b"out")
    (control / "stderr").write_bytes(b"CANARY")
    staged = workplace.stage(place, (), (ALL, NONE))
    assert staged_content(staged) == {STDOUT_NAME: b"out"}
    assert staged_content(workplace.stage(place, (), (ALL, ALL)))[STDERR_NAME] == b"CANARY"


@pytest.mark.parametrize(
    ("log", "limit", "end"),
    [
        (b"0123456789", 4, b"6789"),
        (b"0123456789", 10, b"0123456789"),
        ("あいう".encode(), 9, "あいう".encode()),
        ("あいう".encode(), 8, "いう".encode()),
        ("あいう".encode(), 7, "いう".encode()),
        ("あいう".encode(), 6, "いう".encode()),
        ("x😀".encode(), 3, b""),
        (b"\x80\x80\x80\x80\x80", 4, b"\x80"),
        (b"abc", 0, b""),
        (b"", 5, b""),
    ],
)
def test_the_end_of_a_log_begins_with_a_whole_character(
    workplace: Workplace, place: Place, log: bytes, limit: int, end: bytes
) -> None:
    (Path(place.control_dir) / "stdout").write_bytes(log)
    rule = LogRule(release=True, max_bytes=limit)
    assert staged_content(workplace.stage(place, (), (rule, NONE))) == {STDOUT_NAME: end}


def test_a_log_that_was_never_written_is_no_fault(workplace: Workplace, place: Place) -> None:
    staged = workplace.stage(place, (), (ALL, ALL))
    assert (staged.tree, staged.faults) == (Tree(), ())


def an_array(place: Place, logs: list[bytes | None]) -> Place:
    """Return ``place`` of an array whose elements wrote ``logs``."""
    for number, log in enumerate(logs):
        element = Path(place.control_dir, str(number))
        element.mkdir()
        if log is not None:
            (element / "stdout").write_bytes(log)
    return replace(place, elements=len(logs))


def test_the_logs_of_an_array_leave_as_one_each_behind_its_number(
    workplace: Workplace, place: Place
) -> None:
    place = an_array(place, [b"zero\n", b"", b"two", None])
    staged = workplace.stage(place, (), (ALL, NONE))
    told = b"==> element 0 <==\nzero\n==> element 2 <==\ntwo\n"
    assert (staged_content(staged), staged.faults) == ({STDOUT_NAME: told}, ())


def test_the_logs_of_an_array_have_equal_shares_of_what_may_leave(
    workplace: Workplace, place: Place
) -> None:
    place = an_array(place, [b"0" * 5000, b"1" * 5000, b"short"])
    rule = LogRule(release=True, max_bytes=600)
    told = staged_content(workplace.stage(place, (), (rule, NONE)))[STDOUT_NAME]
    assert 400 < len(told) <= 600
    assert told.count(b"0" * 150) == told.count(b"1" * 150) == told.count(b"short") == 1


def test_what_there_is_no_room_for_of_an_arrays_logs_is_left_out(
    workplace: Workplace, place: Place
) -> None:
    place = an_array(place, [b"x" * 100] * 50)
    rule = LogRule(release=True, max_bytes=300)
    told = staged_content(workplace.stage(place, (), (rule, NONE)))[STDOUT_NAME]
    assert len(told) <= 300
    assert told.startswith(b"==> element 0 <==\nxxx")


@pytest.mark.parametrize("deep", [True, False])
def test_a_log_of_an_element_that_is_a_link_is_withheld(
    workplace: Workplace, place: Place, tmp_path: Path, *, deep: bool
) -> None:
    place = an_array(place, [b"fine", b"fine"])
    here = Path(place.control_dir, "1")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "stdout").write_bytes(b"CANARY")
    if deep:
        (here / "stdout").unlink()
        (here / "stdout").symlink_to(outside / "stdout")
    else:
        here.rename(tmp_path / "moved")
        here.symlink_to(outside)
    staged = workplace.stage(place, (), (ALL, NONE))
    assert b"CANARY" not in b"".join(staged_content(staged).values())
    assert {w.path for w in staged.withheld} == {STDOUT_NAME}
    assert [fault.code for fault in staged.faults] == ["output.changed"]


def test_a_log_that_is_a_link_is_withheld(workplace: Workplace, place: Place) -> None:
    (Path(place.control_dir) / "stdout").symlink_to("/etc/passwd")
    staged = workplace.stage(place, (), (ALL, NONE))
    assert staged.tree == Tree()
    assert [(w.path, w.why) for w in staged.withheld] == [(STDOUT_NAME, "symlink")]


def test_an_output_with_the_name_of_a_released_log_is_withheld(
    workplace: Workplace, place: Place
) -> None:
    leave(place, **{STDOUT_NAME: b"forged"})
    (Path(place.control_dir) / "stdout").write_bytes(b"true")
    staged = workplace.stage(place, workplace.collect(place).found, (ALL, NONE))
    assert staged_content(staged) == {STDOUT_NAME: b"true"}
    assert [w.why for w in staged.withheld] == ["collision"]


def test_too_much_of_all_together_releases_nothing(maker: Maker, place: Place) -> None:
    leave(place, aa=b"123456", bb=b"123456")
    workplace = maker(caps=CollectCaps(max_released_bytes=10))
    staged = workplace.stage(place, workplace.collect(place).found, None)
    assert staged.tree == Tree()
    assert [(f.code, dict(f.params)) for f in staged.faults] == [("output.over", {"limit": 10})]
    assert not Path(place.staging_dir).exists()


def test_staging_without_room_is_storage_full_before_a_byte_is_copied(
    workplace: Workplace, place: Place
) -> None:
    leave(place, a=b"content")
    log = LogRule(release=True, max_bytes=1 << 62)
    with pytest.raises(StorageFull):
        workplace.stage(place, workplace.collect(place).found, (log, log))
    assert not Path(place.staging_dir).exists()


@pytest.mark.parametrize("victim", ["content", "list", "everything"])
def test_a_copy_that_was_damaged_is_never_taken_for_the_result(
    workplace: Workplace, place: Place, victim: str
) -> None:
    staged = staged_in(workplace, place)
    staging = Path(place.staging_dir)
    for file in staging.iterdir():
        if victim == "everything":
            file.unlink()
        elif (file.name == "list") == (victim == "list"):
            file.write_bytes(file.read_bytes().replace(b"c", b"C"))
    if victim != "list":
        with pytest.raises(Corrupt, match=r"site\.staging_changed"):
            staged_content(staged)
    if victim != "content":
        with pytest.raises(Corrupt, match=r"site\.staging_changed"):
            workplace.staged(place)


def test_staging_over_what_the_job_has_planted_there_stays_inside(
    workplace: Workplace, place: Place, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    Path(place.staging_dir).symlink_to(outside)
    staged = staged_in(workplace, place)
    assert staged_content(staged) == {"a": b"content"}
    assert names_in(outside) == ["kept"]


def test_a_job_that_replaced_its_work_directory_by_a_link_has_no_outputs(
    workplace: Workplace, place: Place, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("CANARY")
    Path(place.work_dir).rmdir()
    Path(place.work_dir).symlink_to(tmp_path)
    collected = workplace.collect(place)
    assert (collected.found, [w.path for w in collected.withheld]) == ((), ["."])
    with pytest.raises(Corrupt) as fault:
        workplace.stage(place, [Found(RelPath.parse("secret"), 6)], None)
    assert fault.value.code == "site.work_changed"
