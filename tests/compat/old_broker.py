"""An old broker of the tests' own: what the description says, kept in memory, claims only late."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from tests.integration.http_process import Certificates

TOKEN: Final = "an-old-token-0123"
_ASKED: Final = ("calc-status", "calc-progress", "get-calc-result")
#: What each call needs and brings.
_STEPS: Final = {
    "calc-params-complete": ("sending params", "complete send"),
    "calc-start": ("complete send", "running"),
    "calc-end": ("running", "calc end"),
    "send-results": ("calc end", "getting return"),
    "end-send": ("getting return", "got return"),
}


@dataclass
class OldBroker:
    """Its calculations by accept id. ``cut`` names calls whose next answer gets lost."""

    calcs: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    quicker: list[str] = field(default_factory=list)  #: another agent takes these before us
    sites: set[str] = field(default_factory=set)  #: under which names agents asked
    refused: list[str] = field(default_factory=list)  #: calls that get code 400
    inside: bool = False  #: results stand within the one entry of `errors`, not beside it
    url: str = ""

    def add(self, info: dict[str, Any]) -> str:
        accept_id = str(uuid4())
        self.calcs[accept_id] = {"info": info, "progress": "not start", "status": "none"}
        return accept_id

    def answer(self, call: str, given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.calls.append(call)
        if call in self.refused:
            return 400, _entry(400, message="no")
        if call == "calc-request":
            self.sites.add(str(given["site_id"]))
            accept_id = next((i for i, calc in self.calcs.items() if _waits(calc)), None)
            return 200, _entry("0300") if accept_id is None else _entry(200, accept_id=accept_id)
        if call == "add-calcinfo":
            accept_id = self.add(given["calc-info"])
            self.calcs[accept_id]["registered"] = True
            return 200, _entry(200, accept_id=accept_id)
        return self._of_one(call, str(given.get("accept_id")), given)

    def _of_one(
        self, call: str, accept_id: str, given: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        calc = self.calcs.get(accept_id)
        if calc is None:
            return (200 if call in _ASKED else 400), _entry(400, message="unknown")
        if call in _ASKED:
            return 200, self._told(call, accept_id, calc)
        if call == "cancel-wait-calc":
            del self.calcs[accept_id]
            return 200, _entry(200)
        if call == "calc-params" and accept_id in self.quicker:
            calc["progress"] = "sending params"
        return 200, _params(calc) if call == "calc-params" else _step(calc, call, given)

    def _told(self, call: str, accept_id: str, calc: dict[str, Any]) -> dict[str, Any]:
        """Answer a question of the workflow's side; results are forgotten with their answer."""
        if call != "get-calc-result":
            return _entry(200, message=f"status:{calc[call.removeprefix('calc-')]}")
        if calc["progress"] != "got return":
            return _entry(400, message="not yet")
        del self.calcs[accept_id]
        found = {"result-info": {"result_files": calc["result_files"]}}
        entry = _entry(200)
        return {"errors": [entry["errors"][0] | found]} if self.inside else entry | found


def _waits(calc: dict[str, Any]) -> bool:
    return calc["progress"] == "not start" and not calc.get("registered")


def _params(calc: dict[str, Any]) -> dict[str, Any]:
    if calc["progress"] != "not start":
        return _entry(200, message="already")
    calc["progress"] = "sending params"
    return {"calc-info": calc["info"]}


def _step(calc: dict[str, Any], call: str, given: dict[str, Any]) -> dict[str, Any]:
    if call == "allow-wait-calc":
        return _entry(200 if calc.pop("registered", False) else 401)
    before, after = _STEPS[call]
    if calc["progress"] != before:
        return _entry(400, message="wrong order")
    calc["progress"] = after
    calc |= {name: given[name] for name in ("result", "result_files") if name in given}
    if call == "calc-end":
        calc["status"] = "completed" if given["result"] == "calc end" else "abnormal"
    return _entry(200)


def _entry(code: int | str, **more: str) -> dict[str, Any]:
    return {"errors": [{"code": code, "message": "", **more}]}


@contextmanager
def old_broker(shown: Certificates | None = None) -> Iterator[OldBroker]:
    """Run an old broker until the end of the block, behind TLS if it has a certificate to show."""
    broker = OldBroker()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            query = {n: v[0] for n, v in parse_qs(urlsplit(self.path).query).items()}
            self._answer(query)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(json.loads(body or b"{}"))

        def _answer(self, given: dict[str, Any]) -> None:
            call = urlsplit(self.path).path.removeprefix("/mi-distcomp-api/")
            status, document = 403, _entry("0005")
            if self.headers["Authorization"] == f"Bearer {TOKEN}":
                status, document = broker.answer(call, given)
            if call in broker.cut:
                broker.cut.remove(call)
                self.close_connection = True
                return
            body = json.dumps(document, ensure_ascii=False).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if shown is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(shown.cert, shown.key)
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    scheme = "http" if shown is None else "https"
    broker.url = f"{scheme}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield broker
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
