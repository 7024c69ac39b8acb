"""Packets and the gate's side of the conversation: order, bounds, ends."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import pytest

from sekisho.adapters.gate_stdio import GateStdio, problem_of, turn_away
from sekisho.adapters.push_directory import DirectoryPushStore
from sekisho.domain.errors import (
    Corrupt,
    NotFound,
    SekishoError,
    SyncFailed,
    Unavailable,
    Unreachable,
    UsageError,
)
from sekisho.site.gate import Gate
from sekisho.site.push import PushJob
from sekisho.wire.frames import pack_digests
from sekisho.wire.stdio import (
    DATA,
    END,
    MAX_PACKET_BYTES,
    MESSAGE,
    PROBLEM,
    Answer,
    Call,
    Garbled,
    Packets,
    ProblemSent,
    decoded,
)
from sekisho.wire.v1 import Identity, Problem
from tests.component.gate_world import World, a_submission
from tests.world import a_chunk


def reading(data: bytes) -> Packets:
    return Packets(io.BytesIO(data), io.BytesIO())


def packet(kind: bytes, payload: bytes = b"") -> bytes:
    out = io.BytesIO()
    Packets(io.BytesIO(), out).send(kind, payload)
    return out.getvalue()


def test_a_packet_is_a_kind_a_length_and_the_bytes() -> None:
    assert packet(DATA, b"abc") == b"D\0\0\0\3abc"
    assert reading(b"D\0\0\0\3abc").receive() == (DATA, b"abc")


def test_an_end_between_packets_is_an_end() -> None:
    packets = reading(packet(END))
    assert packets.receive() == (END, b"")
    assert packets.receive() is None


@pytest.mark.parametrize("cut", range(1, 8))
def test_an_end_within_a_packet_is_a_broken_line(cut: int) -> None:
    with pytest.raises(Unreachable):
        reading(packet(DATA, b"abc")[:cut]).receive()


@pytest.mark.parametrize("kind", [bytes([n]) for n in range(256) if bytes([n]) not in b"MDEP"])
def test_an_unknown_kind_ends_the_conversation(kind: bytes) -> None:
    with pytest.raises(Garbled):
        reading(kind + b"\0\0\0\0").receive()


def test_a_length_above_the_limit_is_refused_before_a_byte_is_read() -> None:
    stream = io.BytesIO(b"D" + struct.pack(">I", MAX_PACKET_BYTES + 1) + b"x" * 10)
    with pytest.raises(Garbled):
        Packets(stream, io.BytesIO()).receive()
    assert stream.tell() == 5


def test_the_greatest_packet_passes() -> None:
    payload = bytes(MAX_PACKET_BYTES)
    assert reading(packet(DATA, payload)).receive() == (DATA, payload)


def test_data_is_given_up_to_its_end() -> None:
    packets = reading(packet(DATA, b"a") + packet(DATA, b"b") + packet(END) + packet(MESSAGE))
    assert list(packets.data()) == [b"a", b"b"]
    assert packets.receive() == (MESSAGE, b"")


def test_data_that_ends_with_a_problem_says_which() -> None:
    told = msgspec.json.encode(Problem(type="t", status=404, code="chunk.not_found", params={}))
    with pytest.raises(ProblemSent) as caught:
        list(reading(packet(DATA, b"a") + packet(PROBLEM, told)).data())
    assert caught.value.problem.code == "chunk.not_found"


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (packet(DATA, b"a"), Unreachable),
        (packet(DATA, b"a") + packet(MESSAGE, b"{}"), Garbled),
        (packet(PROBLEM, b"{}"), UsageError),
    ],
)
def test_data_that_does_not_end_is_an_error(stream: bytes, error: type[SekishoError]) -> None:
    with pytest.raises(error):
        list(reading(stream).data())


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 50_000,
        b'{"verb":"shell"}',
        b'{"verb":"view","job":"../x"}',
        b'{"verb":"view","job":"job_\\u0000"}',
        b'{"verb":"view","wait_s":31}',
    ],
)
def test_what_is_no_call_is_told_by_one_code(payload: bytes) -> None:
    with pytest.raises(UsageError) as caught:
        decoded(payload, Call)
    assert caught.value.code == "message.invalid"


# ------------------------------------------------------------------------ conversation


class Told:
    """What a gate answered."""

    def __init__(self, out: bytes) -> None:
        packets = reading(out)
        self.kinds = b""
        self.answers: list[Answer] = []
        self.data: list[bytes] = []
        while (found := packets.receive()) is not None:
            self.kinds += found[0]
            if found[0] == MESSAGE:
                self.answers.append(decoded(found[1], Answer))
            if found[0] in (DATA, PROBLEM):
                self.data.append(found[1])

    @property
    def codes(self) -> list[str | None]:
        return [a.problem.code if a.problem else None for a in self.answers]


def call(verb: str, **fields: object) -> bytes:
    return packet(MESSAGE, msgspec.json.encode({"verb": verb, **fields}))


def talk(gate: Gate, said: Iterable[bytes]) -> Told:
    out = io.BytesIO()
    GateStdio(gate, Packets(io.BytesIO(b"".join(said)), out)).serve()
    return Told(out.getvalue())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_calls_are_answered_in_their_order(world: World) -> None:
    message = a_submission()
    told = talk(
        world.gate(),
        [
            call("identity"),
            call("submit", body=message),
            call("jobs"),
            call("view", job=message.id),
        ],
    )
    assert told.kinds == b"MMMM"
    assert decoded(told.answers[0].body, Identity).name == "alice"
    assert told.codes == [None] * 4


def test_a_refused_call_leaves_the_conversation_as_it_was(world: World) -> None:
    told = talk(world.gate(), [call("view", job=a_submission().id), call("identity")])
    assert told.codes == ["job.not_found", None]


def test_a_refused_upload_is_answered_after_everything_was_heard(world: World) -> None:
    chunk, data = a_chunk("late")
    job = a_submission().id
    said = [call("put", job=job), packet(DATA, data), packet(DATA, data), packet(END)]
    told = talk(world.gate(), [*said, call("identity")])
    assert told.codes == ["job.not_found", None]
    assert chunk.size == len(data)


def test_an_upload_in_vain_is_not_heard_for_ever(world: World) -> None:
    said = [call("put", job=a_submission().id), *[packet(DATA, bytes(1 << 20))] * 66]
    with pytest.raises(Garbled):
        talk(world.gate(), said)


def test_a_question_longer_than_any_list_ends_the_conversation(world: World) -> None:
    said = [call("missing", job=a_submission().id), *[packet(DATA, bytes(1 << 20))] * 2]
    with pytest.raises(UsageError):
        talk(world.gate(), [*said, packet(END)])


def test_an_answer_with_data_has_its_end(world: World) -> None:
    message = a_submission(has_inputs=True)
    chunk, _ = a_chunk("wanted")
    told = talk(
        world.gate(),
        [
            call("submit", body=message),
            call("missing", job=message.id),
            packet(DATA, bytes.fromhex(chunk.digest) + struct.pack(">I", chunk.size)),
            packet(END),
        ],
    )
    assert told.kinds == b"MMDE"
    assert told.data == [pack_digests([chunk.digest])]


@pytest.mark.parametrize(
    "said",
    [
        packet(DATA, b"x"),
        packet(END),
        call("identity") + packet(DATA, b"x"),
        call("put", job="job_" + "0" * 26) + call("identity"),
        call("put", job="job_" + "0" * 26) + packet(PROBLEM, b'{"type":"","status":1,"code":"x"}'),
    ],
)
def test_a_wrong_order_ends_the_conversation(world: World, said: bytes) -> None:
    with pytest.raises(UsageError):
        talk(world.gate(), [said])


def test_a_disk_that_lost_a_write_ends_the_conversation_without_an_answer(world: World) -> None:
    class Lost(DirectoryPushStore):
        def add(self, job: PushJob, admit: Callable[[], None]) -> PushJob:
            admit()
            raise SyncFailed(job=job.id)

    world.store = Lost(world.place / "push")
    out = io.BytesIO()
    said = io.BytesIO(call("submit", body=a_submission()))
    with pytest.raises(SyncFailed):
        GateStdio(world.gate(), Packets(said, out)).serve()
    assert out.getvalue() == b""


@pytest.mark.parametrize(
    "error",
    [NotFound("job.not_found", job="x"), Corrupt("push.job", job="x"), Unavailable(why="EIO")],
)
def test_a_problem_is_a_code_and_plain_values(error: SekishoError) -> None:
    problem = problem_of(error)
    assert problem.code == error.code
    assert all(isinstance(v, str | int | float) for v in problem.params.values())


def test_a_problem_says_no_more_than_three_hundred_characters_of_anything() -> None:
    problem = problem_of(UsageError("message.invalid", why="x" * 10_000))
    assert len(str(problem.params["why"])) == 300


def test_a_closed_gate_answers_one_call_swallows_its_data_and_is_gone_at_the_next() -> None:
    call = packet(MESSAGE, b"{}") + packet(DATA, b"a") + packet(END)
    incoming, outgoing = io.BytesIO(call * 3), io.BytesIO()
    turn_away(Packets(incoming, outgoing), Unavailable("gate.closed"))
    heard = reading(outgoing.getvalue())
    kind, payload = heard.receive() or (b"", b"")
    told = decoded(payload, Answer).problem
    assert (kind, told and told.code) == (MESSAGE, "gate.closed")
    assert heard.receive() is None
    assert incoming.tell() == len(call) + len(packet(MESSAGE, b"{}"))
