"""Lane and Board to a gate: calls over a remote command's streams, few sessions for many threads.

Every call may be repeated, so every one is, in a new session, when the line broke.
"""

from __future__ import annotations

import fcntl
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import IO, Final, Protocol, TypeVar

import msgspec

from sekisho.adapters.hosts.ssh_fault import last_line
from sekisho.adapters.patience import Patience, Repeats
from sekisho.adapters.problem_error import problem_error
from sekisho.domain.errors import IntegrityError, SekishoError, Unavailable, Unreachable
from sekisho.domain.ids import check_job_id
from sekisho.domain.job import JobState
from sekisho.domain.limits import DIGEST_BYTES
from sekisho.transfer.pipeline import mapped
from sekisho.wire.frames import (
    FRAME_HEAD_BYTES,
    Chunk,
    Frame,
    FrameReader,
    Sound,
    pack_chunks,
    pack_digests,
    packed,
    unpack_digests,
)
from sekisho.wire.stdio import (
    DATA,
    END,
    MESSAGE,
    Answer,
    Call,
    Garbled,
    Packets,
    ProblemSent,
    decoded,
    encoded,
)
from sekisho.wire.v1 import (
    Done,
    Identity,
    JobPage,
    JobView,
    OpenDraft,
    SiteList,
    SiteView,
    SnapshotView,
    SubmitJob,
)

T = TypeVar("T")
Item = TypeVar("Item")
Reply = TypeVar("Reply", bound=msgspec.Struct)
_SESSIONS: Final = 6
#: While others wait for a session, nobody keeps one longer than this for a look.
_SHORT_WAIT_S: Final = 0.5
_PART_BYTES: Final = 8 << 20
#: So many parts are on their way at a time, each in a session of its own.
_AHEAD: Final = 2
_PIPE_BYTES: Final = 1 << 20


#: What is to be run over there: a gate does not hear it, and a shell does no more.
KNOCK: Final = ("echo", "sekisho: no gate")


class Session(Protocol):
    """A remote command with open streams."""

    stdin: IO[bytes]
    stdout: IO[bytes]

    def fault(self) -> SekishoError | None:
        """Return why it ended; None: by itself, well. Asked after the end of ``stdout``."""
        ...

    def close(self) -> None: ...


