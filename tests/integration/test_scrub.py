"""`sekisho broker scrub` beside a serving broker: sound stays sound, damage gets its name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from sekisho.domain.errors import IntegrityError
from sekisho.wire.frames import frame, pack_chunks, pack_digests
from sekisho.wire.v1 import SubmitJob
from tests.component.broker_world import a_submission
from tests.forked import run
from tests.integration.http_process import broker_process, sekisho
from tests.world import a_chunk

TEXTS = ("one", "two", "three")
CHUNKS = [a_chunk(text) for text in TEXTS]
DIGESTS = [chunk.digest for chunk, _ in CHUNKS]


@dataclass(frozen=True)
class Kept:
    """A serving broker that keeps one queued job with three chunks."""

    config: Path
    http: httpx2.Client
    job: SubmitJob

    @property
    def base(self) -> str:
        return f"/v1/jobs/{self.job.id}"

    def missing(self) -> bytes:
        chunks = pack_chunks(chunk for chunk, _ in CHUNKS)
        return self.http.post(f"{self.base}/chunks/missing", content=chunks).content

    def send(self, job: SubmitJob) -> httpx2.Response:
        """Submit ``job`` as a client does: all that is missing, nothing else."""
        base = f"/v1/jobs/{job.id}"
        self.http.post("/v1/jobs", content=msgspec.json.encode(job))
        chunks = pack_chunks(chunk for chunk, _ in CHUNKS)
        lacking = self.http.post(f"{base}/chunks/missing", content=chunks).content
        body = b"".join(frame(c.digest, d) for c, d in CHUNKS if bytes.fromhex(c.digest) in lacking)
        self.http.put(f"{base}/chunks", content=body)
        return self.http.post(f"{base}/start")

    def file(self, digest: str) -> Path:
        (found,) = (self.config.parent / "chunks").rglob(digest)
        return found

    def scrub(self) -> tuple[int, dict[str, Any], str]:
        done = run(["broker", "scrub", "--json", "-c", self.config], timeout=60)
        return done.returncode, msgspec.json.decode(done.stdout), done.stderr


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    home = tmp_path / "broker"
    config = home / "broker.toml"
    sekisho("broker", "init", home, "--port", "0")
    sekisho("broker", "site", "add", "one", "--user", "alice", "-c", config)
    words = ("--role", "submitter", "--user", "alice", "--show", "-c", config)
    token = sekisho("broker", "token", "create", *words)
    with broker_process(config) as broker:
        url, headers = f"http://127.0.0.1:{broker.port}", {"Authorization": f"Bearer {token}"}
        with httpx2.Client(base_url=url, headers=headers, timeout=40) as http:
            made = Kept(config, http, a_submission(has_inputs=True))
            assert made.send(made.job).status_code == 200
            yield made


def test_a_sound_store_is_said_to_be_sound(kept: Kept) -> None:
    status, told, _ = kept.scrub()
    assert status == 0
    assert told == {"chunks": 3, "chunk_bytes": len("".join(TEXTS)), "damage": []}


def test_a_flipped_bit_is_found_and_named_with_its_job(kept: Kept) -> None:
    kept.file(DIGESTS[1]).write_bytes(b"twO")
    status, told, said = kept.scrub()
    assert (status, told["chunks"]) == (IntegrityError.exit_status, 2)
    assert told["code"] == "store.chunks_damaged"
    assert said == ""
    assert told["damage"] == [
        {
            "what": "damaged",
            "site": "one",
            "submitter": "alice",
            "digest": DIGESTS[1],
            "jobs": [kept.job.id],
        }
    ]


def test_a_chunk_that_is_gone_is_found(kept: Kept) -> None:
    kept.file(DIGESTS[2]).unlink()
    _, told, _ = kept.scrub()
    assert [(d["what"], d["digest"], d["jobs"]) for d in told["damage"]] == [
        ("missing", DIGESTS[2], [kept.job.id])
    ]


@pytest.mark.parametrize(
    ("lang", "damaged", "missing"),
    [
        ("en", "damaged: chunk {} of alice, for site one; needed by: {}", "missing: chunk {}"),
        (
            "ja",
            "破損: チャンク {} (依頼者 alice、拠点 one)。必要とする計算: {}",
            "なし: チャンク {}",
        ),
    ],
)
def test_people_get_a_line_of_words_for_each(
    kept: Kept, lang: str, damaged: str, missing: str
) -> None:
    """Kills: lines of a log for programs among what people read."""
    kept.file(DIGESTS[0]).write_bytes(b"")
    kept.file(DIGESTS[1]).unlink()
    done = run(["--lang", lang, "broker", "scrub", "-c", kept.config], timeout=60)
    assert done.returncode == IntegrityError.exit_status
    first, second, *figures = done.stdout.splitlines()
    assert first == damaged.format(DIGESTS[0], kept.job.id)
    assert second.startswith(missing.format(DIGESTS[1]))
    assert len(figures) == 3
    told, what_next = done.stderr.splitlines()
    assert told.startswith("error[store.chunks_damaged]: ")
    assert "{" not in what_next


def test_damage_is_named_to_whoever_has_seen_it_and_asks_again(kept: Kept) -> None:
    """Kills: damage that every reader hears of as a bad line, and nobody can mend."""
    kept.file(DIGESTS[1]).write_bytes(b"twO")
    where, asked = f"{kept.base}/chunks/fetch", pack_digests(DIGESTS[1:2])
    unseen = kept.http.post(where, content=asked)
    assert unseen.content == frame(DIGESTS[1], b"twO")
    told = kept.http.post(where, content=asked, params={"verify": "true"})
    assert (told.status_code, told.json()["code"]) == (422, "chunk.damaged")
    assert kept.http.post(where, content=asked).status_code == 404
    assert kept.missing() == bytes.fromhex(DIGESTS[1])


def test_what_is_sound_passes_the_look(kept: Kept) -> None:
    where = f"{kept.base}/chunks/fetch"
    seen = kept.http.post(where, content=pack_digests(DIGESTS), params={"verify": "true"})
    assert seen.content == b"".join(frame(c.digest, d) for c, d in CHUNKS)


def test_damage_is_not_delivered_and_is_asked_for_again(kept: Kept) -> None:
    """Kills: a damaged chunk that counts as stored, which nobody could ever mend."""
    kept.file(DIGESTS[1]).write_bytes(b"twO")
    kept.scrub()
    fetched = kept.http.post(f"{kept.base}/chunks/fetch", content=pack_digests(DIGESTS))
    assert fetched.status_code == 404
    assert kept.missing() == bytes.fromhex(DIGESTS[1])
    assert kept.send(a_submission(has_inputs=True)).status_code == 200
    assert kept.scrub()[0] == 0
    fetched = kept.http.post(f"{kept.base}/chunks/fetch", content=pack_digests(DIGESTS))
    assert fetched.content == b"".join(frame(c.digest, d) for c, d in CHUNKS)
