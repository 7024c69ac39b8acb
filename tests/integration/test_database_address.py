"""A broker whose database is elsewhere: whoever sets it up is told what is wrong, and no secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.forked import run
from tests.integration.http_process import broker_process

SECRET = "s3cret-of-the-database"
HIDDEN = "import sys; sys.modules['psycopg'] = None"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings that name a file with an address; there is none any more."""
    made = run(["broker", "init", tmp_path / "broker", "--port", "0"], timeout=60)
    assert made.returncode == 0, made.stderr
    file = tmp_path / "broker" / "broker.toml"
    file.write_text(file.read_text().replace("# database_url_file", "database_url_file"))
    return file


def address(config: Path, text: str, mode: int = 0o600) -> None:
    file = config.with_name("database-url")
    file.write_text(text)
    file.chmod(mode)


def told(config: Path, *words: str, lang: str = "en", first: str = "") -> tuple[int, str]:
    return typed("--lang", lang, "broker", *words, "-c", config, first=first)


def typed(*words: str | Path, first: str = "") -> tuple[int, str]:
    """Return the status and the errors of a command line, which shows neither code nor secret."""
    done = run(words, timeout=60, first=first)
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr
    return done.returncode, done.stderr


def test_an_empty_database_is_made_ready_and_served(tmp_path: Path, postgresql: str) -> None:
    """And an address that does not work yet is no step that cannot be made again."""
    config = tmp_path / "broker" / "broker.toml"
    place = config.with_name("database-url")
    init = ("broker", "init", place.parent, "--port", "0", "--database-url-file", place)
    place.parent.mkdir(mode=0o700)
    address(config, f"postgresql://a:{SECRET}@127.0.0.1:1/x")
    assert typed(*init)[0] == 75
    address(config, postgresql.replace("+psycopg", "") + "\n")
    try:
        assert typed(*init) == (0, "")
        assert told(config, "site", "list") == (0, "")
        other = tmp_path / "other"
        again = (*init[:2], other, *init[3:])
        assert typed(*again) == (0, "")
        with broker_process(config) as broker:
            broker.event("broker_ready")
            status, why = told(other / "broker.toml", "serve")  # another directory, the same jobs
            assert (status, "error[store.served]" in why) == (73, True)
            assert broker.stop() == 0
        with broker_process(other / "broker.toml") as broker:
            broker.event("broker_ready")
            broker.process.kill()
            broker.process.wait(30)
        with broker_process(config) as broker:
            broker.event("broker_ready")
            assert broker.stop() == 0
    finally:
        _emptied(postgresql)
    assert list(place.parent.glob("*.sqlite3*")) == []
    status, why = told(config, "site", "list")
    assert (status, "error[store.needs_migration]" in why) == (78, True)


def _emptied(url: str) -> None:
    """Leave the server as the other tests expect it."""
    import sqlalchemy as sa  # noqa: PLC0415

    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    engine.dispose()


@pytest.mark.parametrize("lang", ["en", "ja"])
@pytest.mark.parametrize(
    "text",
    ["", "\n", "nothing of the kind", f"mysql://a:{SECRET}@127.0.0.1/x", "postgresql://h:p/x"],
)
def test_what_is_no_address_is_refused_and_never_another_database(
    config: Path, text: str, lang: str
) -> None:
    """Kills: an empty file read as the wish for a database beside the settings."""
    address(config, text)
    status, why = told(config, "site", "list", lang=lang)
    assert (status, "error[store.url]" in why) == (78, True)


def test_an_address_that_others_may_read_is_refused(config: Path) -> None:
    for mode in (0o644, 0o640, 0o604):
        address(config, f"postgresql://a:{SECRET}@127.0.0.1:1/x", mode)
        status, why = told(config, "site", "list")
        assert status == 78
        assert "error[store.url_open]: Others may read" in why
        assert f"(mode {mode:o})" in why


def test_a_server_that_is_not_there_or_lets_nobody_in_is_told_in_its_own_words(
    config: Path, postgresql: str
) -> None:
    address(config, f"postgresql://a:{SECRET}@127.0.0.1:1/x")
    status, why = told(config, "migrate")
    assert (status, "error[store.unreachable]" in why) == (75, True)
    assert "port 1 failed" in why
    nowhere = postgresql.replace("+psycopg", "").replace("/postgres?", "/nowhere?")
    address(config, nowhere.replace("postgres@", f"postgres:{SECRET}@"))
    status, why = told(config, "serve")
    assert (status, "error[store.unreachable]" in why) == (75, True)
    assert 'database "nowhere" does not exist' in why


def test_a_broker_without_the_driver_says_what_to_install(config: Path) -> None:
    address(config, f"postgresql://a:{SECRET}@127.0.0.1:1/x")
    status, why = told(config, "site", "list", first=HIDDEN)
    assert (status, "error[store.driver_missing]" in why) == (78, True)
    assert "psycopg" in why
    assert "requirements/broker.txt" in why
