"""A client written from docs/en/transfer.md alone exchanges files with ours over a real broker."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx2
import msgspec
import pytest

from sekisho.adapters.chunks_https import HttpsChunks
from sekisho.adapters.http_client import Address, sender
from sekisho.adapters.http_line import HttpLine
from sekisho.adapters.patience import Patience
from sekisho.domain.token import Secret
from sekisho.transfer.fetch import fetch_tree
from sekisho.transfer.send import send_tree
from sekisho.transfer.source import LocalTree, scan
from sekisho.wire.envelope import TreeRef
from tests.component.broker_world import a_submission
from tests.integration.http_process import broker_process, certificates, sekisho

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FILES = {
    "a.txt": b"twelve bytes",
    "dir/deck.inp": b"node 1 2.0\n" * 90_000,
    "dir/n": os.urandom(5),
    "dir/sparse": b"head" + bytes(2 << 20),
}
Known = dict[str, bytes]


class OtherClient:
    """Knows digests, words and lists; nothing of ours but the paths."""

    def __init__(self, http: httpx2.Client, base: str) -> None:
        self.http = http
        self.base = base

    def post(self, method: str, below: str, body: bytes) -> bytes:
        answer = self.http.request(method, self.base + below, content=body)
        assert answer.status_code == 200, answer.text
        return answer.content

    def send(self, contents: list[bytes]) -> None:
        by_digest = {hashlib.sha256(data).digest(): data for data in contents}
        asked = b"".join(digest + struct.pack(">I", len(d)) for digest, d in by_digest.items())
        missing = self.post("POST", "/missing", asked)
        wanted = [by_digest[missing[n : n + 32]] for n in range(0, len(missing), 32)]
        for data in wanted:
            frame = hashlib.sha256(data).digest() + struct.pack(">I", len(data)) + data
            self.post("PUT", "", frame)

    def fetch(self, chunks: list[tuple[str, int]]) -> Known:
        body = self.post("POST", "/fetch", b"".join(bytes.fromhex(d) for d, _ in chunks))
        return dict(self.contents(body))

    @staticmethod
    def contents(body: bytes) -> Iterator[tuple[str, bytes]]:
        while body:
            digest, (word,) = body[:32], struct.unpack(">I", body[32:36])
            length = word & 0x7FFFFFFF
            payload, body = body[36 : 36 + length], body[36 + length :]
            data = zstd.decompress(payload) if word >> 31 else payload
            assert hashlib.sha256(data).digest() == digest
            yield digest.hex(), data


def a_list(files: dict[str, bytes], step: int) -> bytes:
    text = b"sekisho-tree/2\n"
    for name in sorted(files, key=lambda n: n.split("/")):
        data = files[name]
        pieces = [data[n : n + step] for n in range(0, len(data), step)]
        chunks = [[hashlib.sha256(piece).hexdigest(), len(piece)] for piece in pieces]
        line = json.dumps([name, False, len(data), 0, chunks], separators=(",", ":"))
        text += line.encode() + b"\n"
    return text


@dataclass(frozen=True, slots=True)
class Line:
    """How the other client and we reach the same chunks."""

    theirs: httpx2.Client
    ours: HttpLine
    base: str


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """Give two lines to a broker, and the path of a draft's chunks there."""
    tls, home = certificates(tmp_path), tmp_path / "broker"
    sekisho("broker", "init", home, "--port", "0", "--tls-cert", tls.cert, "--tls-key", tls.key)
    config = home / "broker.toml"
    sekisho("broker", "site", "add", "one", "--user", "alice", "-c", config)
    who = ("--role", "submitter", "--user", "alice")
    token = sekisho("broker", "token", "create", *who, "--show", "-c", config)
    with broker_process(config) as running:
        url = f"https://127.0.0.1:{running.port}/"
        headers = {"Authorization": f"Bearer {token}"}
        with httpx2.Client(base_url=url, verify=tls.trust, headers=headers, timeout=40) as http:
            draft = a_submission(has_inputs=True)
            assert http.post("v1/jobs", content=msgspec.json.encode(draft)).status_code == 201
            address = Address(url=url, token=Secret(token), ca_file=tls.ca)
            with closing(HttpLine(sender(address), Patience(limit_s=0))) as mine:
                yield Line(http, mine, f"v1/jobs/{draft.id}/chunks")


