"""What goes below a transport that gathers, and when."""

from __future__ import annotations

import asyncio

import pytest

from sekisho.adapters.gathered_transport import GatheredTransport

LONG = b"x" * (64 << 10)


class Below(asyncio.Transport):
    """Notes what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[bytes | str] = []
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.told.append(bytes(data))

    def close(self) -> None:
        self.told.append("closed")

    def abort(self) -> None:
        self.told.append("aborted")

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return 1000


@pytest.fixture
def below() -> Below:
    return Below()


def written(below: Below, *pieces: bytes, then: str = "") -> list[bytes | str]:
    """Write ``pieces`` in one step, let the loop run, and return what was told below."""

    async def main() -> None:
        above = GatheredTransport(below, asyncio.get_running_loop())
        for piece in pieces:
            above.write(piece)
        if then:
            getattr(above, then)()
        await asyncio.sleep(0)

    asyncio.run(main())
    return below.told


def test_short_pieces_go_together(below: Below) -> None:
    assert written(below, b"head", b"body") == [b"headbody"]


def test_a_long_piece_goes_at_once_behind_what_was_before(below: Below) -> None:
    assert written(below, b"head", LONG) == [b"head", LONG]


def test_each_step_sends_what_it_wrote(below: Below) -> None:
    async def main() -> None:
        above = GatheredTransport(below, asyncio.get_running_loop())
        for piece in (b"one", b"two"):
            above.write(piece)
            assert above.get_write_buffer_size() == 1000 + len(piece)
            await asyncio.sleep(0)
            assert above.get_write_buffer_size() == 1000

    asyncio.run(main())
    assert below.told == [b"one", b"two"]


def test_what_is_closed_sends_what_was_written_and_what_is_aborted_does_not(below: Below) -> None:
    assert written(below, b"last", then="close") == [b"last", "closed"]
    below.told.clear()
    assert written(below, b"last", then="abort") == ["aborted"]


def test_nothing_is_written_to_a_line_that_was_lost_meanwhile(below: Below) -> None:
    below.closing = True
    assert written(below, b"late") == []
