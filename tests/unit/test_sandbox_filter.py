"""The filter of system calls, read as a kernel reads it, also for machines that are not here."""

from __future__ import annotations

import struct
import subprocess
import sys

import pytest

from sekisho.adapters.sandboxes import confine
from sekisho.adapters.sandboxes.confine import KNOWN, Calls, Step, filter_steps
from sekisho.adapters.sandboxes.landlock import LandlockSandbox
from sekisho.domain.launch import Sandbox

ALLOWED, NOT_PERMITTED, DENIED, NO_SUCH_CALL = "allowed", 1, 13, 38
EVERY = [(machine, calls) for machine, known in KNOWN.items() for calls in known]
IDS = [f"{machine}-{calls.architecture:x}" for machine, calls in EVERY]
every_abi = pytest.mark.parametrize(("machine", "calls"), EVERY, ids=IDS)
UNIX, INET, INET6, STREAM, DATAGRAM, MPTCP = 1, 2, 10, 1, 2, 262
#: SOCK_NONBLOCK and SOCK_CLOEXEC, which come with the kind of a socket.
FLAGS = 0o4000 | 0o2000000


def answer(steps: list[Step], architecture: int, number: int, *arguments: int) -> str | int:
    """Return what a filter says to a call: what the kernel's own reader of it would."""
    words = [*arguments, *[0] * (6 - len(arguments))]
    seen = struct.pack("<IIQ6Q", number, architecture, 0, *words)
    loaded, at = 0, 0
    while True:
        operation, yes, no, value = steps[at]
        at += 1
        match operation:
            case confine.LOAD:
                loaded = int.from_bytes(seen[value : value + 4], "little")
            case confine.AND:
                loaded &= value
            case confine.EQUAL:
                at += yes if loaded == value else no
            case confine.AT_LEAST:
                at += yes if loaded >= value else no
            case confine.ANY_BIT:
                at += yes if loaded & value else no
            case confine.RETURN:
                return ALLOWED if value == confine.ALLOW else value & 0xFFFF
            case _:
                pytest.fail(f"{operation:x} is no step that is known here")


def steps_of(machine: str, **granted: bool) -> list[Step]:
    nothing = {"network": False, "names": False, "shared_memory": False}
    return filter_steps(machine, **(nothing | granted))


@every_abi
def test_tcp_is_the_only_socket_and_udp_where_names_are_asked_for(
    machine: str, calls: Calls
) -> None:
    """Kills: a kind of socket that Landlock does not see."""
    for names in (False, True):
        steps = steps_of(machine, names=names)

        def sock(*arguments: int, steps: list[Step] = steps) -> str | int:
            return answer(steps, calls.architecture, calls.socket, *arguments)

        udp = ALLOWED if names else DENIED
        for family in (INET, INET6):
            for flags in (0, FLAGS):
                assert sock(family, STREAM | flags, 0) == sock(family, STREAM | flags, 6) == ALLOWED
                assert sock(family, DATAGRAM | flags, 17) == sock(family, DATAGRAM, 0) == udp
            assert sock(family, STREAM, MPTCP) == sock(family, DATAGRAM, 6) == DENIED
            assert sock(family, 3, 255) == DENIED  # raw
        assert sock(UNIX, STREAM, 0) == sock(16, DATAGRAM, 0) == DENIED
    free = steps_of(machine, network=True)
    assert answer(free, calls.architecture, calls.socket, UNIX, STREAM, 0) == ALLOWED


@every_abi
def test_no_call_goes_past_the_rules(machine: str, calls: Calls) -> None:
    """Kills: connecting by what is sent first, calls in a ring, or all calls of sockets as one."""
    confined, free = steps_of(machine), steps_of(machine, network=True)
    for number, flags in zip(calls.sends, confine.SEND_FLAGS, strict=True):
        before = (0,) * flags
        assert answer(confined, calls.architecture, number, *before, 0x2000_4000) == DENIED
        assert answer(confined, calls.architecture, number, *before, 0x4000) == ALLOWED
        assert answer(free, calls.architecture, number, *before, 0x2000_0000) == ALLOWED
    for number in (confine.IO_URING, *calls.socketcall):
        assert answer(confined, calls.architecture, number) == NO_SUCH_CALL
        assert answer(free, calls.architecture, number) == ALLOWED
    for number in calls.never:
        assert answer(confined, calls.architecture, number) == NO_SUCH_CALL
        assert answer(free, calls.architecture, number) == NO_SUCH_CALL