def test_what_another_client_sends_we_read(line: Line, tmp_path: Path) -> None:
    text = a_list(FILES, step=100_001)
    pieces = [d[n : n + 100_001] for d in FILES.values() for n in range(0, len(d), 100_001)]
    OtherClient(line.theirs, line.base).send([*pieces, text])
    digest = hashlib.sha256(text).hexdigest()
    size = sum(map(len, FILES.values()))
    named = {"digest": digest, "files": len(FILES), "size": size, "index": [[digest, len(text)]]}
    fetch_tree(msgspec.convert(named, TreeRef), HttpsChunks(line.ours, line.base), tmp_path / "out")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in FILES} == FILES


def test_what_we_send_another_client_reads(line: Line, tmp_path: Path) -> None:
    for name, data in FILES.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    local = LocalTree(scan([("", tmp_path / "in")]))
    ref = msgspec.to_builtins(send_tree(local.tree, local.read, HttpsChunks(line.ours, line.base)))
    other = OtherClient(line.theirs, line.base)
    held = other.fetch(ref["index"])
    text = b"".join(held[digest] for digest, _ in ref["index"])
    assert hashlib.sha256(text).hexdigest() == ref["digest"]
    first, *rows = text.decode().splitlines()
    assert first == "sekisho-tree/2"
    for name, executable, size, offset, chunks in map(json.loads, rows):
        held = other.fetch([chunk for chunk in chunks if chunk[0]])
        data = b"".join(held[digest] if digest else bytes(size) for digest, size in chunks)
        data = data[offset : offset + size]
        assert (data, executable, len(data)) == (FILES[name], False, size)
    assert len(rows) == len(FILES)


class Page:
    """The calls of a draft as the page tells them."""

    def __init__(self, http: httpx2.Client) -> None:
        self.http = http
        letters = "0123456789abcdefghjkmnpqrstvwxyz"
        self.id = "job_0" + "".join(letters[byte % 32] for byte in os.urandom(25))

    def said(self, path: str, **body: object) -> tuple[int, str]:
        """Return the status, with the job's state or the code of the error."""
        answer = self.http.post(path, json=body) if body else self.http.post(path)
        told = answer.json()
        return answer.status_code, told["state"] if answer.is_success else told["code"]

    def open(self, site: str = "one") -> tuple[int, str]:
        return self.said("v1/drafts", id=self.id, site=site)

    def describe(self, request: object) -> tuple[int, str]:
        sealed = base64.b64encode(json.dumps(request).encode()).decode()
        return self.said("v1/jobs", id=self.id, site="one", request=sealed, has_inputs=True)

    def start(self) -> tuple[int, str]:
        return self.said(f"v1/jobs/{self.id}/start")


def test_another_client_sends_inputs_before_it_says_what_they_are_for(line: Line) -> None:
    """Kills: a page from which nobody could write what our own client does."""
    page = Page(line.theirs)
    other = OtherClient(line.theirs, f"v1/jobs/{page.id}/chunks")
    assert page.open("two") == (404, "site.not_found")
    assert [page.open(), page.open()] == [(201, "draft"), (200, "draft")]
    other.send([FILES["a.txt"], FILES["dir/n"]])
    assert page.start() == (409, "job.not_described")
    text = a_list(FILES, step=960 << 10)
    digest, size = hashlib.sha256(text).hexdigest(), sum(map(len, FILES.values()))
    named = {"digest": digest, "files": len(FILES), "size": size, "index": [[digest, len(text)]]}
    request = {"type": "request/1", "command": "solve", "inputs": named}
    assert [page.describe(request), page.describe(request)] == [(200, "draft")] * 2
    assert page.describe({**request, "command": "other"}) == (409, "job.different_request")
    late = hashlib.sha256(text).digest() + struct.pack(">I", len(text))
    assert other.post("POST", "/missing", late) == hashlib.sha256(text).digest()
    assert page.start() == (409, "job.inputs_missing")
    step = 960 << 10
    other.send([text, *(d[n : n + step] for d in FILES.values() for n in range(0, len(d), step))])
    assert [page.start(), page.start()] == [(200, "queued")] * 2
    assert page.describe(request) == (200, "queued")