class GateLane:
    """One submitter's lane to one gate. ``open_session`` logs in, or raises Unavailable."""

    def __init__(self, site: str, open_session: Callable[[], Session], patience: Patience) -> None:
        self._site = site
        self._open = open_session
        self._repeats = Repeats(patience)
        self._monotonic = patience.monotonic
        self._free: list[Session] = []
        self._guard = threading.Lock()
        self._room = threading.BoundedSemaphore(_SESSIONS)
        self._queue = 0
        self._date: datetime | None = None

    def close(self) -> None:
        with self._guard:
            sessions, self._free = self._free, []
        for session in sessions:
            session.close()

    # ------------------------------------------------------------------------- Lane

    def submit(self, job: SubmitJob) -> JobView:
        body = msgspec.Raw(encoded(job))
        return self._ask(Call(verb="submit", body=body), JobView)

    def open(self, draft: OpenDraft) -> JobView:
        """As the port says, without patience: whoever submits the job has it."""
        call = Call(verb="open", body=msgspec.Raw(encoded(draft)))
        return self._ask(call, JobView, limit_s=0)

    def chunks(self, job_id: str) -> GateChunks:
        return GateChunks(self, check_job_id(job_id))

    def start(self, job_id: str) -> JobView:
        return self._ask(Call(verb="start", job=check_job_id(job_id)), JobView)

    def view(
        self,
        job_id: str,
        *,
        version: int | None = None,
        wait_s: float = 0,
        end: bool = False,
        patience_s: float | None = None,
    ) -> JobView:
        job = check_job_id(job_id)
        until = self._monotonic() + wait_s
        while True:
            left = max(0.0, until - self._monotonic())
            share = _SHORT_WAIT_S if self._queue else 25.0
            call = Call(verb="view", job=job, version=version, wait_s=min(left, share))
            view = self._ask(call, JobView, limit_s=patience_s)
            told = JobState(view.state).terminal or (view.version != version and not end)
            version = version if version is None else view.version
            if told or self._monotonic() >= until:
                return view

    def snapshot(self, job_id: str) -> SnapshotView:
        return self._ask(Call(verb="snapshot", job=check_job_id(job_id)), SnapshotView)

    def cancel(self, job_id: str) -> JobView:
        return self._ask(Call(verb="cancel", job=check_job_id(job_id)), JobView)

    def received(self, job_id: str) -> JobView:
        return self._ask(Call(verb="received", job=check_job_id(job_id)), JobView)

    # ------------------------------------------------------------------------ Board

    def jobs(self, *, after: str | None = None) -> JobPage:
        return self._ask(Call(verb="jobs", after=after), JobPage)

    def sites(self) -> SiteList:
        self.identity()
        return SiteList(sites=[SiteView(id=self._site, connected=True)])

    def identity(self) -> Identity:
        """Return whom the gate takes us for, and its clock."""
        identity = self._ask(Call(verb="identity"), Identity)
        self._date = identity.at
        return identity

    def clock(self) -> datetime | None:
        return self._date

    # ----------------------------------------------------------------- conversation

    def _ask(self, call: Call, kind: type[Reply], *, limit_s: float | None = None) -> Reply:
        def talk(packets: Packets) -> Reply:
            packets.send(MESSAGE, encoded(call))
            packets.flush()
            return _heard(packets, kind)

        return self.converse(talk, limit_s=limit_s)

    def converse(self, talk: Callable[[Packets], T], *, limit_s: float | None = None) -> T:
        """Return what one whole exchange gives; repeat it for as long as the patience lasts."""

        def once() -> T:
            with self._session() as session:
                packets = Packets(session.stdout, session.stdin)
                try:
                    return _exchanged(session, packets, talk)
                except Garbled as error:
                    raise self._foreign(packets, error) from error

        return self._repeats.until_through(once, limit_s)

    def _foreign(self, packets: Packets, error: SekishoError) -> SekishoError:
        """Return what it means that ``error`` came in place of an answer."""
        text = ""
        with suppress(OSError, ValueError):
            text = packets.printed()
        if KNOCK[-1] in text.splitlines():
            return Unavailable("gate.absent", site=self._site)
        if text:
            said = last_line(text.strip().partition("\n")[0])
            return Unavailable("gate.noisy", site=self._site, said=said)
        return error

    @contextmanager
    def _session(self) -> Iterator[Session]:
        """Give a session, and keep it for the next only when all went well."""
        with self._guard:
            self._queue += 1
        with self._room:
            with self._guard:
                self._queue -= 1
                session = self._free.pop() if self._free else None
            session = session or self._opened()
            try:
                yield session
            except _Refusal as refusal:
                if isinstance(refusal.error, Unavailable):  # whoever asks again asks a new gate
                    session.close()
                else:
                    self._keep(session)
                raise refusal.error from None
            except BaseException:
                session.close()
                raise
            self._keep(session)

    def _opened(self) -> Session:
        session = self._open()
        for stream in (session.stdin, session.stdout):
            with suppress(
                OSError, AttributeError
            ):  # not here, or enough of them: then it is slower
                fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        return session

    def _keep(self, session: Session) -> None:
        with self._guard:
            self._free.append(session)


