"""Small programs of the tests' own that speak the old MInt protocol, as its description says."""

from __future__ import annotations

import base64
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from tests.integration.http_process import BrokerProcess, broker_process, sekisho

STDOUT, STDERR = "計算標準出力.txt", "計算標準エラー出力.txt"
LISTED = "/opt/solver/bin/solve"
SETTINGS = f"""
[quota]
free_floor_bytes = 0
[mint]
enabled = true
[mint.site.old-site]
unguarded = true
[mint.site.old-site.commands]
solve = "{LISTED}"
[mint.site.new-site]
"""


@dataclass(slots=True)
class House:
    """A broker of the tests with two sites: one of an old agent, one of a new."""

    place: Path
    config: Path
    broker: BrokerProcess = field(init=False)
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.broker.port}"

    def token(self, user: str) -> str:
        if user not in self.tokens:
            words = ("token", "create", "--role", "submitter", "--user", user, "--show")
            self.tokens[user] = sekisho("broker", *words, "--config", self.config)
        return self.tokens[user]

    def line(self, user: str = "tanaka", path: str = "/mi-distcomp-api/") -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self.token(user)}"}
        return httpx2.Client(base_url=self.url + path, headers=headers, timeout=30)

    @contextmanager
    def serving(self) -> Iterator[House]:
        with broker_process(self.config) as self.broker:
            self.broker.event("broker_ready")
            yield self


def a_house(place: Path, settings: str = SETTINGS) -> House:
    """Set a broker up in ``place``; the invitation of the new site is in ``place``/invitation."""
    sekisho("broker", "init", place / "broker", "--port", str(_free_port()))
    config = place / "broker" / "broker.toml"
    text = config.read_text().partition("[quota]")[0]
    config.write_text(text + settings)
    users = ("--user", "tanaka", "--user", "suzuki")
    sekisho("broker", "site", "add", "old-site", *users, "--config", config)
    invitation = sekisho("broker", "site", "add", "new-site", *users, "--config", config)
    (place / "invitation").write_text(invitation + "\n")
    (place / "invitation").chmod(0o600)
    return House(place, config)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def first(response: httpx2.Response) -> dict[str, Any]:
    """Return the one entry of an answer in the old form."""
    (entry,) = response.json()["errors"]
    return dict(entry)


def said(response: httpx2.Response) -> tuple[int, Any]:
    """Return HTTP status and old code of an answer."""
    return response.status_code, first(response)["code"]


def a_calc(
    *, site: str = "old-site", command: str = LISTED, files: Any = None, results: Any = ()
) -> dict[str, Any]:
    """Return what a workflow client registers."""
    given = {n: base64.b64encode(d).decode() for n, d in (files or {"in.txt": b"1"}).items()}
    empty = {"content": "", "mimetype1": "", "mimetype2": ""}
    return {
        "calc-info": {
            "command": command,
            "remote-site": site,
            "parameters": "",
            "parameter_files": {n: [t, "text/plain;", "charset=utf-8"] for n, t in given.items()},
            "result_files": {n: dict(empty) for n in (*results, STDOUT, STDERR)},
        }
    }


@dataclass(slots=True)
class OldWorkflow:
    """An old workflow client."""

    line: httpx2.Client

    def add(self, **what: Any) -> str:
        answer = self.line.post("add-calcinfo", json=a_calc(**what))
        assert said(answer) == (200, 200), answer.text
        return str(first(answer)["accept_id"])

    def allow(self, accept_id: str) -> httpx2.Response:
        return self.line.post("allow-wait-calc", json={"accept_id": accept_id})

    def cancel(self, accept_id: str, **more: str) -> httpx2.Response:
        return self.line.post("cancel-wait-calc", json={"accept_id": accept_id, **more})

    def word(self, what: str, accept_id: str) -> str:
        answer = self.line.get(what, params={"accept_id": accept_id})
        assert said(answer) == (200, 200), answer.text
        return str(first(answer)["message"]).split(":")[1]

    def status(self, accept_id: str) -> str:
        return self.word("calc-status", accept_id)

    def progress(self, accept_id: str) -> str:
        return self.word("calc-progress", accept_id)

    def result(self, accept_id: str) -> dict[str, Any]:
        answer = self.line.get("get-calc-result", params={"accept_id": accept_id})
        assert said(answer) == (200, 200), answer.text
        return dict(answer.json()["result-info"]["result_files"])

    def ready(self, **what: Any) -> str:
        accept_id = self.add(**what)
        assert said(self.allow(accept_id)) == (200, 200)
        return accept_id

    def known(self, accept_id: str) -> bool:
        answer = self.line.get("calc-status", params={"accept_id": accept_id})
        return said(answer) == (200, 200)


def text_of(file: dict[str, str]) -> str:
    return base64.b64decode(file["content"]).decode()


@dataclass(slots=True)
class OldAgent:
    """An old agent: runs whatever text arrives, in a directory of its own, one job at a time."""

    line: httpx2.Client
    base: Path
    site: str = "old-site"
    runs: list[str] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)
    between: Callable[[], None] = lambda: None  #: called before each step

    def ask(self) -> str | None:
        answer = self.line.get("calc-request", params={"site_id": self.site})
        return first(answer).get("accept_id") if answer.status_code < 400 else None

    def params(self, accept_id: str) -> httpx2.Response:
        query = {"site_id": self.site, "accept_id": accept_id}
        return self.line.get("calc-params", params=query)

    def tell(self, call: str, accept_id: str, **more: Any) -> httpx2.Response:
        self.between()
        body = {"accept_id": accept_id, "site_id": self.site, **more}
        return self.line.post(call, json=body)

    def step(self, call: str, accept_id: str, **more: Any) -> None:
        answer = self.tell(call, accept_id, **more)
        assert said(answer) == (200, 200), (call, answer.text)

    def work(self, program: str) -> bool:
        """Serve one job, with ``program`` standing in for what the operator's list names."""
        accept_id = self.ask()
        if accept_id is None:
            return False
        self.between()
        info = self.params(accept_id).json()["calc-info"]
        self.step("calc-params-complete", accept_id)
        self.step("calc-start", accept_id)
        ok, results = self._run(accept_id, info, program)
        self.step("calc-end", accept_id, result="calc end" if ok else "abnormal")
        self.step("send-results", accept_id, result_files=results)
        self.step("end-send", accept_id, result="end send")
        return True

    def _run(
        self, accept_id: str, info: dict[str, Any], program: str
    ) -> tuple[bool, dict[str, Any]]:
        self.runs.append(info["command"])
        self.parameters.append(info["parameters"])
        place = self.base / accept_id
        place.mkdir(parents=True)
        for name, (content, _, _) in info["parameter_files"].items():
            (place / Path(name).name).write_bytes(base64.b64decode(content))
        done = subprocess.run(
            ["/bin/sh", "-c", program],
            cwd=place,
            capture_output=True,
            check=False,
            timeout=60,
            env={"CALC_DIR": str(place), "PATH": "/usr/bin:/bin"},
        )
        (place / STDOUT).write_bytes(done.stdout)
        (place / STDERR).write_bytes(done.stderr)
        return done.returncode == 0, {name: _sent(place / name) for name in info["result_files"]}


def _sent(file: Path) -> dict[str, str]:
    if not file.exists():
        return {"content": "", "mimetype1": "Error", "mimetype2": f"{file.name} がありません。"}
    content = base64.b64encode(file.read_bytes()).decode()
    return {"content": content, "mimetype1": "text/plain;", "mimetype2": "charset=utf-8"}