@every_abi
def test_what_an_account_shares_is_out_of_reach(machine: str, calls: Calls) -> None:
    """Kills: memory, limits or priorities of the account's other processes."""
    confined, sharing = steps_of(machine), steps_of(machine, shared_memory=True)
    for number in calls.system_v:
        assert answer(confined, calls.architecture, number) == NO_SUCH_CALL
        assert answer(sharing, calls.architecture, number) == ALLOWED
    for number, account in zip(calls.priorities, confine.OF_A_USER, strict=True):
        assert answer(confined, calls.architecture, number, account, 0) == NOT_PERMITTED
        assert answer(confined, calls.architecture, number, account - 1, 7) == NOT_PERMITTED
        assert answer(confined, calls.architecture, number, account - 1, 0) == ALLOWED
    assert answer(confined, calls.architecture, calls.limits, 7) == NOT_PERMITTED
    assert answer(confined, calls.architecture, calls.limits, 0) == ALLOWED


@every_abi
def test_everything_else_is_free(machine: str, calls: Calls) -> None:
    assert answer(steps_of(machine), calls.architecture, 0) == ALLOWED
    assert answer(steps_of(machine), calls.architecture, 63) == ALLOWED


@pytest.mark.parametrize("machine", KNOWN)
@pytest.mark.parametrize("network", [False, True])
def test_what_is_no_abi_of_the_machine_is_refused(machine: str, *, network: bool) -> None:
    """Kills: a second ABI of the same kernel, under whose numbers nothing is looked at."""
    steps = steps_of(machine, network=network)
    here = {calls.architecture for calls in KNOWN[machine]}
    others = {calls.architecture for _, calls in EVERY} - here | {0, 0x40000028}
    assert {answer(steps, other, 0) for other in others} == {NOT_PERMITTED}
    if machine == "x86_64":
        calls = KNOWN[machine][0]
        assert answer(steps, calls.architecture, confine.X32) == NOT_PERMITTED
        assert answer(steps, calls.architecture, confine.X32 + calls.socket) == NOT_PERMITTED


@pytest.mark.parametrize(
    ("version", "filters", "network", "codes"),
    [
        (0, True, True, ["sandbox.unavailable"]),
        (6, False, False, ["sandbox.unavailable"]),
        (3, True, False, ["sandbox.no_network_rules"]),
        (3, True, True, []),
        (4, True, False, []),
    ],
)
def test_a_kernel_that_cannot_hold_a_grant_is_told(
    monkeypatch: pytest.MonkeyPatch, version: int, codes: list[str], *, filters: bool, network: bool
) -> None:
    monkeypatch.setattr(confine, "abi", lambda: version)
    monkeypatch.setattr(confine, "can_filter", lambda: filters)
    faults = LandlockSandbox().faults(Sandbox(network=network))
    assert [fault.code for fault in faults] == codes


@pytest.mark.parametrize(("version", "network"), [(0, True), (3, False)])
def test_on_such_a_kernel_nothing_is_begun(version: int, *, network: bool) -> None:
    """Kills: a command whose network is free. (In a process of its own: it would be for good.)"""
    program = (
        "import runpy, sys; script = runpy.run_path(sys.argv[1]); confine = script['confine'];"
        f"confine.__globals__['abi'] = lambda: {version};"
        f"confine([], [], network={network}, connect=[])"
    )
    argv = [sys.executable, "-c", program, confine.__file__]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1:] == ["OSError: [Errno 95] landlock"]
