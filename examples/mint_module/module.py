#!/usr/bin/env python3
"""A workflow module's program (objectPath) that computes at a site, through sekisho.

Called with the paths of its ports: --<port name> <path> … Edit the settings below; the rest stays.
Needs the `sekisho` command on PATH, set up with `sekisho client init`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

# --- settings: what this module computes, and what its ports are called ------------------------
SITE = "works"
COMMAND = "notched-specimen"
#: Input port: the name of its file at the site.
INPUTS = {
    "絞り": "reduction_of_area.txt",
    "引張強さ": "tensile_strength.txt",
    "降伏応力": "yield_strength.txt",
}
#: Input port whose file holds one value: the parameter of the command that takes it.
PARAMETERS = {"最大応力": "max_stress"}
#: Output port: the name of the file that comes back.
OUTPUTS = {"応力分布": "stress_distribution.csv", "応力図": "stress.png", "要約": "summary.json"}
# -----------------------------------------------------------------------------------------------

RESULTS = Path("sekisho-results")
#: Keeps the job's id: a module that is started again finds its job, and nothing runs twice.
JOB_FILE = "sekisho-job-id"
USAGE_STATUS = 64


def main(words: list[str]) -> int:
    """Run the command for the ports in ``words``; return the exit status."""
    ports = {words[n]: Path(words[n + 1]) for n in range(0, len(words) - 1, 2)}
    known = {"--" + port for port in (*INPUTS, *PARAMETERS, *OUTPUTS)}
    if len(words) % 2 or not ports.keys() <= known:
        print("usage: --<port> <path> …  ports:", *sorted(known), file=sys.stderr)
        return USAGE_STATUS
    status = subprocess.call(command_line(ports))
    if status == 0:
        hand_over(ports)
    return status


def command_line(ports: dict[str, Path]) -> list[str]:
    """Return the call of `sekisho run` for these ports."""
    argv = ["sekisho", "run", SITE, COMMAND, "--into", str(RESULTS), "--id-file", JOB_FILE]
    for port, name in INPUTS.items():
        if "--" + port in ports:
            argv += ["-i", "{}={}".format(name, ports["--" + port])]
    for port, parameter in PARAMETERS.items():
        if "--" + port in ports:
            value = ports["--" + port].read_text("utf-8").split("\n")[0].strip()
            argv += ["-p", f"{parameter}={value}"]
    for name in OUTPUTS.values():
        argv += ["-o", name]
    return argv


def hand_over(ports: dict[str, Path]) -> None:
    """Put every output where its port expects it: at the path given, or under the port's name."""
    for port, name in OUTPUTS.items():
        place = ports.get("--" + port, Path(port))
        if place.is_symlink() or place.exists():
            place.unlink()
        try:
            os.link(str(RESULTS / name), str(place))
        except OSError:  # another file system
            shutil.copyfile(str(RESULTS / name), str(place))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
