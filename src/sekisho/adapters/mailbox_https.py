"""Mailbox over HTTPS: an agent that only calls out.

Waiting is done on the loop, so that it can be broken off at once; transfers run in worker threads.
Nothing is retried here: the runner retries, for as long as the work is owed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec
from anyio import CapacityLimiter, to_thread

from sekisho import __version__
from sekisho.adapters.chunk_cache import ChunkCache
from sekisho.adapters.chunks_https import HttpsChunks
from sekisho.adapters.early_https import EarlyWay, HttpsEarly, Shelter
from sekisho.adapters.http_client import Address, async_sender, sender
from sekisho.adapters.http_line import HttpLine, decoded
from sekisho.adapters.http_problem import error_of
from sekisho.adapters.http_sender import Call
from sekisho.adapters.patience import Patience
from sekisho.domain.egress import Cleared
from sekisho.domain.errors import SekishoError, Unavailable
from sekisho.domain.limits import MIN_POLL_SECONDS, POLL_SECONDS
from sekisho.site.mailbox import Hold, LastWord, Step
from sekisho.site.workplace import Staged
from sekisho.transfer.earlier import Begun
from sekisho.transfer.fetch import fetch_files, fetch_index
from sekisho.transfer.port import ChunkSource
from sekisho.transfer.send import send_tree
from sekisho.transfer.tree import Tree
from sekisho.wire.envelope import TreeRef
from sekisho.wire.v1 import Accept, Done, Message, Poll, PollAnswer, Publish, Report, Verdict

T = TypeVar("T")
#: How much longer than the poll itself the answer may take.
POLL_SLACK_SECONDS: Final = 15.0
MESSAGE_SECONDS: Final = 30.0
#: So many messages are under way at once, each on a connection of its own.
_MESSAGES: Final = 8
_NO_CONTENT: Final = 204


class HttpsMailbox:
    """The lane of one agent ``instance`` to one broker. Use it as an async context."""

    def __init__(
        self,
        address: Address,
        instance: str,
        *,
        cache: ChunkCache | None = None,
        shelter: Shelter | None = None,
    ) -> None:
        self._instance = instance
        self._cache = cache
        self._sender = async_sender(address)
        self._line = HttpLine(sender(address), Patience(limit_s=0), address.max_mbit_s)
        self._longest = POLL_SECONDS
        way = EarlyWay(self._sender, self._line, cache)
        self.early = None if shelter is None else HttpsEarly(way, shelter)
        self._turns = CapacityLimiter(_MESSAGES)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._stack.push_async_callback(self._sender.aclose)
        self._stack.callback(self._line.close)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def poll(
        self,
        *,
        free: int,
        holds: Sequence[str],
        cancelling: Sequence[str],
        wait_s: float,
        coming: Sequence[str] | None = None,
    ) -> PollAnswer:
        """Poll no longer than the path has been seen to bear: a gateway's time-out halves it."""
        wait = min(wait_s, self._longest)
        message = Poll(
            instance=self._instance,
            free=free,
            wait_s=wait,
            holds=list(holds),
            cancelling=list(cancelling),
            agent_version=__version__,
            coming=None if coming is None else list(coming),
        )
        try:
            status, body = await self._post("v1/site/poll", message, wait + POLL_SLACK_SECONDS)
        except Unavailable as error:
            if error.params.get("status") in (502, 504) or error.params.get("why") == "cut":
                self._longest = max(MIN_POLL_SECONDS, wait / 2)
            raise
        if status == _NO_CONTENT:
            return PollAnswer()
        return decoded(body, PollAnswer)

    async def accept(self, hold: Hold) -> None:
        await self._say(hold, "accept", Accept(epoch=hold.epoch, instance=self._instance))

    async def list_inputs(self, hold: Hold, ref: TreeRef) -> Tree:
        return await _in_thread(lambda: fetch_index(ref, self._inputs(hold, self._chunks(hold))))

    async def fetch(self, hold: Hold, tree: Tree, directory: str, *, lasting: bool) -> None:
        chunks = self._chunks(hold)
        inputs = self._inputs(hold, chunks)

        def work() -> None:
            here, source = Path(directory), inputs
            if self.early is not None:
                source = Begun(inputs, self.early.give(hold.job, tree, here))
            fetch_files(tree, source, here, lasting=lasting)

        with _advancing(chunks):
            await _in_thread(work)

    async def send(self, hold: Hold, staged: Cleared[Staged]) -> None:
        copy = staged.value
        chunks = self._chunks(hold)
        with _advancing(chunks):
            await _in_thread(lambda: send_tree(copy.tree, copy.read, chunks))

    async def publish(self, hold: Hold, snapshot: Cleared[bytes]) -> None:
        message = Publish(epoch=hold.epoch, instance=self._instance, snapshot=snapshot.value)
        await self._say(hold, "snapshot", message)

    async def tell(self, hold: Hold, news: Cleared[tuple[Step, ...]] | Cleared[LastWord]) -> None:
        match news.value:
            case LastWord(verdict=verdict, result=result, tree=tree, steps=steps):
                last = Verdict(
                    epoch=hold.epoch,
                    instance=self._instance,
                    verdict=verdict,
                    result=result,
                    tree=tree,
                    steps=list(steps),
                )
                await self._say(hold, "verdict", last)
            case steps:
                report = Report(epoch=hold.epoch, instance=self._instance, steps=list(steps))
                await self._say(hold, "report", report)

    def _chunks(self, hold: Hold) -> HttpsChunks:
        query = {"epoch": str(hold.epoch), "instance": self._instance}
        return HttpsChunks(self._line, f"v1/site/jobs/{hold.job}/chunks", query)

    def _inputs(self, hold: Hold, line: HttpsChunks) -> ChunkSource:
        return line if self._cache is None else self._cache.over(line, hold.submitter)

    async def _say(self, hold: Hold, what: str, message: Message) -> None:
        path = f"v1/site/jobs/{hold.job}/{what}"
        async with self._turns:
            _, body = await self._post(path, message, MESSAGE_SECONDS)
        decoded(body, Done)

    async def _post(self, path: str, message: Message, read_s: float) -> tuple[int, bytes]:
        call = Call(method="POST", path=path, body=msgspec.json.encode(message), read_s=read_s)
        answer, body = await self._sender.answer(call)
        if not answer.good:
            raise error_of(answer.status, body, answer.header("retry-after"))
        return answer.status, body


@contextmanager
def _advancing(chunks: HttpsChunks) -> Iterator[None]:
    """Let an error say whether ``chunks`` got further before it."""
    try:
        yield
    except SekishoError as error:
        error.advanced = chunks.moved > 0
        raise


async def _in_thread(work: Callable[[], T]) -> T:
    return await to_thread.run_sync(work)
