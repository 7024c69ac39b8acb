"""Sandbox by Landlock: the kernel holds the command, without privileges and without a container.

It covers files, sockets, signals, keyrings, System V memory and queues, limits and priorities. It
does not cover what may be learned or done about a file without opening it (its size and times, its
mode for whoever owns it), nor on which processors and in which class the account's threads run:
a thread is named there by its number, and programs place their own that way.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import msgspec

from sekisho.adapters.sandboxes import confine
from sekisho.domain.egress import Fault
from sekisho.domain.launch import Sandbox as Grants

_SCRIPT: Final = Path(confine.__file__)
_TCP_VERSION: Final = 4


class LandlockSandbox:
    """Sandbox on this machine."""

    def wrap(self, argv: tuple[str, ...], work_dir: str, grants: Grants) -> tuple[str, ...]:
        told = {
            "read": list(grants.read),
            "write": [work_dir, *grants.write],
            "network": grants.network,
            "connect": list(grants.connect),
            "shared_memory": grants.shared_memory,
        }
        text = msgspec.json.encode(told).decode()
        return (sys.executable, "-I", "-S", os.fspath(_SCRIPT), text, "--", *argv)

    def faults(self, grants: Grants) -> list[Fault]:
        version = confine.abi()
        if version < 1 or not confine.can_filter():
            return [Fault("sandbox.unavailable")]
        if version < _TCP_VERSION and not grants.network:
            return [Fault("sandbox.no_network_rules")]
        return []
