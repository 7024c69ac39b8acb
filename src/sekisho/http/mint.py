"""The forms of the old MInt paths: refusals, answers, files in answers.

Success, too, is told as an entry of `errors`. The paths are there only while the settings say so;
what they do is in `http.mint_calls`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from sekisho.broker.mint import Files
from sekisho.domain.access import Principal, Scope
from sekisho.domain.errors import NotFound, SekishoError, SyncFailed, Unauthenticated
from sekisho.http.mint_calls import Answer, MintCall, MintCalls, MintRow, Side
from sekisho.http.problem import HEADERS, plain_problem
from sekisho.i18n.catalogue import sentence, text
from sekisho.wire.mint import LOG_NAMES, Reply
from sekisho.wire.mint_body import Weaver

#: Old programs show what they are told as it is.
LANGUAGE: Final = "ja"
_JSON: Final = "application/json; charset=utf-8"
_HUNG_UP: Final = 499
_NO_RIGHT: Final = "0005"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class MintEndpoint:
    """The ASGI application of one old path."""

    row: MintRow
    calls: MintCalls

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = await self._answer(request)
        if self._open:
            status = str(response.status_code)
            self.calls.desk.meter.add("mint_calls", call=self.row.name, status=status)
        await response(scope, receive, send)

    @property
    def _open(self) -> bool:
        return self.calls.desk.policy.value.mint.enabled

    async def _answer(self, request: Request) -> Response:
        if not self._open:
            return plain_problem(404, "http.path")
        if request.method != self.row.method:
            return plain_problem(405, "http.method", {"Allow": self.row.method})
        try:
            return await self._run(request)
        except SekishoError as error:
            if isinstance(error, SyncFailed):
                self.calls.context.fatal(error)
            return _failed(error)
        except ClientDisconnect:
            return Response(status_code=_HUNG_UP)
        except Exception:  # the boundary: whatever went wrong, the caller learns nothing of it
            log.exception("request_failed", route=self.row.route)
            return _replied(Reply("internal", 500, 500))

    async def _run(self, request: Request) -> Response:
        try:
            caller = await self.calls.context.gate.identify(request)
        except Unauthenticated:
            return _no_right(self.row)
        if not _may(caller, self.row.side):
            return _no_right(self.row)
        return self._encoded(await self.row.run(MintCall(request, caller)), caller)

    def _encoded(self, answer: Answer, caller: Principal) -> Response:
        if isinstance(answer, Reply):
            return _replied(answer)
        if isinstance(answer, dict):
            return _json(answer, 200)
        weaver = Weaver()
        size, body = weaver.weave(_document(answer, weaver))
        if answer.info is None:
            body = self._received(body, caller.name, answer.accept_id)
        headers = {**HEADERS, "Content-Length": str(size)}
        return StreamingResponse(body, headers=headers, media_type=_JSON)

    def _received(self, body: Iterator[bytes], user: str, accept_id: str) -> Iterator[bytes]:
        yield from body
        self.calls.desk.mint_orders.received(user, accept_id)


def _may(caller: Principal, side: Side) -> bool:
    submits, works = Scope.JOB_SUBMIT in caller.scopes, Scope.SITE_WORK in caller.scopes
    return submits or (works and side is not Side.WORKFLOW)


def _document(answer: Files, weaver: Weaver) -> dict[str, Any]:
    if (info := answer.info) is None:
        return {"errors": [_entry(Reply("result"))], "result-info": _results(answer, weaver)}
    nothing = {"content": "", "mimetype1": "", "mimetype2": ""}
    return {
        "calc-info": {
            "command": info.command,
            "remote-site": answer.site,
            "parameters": info.parameters,
            "parameter_files": {
                name: [weaver.hole(content) if content else "", first, second]
                for name, (content, first, second) in answer.files.items()
            },
            "result_files": dict.fromkeys((*info.results, *LOG_NAMES), nothing),
        }
    }


def _results(answer: Files, weaver: Weaver) -> dict[str, Any]:
    code = answer.code or "output.missing"
    files = {}
    for name, (content, first, second) in answer.files.items():
        files[name] = {
            "content": weaver.hole(content) if content else "",
            "mimetype1": first,
            "mimetype2": second if content or second else _why(code, name, answer),
        }
    return {"result_files": files}


def _why(code: str, name: str, answer: Files) -> str:
    return sentence(code, {"output": name, **answer.params}, LANGUAGE).what


def _entry(reply: Reply) -> dict[str, Any]:
    message = text("mint", reply.key, LANGUAGE, **reply.params)
    return {"code": reply.code, "message": message, **reply.beside}


def _replied(reply: Reply) -> Response:
    return _json({"errors": [_entry(reply)]}, reply.status)


def _no_right(row: MintRow) -> Response:
    message = text("mint", "no_right", LANGUAGE, path=row.path)
    return _json({"errors": [{"code": _NO_RIGHT, "message": message}]}, 403)


def _failed(error: SekishoError) -> Response:
    message = sentence(error.code, error.params, LANGUAGE).what
    entry = {"code": error.http_status, "message": message, "reason": error.code}
    status = 400 if isinstance(error, NotFound) else error.http_status
    return _json({"errors": [entry]}, status)


def _json(document: Any, status: int) -> Response:
    return Response(msgspec.json.encode(document), status, HEADERS, media_type=_JSON)
