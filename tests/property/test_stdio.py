"""Whatever bytes a caller sends, the gate's reader ends with one of its own errors, in no time."""

from __future__ import annotations

import io
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sekisho.adapters.gate_stdio import GateStdio
from sekisho.domain.errors import SekishoError
from sekisho.wire.stdio import Call, Packets, decoded, encoded
from tests.component.gate_world import World

KINDS = st.sampled_from([b"M", b"D", b"E", b"P"])
JOB = "job_" + "0" * 26
#: Valid calls, near misses and noise: what is nearly right goes deepest.
PAYLOADS = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(["identity", "jobs", "view", "put", "missing", "fetch", "cancel", "x"]).map(
        lambda verb: msgspec.json.encode({"verb": verb, "job": JOB})
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=8,
    ).map(lambda body: msgspec.json.encode({"verb": "submit", "body": body})),
)


def packet(kind: bytes, payload: bytes) -> bytes:
    out = io.BytesIO()
    Packets(io.BytesIO(), out).send(kind, payload)
    return out.getvalue()


STREAMS = st.one_of(
    st.binary(max_size=300),
    st.lists(st.builds(packet, KINDS, PAYLOADS), max_size=6).map(b"".join),
)


@given(st.lists(st.tuples(KINDS, st.binary(max_size=100)), max_size=8))
def test_what_is_sent_is_received(packets: list[tuple[bytes, bytes]]) -> None:
    """Killed by: a length in the other byte order; a head that is not read whole."""
    reader = Packets(io.BytesIO(b"".join(packet(*p) for p in packets)), io.BytesIO())
    assert [reader.receive() for _ in packets] == packets
    assert reader.receive() is None


@given(STREAMS, st.integers(0, 300))
def test_a_stream_cut_anywhere_gives_a_beginning_of_itself(stream: bytes, cut: int) -> None:
    """Killed by: taking a cut packet for a whole one."""

    def received(data: bytes) -> list[tuple[bytes, bytes]]:
        reader = Packets(io.BytesIO(data), io.BytesIO())
        found = []
        with suppress(SekishoError):
            while (one := reader.receive()) is not None:
                found.append(one)
        return found

    whole = received(stream)
    assert received(stream[:cut]) == whole[: len(received(stream[:cut]))]


@given(STREAMS)
def test_a_gate_ends_every_conversation_with_an_error_of_ours(stream: bytes) -> None:
    """Killed by: an exception of a library or of Python that leaves the gate."""
    out = io.BytesIO()
    with tempfile.TemporaryDirectory() as place, suppress(SekishoError):
        world = World(Path(place))
        GateStdio(world.gate(), Packets(io.BytesIO(stream), out)).serve()
    answers = Packets(io.BytesIO(out.getvalue()), io.BytesIO())
    while answers.receive() is not None:
        pass


@given(st.binary(max_size=400))
def test_no_bytes_make_a_message_fail_otherwise(data: bytes) -> None:
    """Killed by: catching fewer than all errors of the decoder."""
    with suppress(SekishoError):
        decoded(data, Call)


@given(st.sampled_from(["view", "jobs"]), st.integers(0, 10**6), st.floats(0, 30))
def test_a_call_survives_its_own_encoding(verb: str, version: int, wait_s: float) -> None:
    """Killed by: a field whose wire form is not what is read."""
    call = Call(verb=verb, job=JOB, version=version, wait_s=wait_s)  # type: ignore[arg-type]
    assert decoded(encoded(call), Call) == call