class GateChunks:
    """ChunkPort of one job behind a gate."""

    def __init__(self, lane: GateLane, job: str) -> None:
        self._lane = lane
        self._job = job

    def missing(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        return self._lane.converse(lambda packets: self._lacking(packets, chunks))

    def _lacking(self, packets: Packets, chunks: Sequence[Chunk]) -> list[Chunk]:
        by_digest = {c.digest: c for c in chunks}
        self._call(packets, "missing", [(pack_chunks(chunks),)])
        _heard(packets, Done)
        digests = unpack_digests(b"".join(_bounded(packets, DIGEST_BYTES * len(chunks))))
        if not set(digests) <= by_digest.keys():
            raise Unreachable("broker.strange_answer", status=200)
        return [by_digest[d] for d in dict.fromkeys(digests)]

    def send(self, chunks: Iterable[tuple[Chunk, bytes]]) -> None:
        """Send chunks in parts: while one is stored there, the next is read and sent."""
        for _ in _ahead(self._put, _parts(chunks)):
            pass

    def _put(self, part: Sequence[Frame]) -> None:
        """Send a part; after a cut only what of it had not arrived."""
        tries = itertools.count()

        def talk(packets: Packets) -> None:
            owed = {frame.digest: frame for frame in part}
            if next(tries):
                lacking = self._lacking(packets, [frame.chunk for frame in owed.values()])
                owed = {chunk.digest: owed[chunk.digest] for chunk in lacking}
            self._call(packets, "put", [frame.pieces() for frame in owed.values()])
            _heard(packets, Done)

        self._lane.converse(talk)

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[Sound]:
        """Return the chunks in groups that are whole before the first of them is given."""
        for group in _ahead(self._fetch, _groups(dict.fromkeys(chunks))):
            yield from group

    def _fetch(self, chunks: Sequence[Chunk]) -> list[Sound]:
        """Return a group; what came of it before a cut is not asked for again."""
        found: dict[Chunk, Sound] = {}

        def talk(packets: Packets) -> None:
            owed = [chunk for chunk in chunks if chunk not in found]
            self._call(packets, "fetch", [(pack_digests(c.digest for c in owed),)])
            _heard(packets, Done)
            reader = FrameReader()
            most = FRAME_HEAD_BYTES * len(owed) + sum(c.size for c in owed)
            for piece in _bounded(packets, most):
                for frame in reader.split(piece):
                    sound = frame.opened()
                    found[sound[0]] = sound
            reader.end()

        self._lane.converse(talk)
        if found.keys() != set(chunks):
            raise IntegrityError("chunk.unexpected")
        return list(found.values())

    def _call(self, packets: Packets, verb: str, data: Iterable[tuple[bytes, ...]]) -> None:
        packets.send(MESSAGE, msgspec.json.encode({"verb": verb, "job": self._job}))
        for pieces in data:
            packets.send(DATA, *pieces)
        packets.send(END)
        packets.flush()


def _bounded(packets: Packets, most: int) -> Iterator[bytes]:
    """Return the data packets that answer a question; raise when they are more than it asked."""
    for piece in packets.data():
        most -= len(piece)
        if most < 0:
            raise Garbled(why="length")
        yield piece


def _parts(chunks: Iterable[tuple[Chunk, bytes]]) -> Iterator[list[Frame]]:
    """Return the frames of ``chunks`` in lists of about a part's size."""
    part: list[Frame] = []
    size = 0
    for piece in mapped(lambda item: packed(item[0].digest, item[1]), chunks):
        part.append(piece)
        size += len(piece)
        if size >= _PART_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _groups(chunks: Iterable[Chunk]) -> Iterator[list[Chunk]]:
    """Return ``chunks`` in lists of at most a part's size, or of one."""
    group: list[Chunk] = []
    size = 0
    for chunk in chunks:
        if group and size + chunk.size > _PART_BYTES:
            yield group
            group, size = [], 0
        group.append(chunk)
        size += chunk.size
    if group:
        yield group


def _ahead(call: Callable[[Item], T], items: Iterable[Item]) -> Iterator[T]:
    """Return what ``call`` gives for each of ``items``, in order, working on the next ones."""
    return mapped(call, items, threads=_AHEAD, ahead=_AHEAD + 1, settle=True)


class _Refusal(Exception):
    """The other side said no, and the session is still good."""

    def __init__(self, error: SekishoError) -> None:
        super().__init__(error.code)
        self.error = error


def _heard(packets: Packets, kind: type[Reply]) -> Reply:
    packet = packets.receive()
    if packet is None:
        raise Unreachable(why="cut")
    answer = decoded(packet[1], Answer)
    if answer.problem is not None:
        raise _Refusal(problem_error(answer.problem, answer.problem.status))
    return decoded(answer.body, kind)


def _exchanged(session: Session, packets: Packets, talk: Callable[[Packets], T]) -> T:
    """Return what ``talk`` gives; tell why the line broke, when it did."""
    try:
        return talk(packets)
    except ProblemSent as end:
        raise _Refusal(problem_error(end.problem, end.problem.status)) from end
    except (OSError, ValueError, Unreachable) as error:
        with suppress(OSError):
            if (fault := session.fault()) is not None:
                raise fault from error
        raise Unreachable(why="cut") from error
