"""Mailbox over the old MInt protocol: a new agent where an old broker cannot be changed yet.

It polls as an old agent would. The broker's text of a command is only compared with the manifest's
`mint_command`; inputs come under safe names; results go as the site's policy released them. An end
of any kind is told in the order that the broker knows: complete, start, end, results, end of send.
A deleted calculation is noticed at the next poll, since the broker then knows it no more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import anyio
import structlog
from anyio import to_thread

from sekisho.adapters.mint_line import Entry, MintLine
from sekisho.adapters.mint_shelf import Kept, MintShelf
from sekisho.domain.clock import Clock
from sekisho.domain.egress import Cleared
from sekisho.domain.errors import (
    IntegrityError,
    NotFound,
    SekishoError,
    TooLarge,
    Unavailable,
    UsageError,
)
from sekisho.i18n.catalogue import sentence
from sekisho.site.mailbox import Hold, LastWord, Step
from sekisho.site.workplace import Staged
from sekisho.transfer.fetch import fetch_files
from sekisho.transfer.spooled import SpooledTree
from sekisho.transfer.tree import Tree, TreeFile
from sekisho.wire.envelope import MintRequest, TreeRef, open_outcome, seal
from sekisho.wire.mint import (
    ABNORMAL,
    CALC_END,
    COMPLETE_SEND,
    END_SEND,
    ERROR,
    GETTING_RETURN,
    GOT_RETURN,
    LOG_NAMES,
    PROGRESS,
    RUNNING,
    SENDING_PARAMS,
    AddCalcInfo,
    CalcInfo,
    accept_id_of,
    input_name,
    job_id_of,
    kind_of,
    result_name,
)
from sekisho.wire.mint_body import Content, Lifted, Weaver
from sekisho.wire.v1 import Offer, PollAnswer

#: How often an old agent asks.
POLL_SECONDS: Final = 30.0
_EPOCH: Final = 1
_LANGUAGE: Final = "ja"
#: The calls in their order, each with the progress that it brings.
_STEPS: Final = (
    ("calc-params-complete", COMPLETE_SEND),
    ("calc-start", RUNNING),
    ("calc-end", CALC_END),
    ("send-results", GETTING_RETURN),
    ("end-send", GOT_RETURN),
)
log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class MintPlace:
    """Whom this agent is to an old broker. ``submitter``: in whose name all of its jobs come."""

    site: str
    submitter: str
    interval_s: float = POLL_SECONDS


class MintMailbox:
    """The lane of one agent to one old broker. Use it as an async context."""

    def __init__(
        self,
        line: MintLine,
        place: MintPlace,
        shelf: MintShelf,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._line = line
        self._place = place
        self._shelf = shelf
        self._clock = clock
        self._sleep = sleep
        self._due = clock.monotonic()
        self._staged: dict[str, Staged] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._line.close()

    async def poll(
        self,
        *,
        free: int,
        holds: Sequence[str],
        cancelling: Sequence[str],
        wait_s: float,
        coming: Sequence[str] | None = None,  # noqa: ARG002 (there are no drafts here)
    ) -> PollAnswer:
        """Ask when it is time to; else wait for that, but no longer than ``wait_s``.

        After a question that failed it is time at once: how soon is the agent's own matter.
        """
        now = self._clock.monotonic()
        if now < self._due:
            await self._sleep(min(wait_s, self._due - now))
            return PollAnswer()
        offers = await to_thread.run_sync(self._offers, free, frozenset(holds))
        asked = [job for job in holds if job not in cancelling]
        deleted = await to_thread.run_sync(self._deleted, asked)
        self._due = now + self._place.interval_s
        return PollAnswer(offers=offers, cancel=deleted)

    async def accept(self, hold: Hold) -> None:
        await to_thread.run_sync(self._climb, hold.job, 1)

    async def list_inputs(self, hold: Hold, ref: TreeRef) -> Tree:
        def listed() -> Tree:
            with self._shelf.tree(self._kept(hold.job)) as inputs:
                if inputs.tree.digest != ref.digest:
                    raise IntegrityError("tree.digest")
                return inputs.tree

        return await to_thread.run_sync(listed)

    async def fetch(self, hold: Hold, tree: Tree, directory: str, *, lasting: bool) -> None:
        def fetched() -> None:
            with self._shelf.tree(self._kept(hold.job)) as inputs:
                fetch_files(tree, inputs, Path(directory), lasting=lasting)

        await to_thread.run_sync(fetched)

    async def send(self, hold: Hold, staged: Cleared[Staged]) -> None:
        """Keep the copy at hand: the broker wants to hear first how the command ended."""
        self._staged[hold.job] = staged.value

    async def publish(self, hold: Hold, snapshot: Cleared[bytes]) -> None:
        """Show nothing: the old protocol has no place for it."""

    async def tell(self, hold: Hold, news: Cleared[tuple[Step, ...]] | Cleared[LastWord]) -> None:
        match news.value:
            case LastWord() as last:
                await to_thread.run_sync(self._close, hold.job, last)
            case steps:
                if "started" in steps:
                    await to_thread.run_sync(self._climb, hold.job, 2)

    # --- getting jobs ------------------------------------------------------------------------

    def _offers(self, free: int, holds: frozenset[str]) -> list[Offer]:
        offers = [_offer(k, self._place) for k in self._shelf.jobs() if k.job not in holds][:free]
        for job in self._shelf.begun():
            if kept := self._taken(job, again=True):
                offers.append(_offer(kept, self._place))
        while len(offers) < free:
            entry = self._line.ask("calc-request", site_id=self._place.site)
            asked = _job(entry.accept_id) if entry.ok else None
            kept = None if asked is None or asked in holds else self._taken(asked)
            if kept is None:
                break
            offers.append(_offer(kept, self._place))
        return offers

    def _taken(self, job: str, *, again: bool = False) -> Kept | None:
        """Take a calculation over: from here on it is nobody else's, and safe on our disk.

        What is ``begun`` on the shelf was asked for before. If the broker gives it no more, then
        the answer that held it was cut: nobody has it, so that it can only be refused.
        """
        accept_id = accept_id_of(job)
        with self._shelf.spool(job) as spool:
            query = {"site_id": self._place.site, "accept_id": accept_id}
            try:
                body = self._line.lifted("calc-params", spool, **query)
                info = body.decoded(AddCalcInfo).calc_info
                if info is not None:
                    kept = _described(job, accept_id, info, body)
                elif again and self._progress(accept_id) == SENDING_PARAMS:
                    log.warning("calculation_cut", job=job)
                    kept = _unreadable(job, accept_id)
                else:
                    kept = None
            except (UsageError, TooLarge) as error:
                log.warning("calculation_unreadable", job=job, code=error.code)
                kept = _unreadable(job, accept_id)
        if kept is None:
            self._shelf.forget(job)
            return None
        return self._shelf.keep(kept)

    def _deleted(self, jobs: Sequence[str]) -> list[str]:
        return [job for job in jobs if self._progress(accept_id_of(job)) is None]

    def _progress(self, accept_id: str) -> str | None:
        """Return how far the broker thinks a calculation is; None: it does not know it."""
        entry = self._line.ask("calc-progress", accept_id=accept_id)
        return entry.word if entry.ok else None

    # --- telling -----------------------------------------------------------------------------

    def _kept(self, job: str) -> Kept:
        kept = self._shelf.get(job)
        if kept is None:
            raise NotFound("job.not_found", job=job)
        return kept

    def _climb(self, job: str, steps: int, last: LastWord | None = None) -> None:
        """Make the broker hear the first ``steps`` calls, each once, in their order."""
        kept = self._kept(job)
        for call, reached in _STEPS[:steps]:
            if call not in kept.told:
                entry = self._call(kept, call, last)
                if not entry.ok:
                    self._check_reached(kept, reached, call)
                kept = self._shelf.told(kept, call)

    def _check_reached(self, kept: Kept, reached: str, call: str) -> None:
        """Return if the broker is that far already: only its answer was lost."""
        progress = self._progress(kept.accept_id)
        if progress is None:
            self._shelf.forget(kept.job)
            raise NotFound("job.not_found", job=kept.job)
        if progress not in PROGRESS or PROGRESS.index(progress) < PROGRESS.index(reached):
            raise Unavailable("mint.refused", call=call)

    def _call(self, kept: Kept, call: str, last: LastWord | None) -> Entry:
        message = {"accept_id": kept.accept_id, "site_id": self._place.site}
        ok = last is not None and last.verdict == "succeeded"
        if call == "send-results" and last is not None:
            weaver = Weaver()
            files = dict(self._results(kept, last, weaver))
            return self._line.send(call, *weaver.weave({**message, "result_files": files}))
        if call == "calc-end":
            message["result"] = CALC_END if ok else ABNORMAL
        if call == "end-send":
            message["result"] = END_SEND
        return self._line.say(call, message)

    def _results(
        self, kept: Kept, last: LastWord, weaver: Weaver
    ) -> Iterator[tuple[str, dict[str, str]]]:
        staged, outcome = self._staged.get(kept.job), open_outcome(last.result)
        there = {str(f.path): f for f in staged.tree.files} if staged and last.tree else {}
        for name in (*kept.results, *LOG_NAMES):
            if staged is not None and name in there:
                content = _content(staged, there[name])
                yield name, _result(weaver.hole(content), *kind_of(content))
            else:
                params = {"output": name, **outcome.params}
                why = sentence(outcome.code or "output.missing", params, _LANGUAGE).what
                yield name, _result("", ERROR, why)

    def _close(self, job: str, last: LastWord) -> None:
        """Tell the end. A job that is not kept any more was told before."""
        if self._shelf.get(job) is None:
            return
        try:
            self._climb(job, len(_STEPS), last)
        except NotFound:
            log.warning("calculation_deleted", job=job)
        self._shelf.forget(job)
        self._staged.pop(job, None)


def _job(accept_id: str) -> str | None:
    """Return the job of an accept id; None for what is none."""
    try:
        return job_id_of(accept_id) if accept_id else None
    except UsageError:
        log.warning("accept_id_invalid")
        return None


def _described(job: str, accept_id: str, info: CalcInfo, body: Lifted) -> Kept:
    """Return what is to be remembered. Names that are not safe are left out and then missing."""
    inputs = {}
    for name, file in info.parameter_files.items():
        try:
            path = input_name(name)
        except UsageError:
            log.warning("input_name_unsafe", job=job)
            continue
        inputs[path] = body.content(file[0] if file else "")
    results = [name for name in info.result_files if name not in LOG_NAMES and _safe(name)]
    tree = SpooledTree(body.spool, inputs).tree
    request = MintRequest(
        mint_command=info.command,
        mint_parameters=info.parameters,
        inputs=tree.ref() if tree.files else None,
        outputs=results,
    )
    return Kept(
        job=job,
        accept_id=accept_id,
        request=seal(request),
        inputs={str(path): (piece.offset, piece.size) for path, piece in inputs.items()},
        results=results,
    )


def _unreadable(job: str, accept_id: str) -> Kept:
    """Return a calculation whose answer was no answer: it is refused, and that is told."""
    return Kept(job=job, accept_id=accept_id, request=seal(MintRequest(mint_command="")))


def _safe(name: str) -> bool:
    try:
        result_name(name)
    except SekishoError:
        return False
    return True


def _offer(kept: Kept, place: MintPlace) -> Offer:
    return Offer(
        job=kept.job,
        epoch=_EPOCH,
        submitter=place.submitter,
        request=kept.request,
        accept_s=place.interval_s,
    )


def _content(staged: Staged, file: TreeFile) -> Content:
    return Content(file.size, lambda: file.content(staged.read))


def _result(content: str, first: str, second: str) -> dict[str, str]:
    return {"content": content, "mimetype1": first, "mimetype2": second}
