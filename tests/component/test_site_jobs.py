"""What a site's own people read of an array that is in hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sekisho.adapters.journal_directory import DirectoryJournal
from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.cli.session import Session
from sekisho.cli.site import site
from sekisho.config.site import load_site
from sekisho.domain.resources import Resources
from sekisho.domain.run import Run, Stage
from tests.world import NOW, an_id


def typed(*words: str, lang: str = "en") -> None:
    site.main(list(words), standalone_mode=False, obj=Session(lang=lang))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A site with an array of five elements in hand, three of which have ended."""
    place = tmp_path / "site"
    typed("init", "--dir", str(place), "--broker", "https://broker.example")
    files = load_site(place)
    run = Run(
        job=an_id("job"),
        epoch=1,
        submitter="alice",
        request=b"",
        taken_at=NOW,
        stage=Stage.RUNNING,
        resources=Resources(elements=5),
    )
    journal = DirectoryJournal(files.state)
    journal.lock()
    journal.save(run)
    journal.unlock()
    control = Path(LocalWorkplace(files.work_base).place(run.job, run.attempt).control_dir)
    for number in range(5):
        (control / str(number)).mkdir(parents=True)
        if number not in {1, 4}:
            (control / str(number) / "exit").touch()
    return place


@pytest.mark.parametrize(
    ("lang", "told"), [("en", "(3 of 5 elements)"), ("ja", "(5 要素中 3 完了)")]
)
@pytest.mark.parametrize("command", ["jobs", "status"])
def test_how_far_an_array_has_come_is_told_with_its_stage(
    home: Path, command: str, lang: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(command, "--dir", str(home), lang=lang)
    assert told in capsys.readouterr().out


def test_programs_read_the_numbers(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    typed("jobs", "--dir", str(home), "--json")
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["elements"], row["elements_ended"]) == (5, 3)
