"""Two commands that show what a confined program reaches: the same prying, with and without it."""

from __future__ import annotations

import sys
from string import Template
from typing import Final

from examples.demo.places import REPOSITORY, Places
from sekisho.adapters.sandboxes import confine

#: The version of the kernel's rules that knows TCP too.
_WITH_TCP: Final = 4
CONFINED, FREE = "pry-confined", "pry-free"
#: What the prying program tries to read: the site's own settings, and its secrets.
TRIED: Final = (
    "agent.toml",
    "manifest.toml",
    "secrets/material_model.toml",
    "secrets/specimen.inp",
)

_COMMAND = Template("""
[[command]]
name = "$name"
description.en = "Tries to read the site's own files"
description.ja = "拠点自身のファイルを読もうとします"
argv = ["$python", "-I", "$program", $tried]
time_limit_s = 60
$sandbox
[[command.output]]
path = "seen.txt"
max_bytes = "1 KiB"
required = true
""")


def possible() -> bool:
    """Say whether this machine's kernel can confine a command."""
    return confine.abi() >= 1


def sandbox(*read: object) -> str:
    """Return the manifest's words that confine a Python program which may also read ``read``."""
    if not possible():
        return ""
    places = dict.fromkeys(map(str, (sys.prefix, sys.base_prefix, *read)))
    listed = ", ".join(f'"{place}"' for place in places)
    network = "" if confine.abi() >= _WITH_TCP else "network = true\n"
    return f"[command.sandbox]\nread = [{listed}]\n{network}"


def commands(places: Places) -> str:
    """Return the two commands for the manifest; none where nothing can be confined.

    Nor on a gateway: what is secret is not there.
    """
    if not possible() or places.hpc_port is not None:
        return ""
    program = REPOSITORY / "examples" / "demo" / "prying.py"
    tried = ", ".join(f'"{places.site / name}"' for name in TRIED)
    common = {"python": sys.executable, "program": program, "tried": tried}
    confined = _COMMAND.substitute(name=CONFINED, sandbox=sandbox(program), **common)
    return confined + _COMMAND.substitute(name=FREE, sandbox="", **common)
