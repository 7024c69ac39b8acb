"""A batch system made of three commands and a directory, whose `sbatch` behaves as badly as asked.

`install` makes the commands; `sbatch` uses up the lines of the file ``behaviour`` one by one. Jobs
are real processes. Those that ended are forgotten at once: the worst that a batch system may do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

COMMANDS: Final = ("sbatch", "squeue", "scancel")
HANG_SECONDS: Final = 3.0
_ME: Final = Path(__file__)


def install(home: Path, *behaviour: str, dialect: str = "slurm") -> dict[str, list[str]]:
    """Make the commands below ``home`` and return them as the manifest's keys have them."""
    (home / "jobs").mkdir(parents=True)
    (home / "behaviour").write_text("".join(f"{line}\n" for line in behaviour))
    words = [sys.executable, "-I", "-S", str(_ME), str(home)]
    kin = (f"{dialect}:submit", f"{dialect}:status", f"{dialect}:cancel")
    names = COMMANDS if dialect == "slurm" else kin
    return dict(zip(("submit", "status", "cancel"), ([*words, n] for n in names), strict=True))


def submitted(home: Path) -> int:
    """Return how many jobs the batch system has had."""
    return len(_jobs(home))


def working(home: Path) -> bool:
    """Say whether any of its jobs still runs."""
    return any(_alive(job["pid"]) for job in _jobs(home).values())


def _jobs(home: Path) -> dict[str, dict[str, Any]]:
    """Return the jobs that were ever submitted, by number."""
    known = [file for file in (home / "jobs").iterdir() if file.suffix != ".new"]
    return {file.name: json.loads(file.read_text()) for file in known}


# ------------------------------------------------------------------- as a program of its own


def _sbatch(home: Path, words: Sequence[str]) -> int:
    behave = BEHAVIOUR[_next_behaviour(home)]
    with (home / "called").open("a") as called:  # only now: the next one may be on its way
        called.write("sbatch\n")
    return behave(lambda: _start(home, words), lambda: _later(home, words))


Submit = Callable[[], int]
Later = Callable[[], None]


def _well(submit: Submit, _: Later) -> int:
    return _say(submit())


def _hangs_before(submit: Submit, _: Later) -> int:
    time.sleep(HANG_SECONDS)
    return _say(submit())


def _hangs_after(submit: Submit, _: Later) -> int:
    _say(submit())
    time.sleep(HANG_SECONDS)
    return 0


def _hangs_until_killed(_: Submit, later: Later) -> int:
    later()
    time.sleep(60)
    return 0


def _twice(submit: Submit, _: Later) -> int:
    submit()
    return _say(submit())


def _killed(_: Submit, __: Later) -> int:
    os.kill(os.getpid(), 9)
    return 0


def _killed_after(submit: Submit, later: Later) -> int:
    submit()
    return _killed(submit, later)


def _says_later(_: Submit, later: Later) -> int:
    later()
    return _say(987656)


def _submits_and(says: str = "", *, complains: str = "") -> Callable[[Submit, Later], int]:
    """Submit, and tell something else; ``{}`` stands for the job's number."""

    def behave(submit: Submit, _: Later) -> int:
        number = submit()
        return _fault(complains) if complains else _say(says.format(number))

    return behave


def _only(says: str = "", *, complains: str = "") -> Callable[[Submit, Later], int]:
    """Submit nothing."""
    return lambda *_: _fault(complains) if complains else _say(says)


AWAY: Final = "Unable to contact slurm controller (connect failure)"
BEHAVIOUR: Final[Mapping[str, Callable[[Submit, Later], int]]] = {
    "": _well,
    "good": _well,
    "hangs, then submits": _hangs_before,
    "submits, then hangs": _hangs_after,
    "submits long after it was killed": _hangs_until_killed,
    "submits, exits 1": _submits_and(complains="Batch job submission failed: Unspecified error"),
    "submits, exits 1, slurmctld away": _submits_and(complains=AWAY),
    "submits twice": _twice,
    "submits, prints garbage": _submits_and("\udcff\x00 job??? \x1b[31m"),
    "submits, prints nothing": _submits_and(),
    "submits, another language": _submits_and("ジョブ {} を投入しました"),
    "submits, says too much": _submits_and("Welcome to the cluster!\n{}"),
    "submits, another job's id": _submits_and("987654"),
    "says an id, submits nothing": _only("987655"),
    "says an id, submits later": _says_later,
    "is killed": _killed,
    "submits, is killed": _killed_after,
    "away": _only(complains=AWAY),
    "full": _only(complains="QOSMaxSubmitJobPerUserLimit"),
    "refuses": _only(complains="invalid partition specified: nope"),
}


def _say(text: object) -> int:
    os.write(1, f"{text}\n".encode("utf-8", "surrogateescape"))
    return 0


def _next_behaviour(home: Path) -> str:
    file = home / "behaviour"
    first, _, rest = file.read_text().partition("\n")
    file.write_text(rest)
    return first


def _fault(text: str) -> int:
    os.write(2, f"sbatch: error: {text}\n".encode())
    return 1


def _start(home: Path, words: Sequence[str]) -> int:
    """Start the script as a job, or as an array of jobs, out of our reach; return its number."""
    options = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
    assert options["--export"] == "NIL", words
    assert "--no-requeue" in words
    place = options["--chdir"]
    script, last = Path(place, words[-1]), options.get("--array", "").partition("-")[2]
    numbers = [{"SLURM_ARRAY_TASK_ID": str(n)} for n in range(int(last) + 1)] if last else [{}]
    name, variable = options["--job-name"], "SLURM_SUBMIT_DIR"
    jobs = [_job(home, name, script, place, variable, number) for number in numbers]
    return jobs[-1]


def _job(
    home: Path, name: str, script: Path, place: str, variable: str, element: Mapping[str, str]
) -> int:
    """Start ``script``; it finds out by ``variable`` where it was submitted.

    ``element``: the variable that tells it which element of an array it is, and that number.
    """
    job = subprocess.Popen(
        ["/bin/sh", str(script)],
        cwd=place if variable == "SLURM_SUBMIT_DIR" else "/",
        env={variable: place, "PATH": "/usr/bin:/bin", **element},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    number = 1000 + job.pid
    made = home / "jobs" / f"{number}.new"
    made.write_text(json.dumps({"name": name, "pid": job.pid}))
    made.rename(home / "jobs" / str(number))
    return number


def _later(home: Path, words: Sequence[str]) -> None:
    """Submit some seconds from now, whatever becomes of us."""
    if os.fork() == 0:
        os.setsid()
        for descriptor in range(3):
            os.close(descriptor)
        time.sleep(HANG_SECONDS)
        _start(home, words)
        os._exit(0)


def _squeue(home: Path, words: Sequence[str]) -> int:
    with (home / "called").open("a") as called:
        called.write("squeue\n")
    names = next(word for word in words if word.startswith("--name="))[7:].split(",")
    for number, job in _jobs(home).items():
        if job["name"] in names and _alive(job["pid"]):
            _say(f"{number}|RUNNING|{job['name']}")
    return 0


def _scontrol(home: Path, _: Sequence[str]) -> int:
    """Tell the limits that the test wrote down, if it did."""
    file = home / "limits"
    return _say(file.read_text()) if file.exists() else 1


def _scancel(home: Path, words: Sequence[str]) -> int:
    for number in words:
        job = json.loads((home / "jobs" / number).read_text())
        if _alive(job["pid"]):
            os.killpg(job["pid"], 15)
    return 0


# ------------------------------------------------------------------- the other dialects


_VARIABLE: Final = {
    "pbs": "PBS_O_WORKDIR",
    "torque": "PBS_O_WORKDIR",
    "sge": "SGE_O_WORKDIR",
    "pjsub": "PJM_O_WORKDIR",
}
_ARRAY: Final = {
    "pbs": ("-J", "PBS_ARRAY_INDEX"),
    "torque": ("-t", "PBS_ARRAYID"),
    "sge": ("-t", "SGE_TASK_ID"),
    "pjsub": ("--sparam", "PJM_BULKNUM"),
}
_SAID: Final = {
    "pbs": "{}.server",
    "torque": "{}.server",
    "sge": "{}",
    "pjsub": "[INFO] PJM 0000 pjsub Job {} submitted.",
}


def _submit_kin(dialect: str, home: Path, words: Sequence[str]) -> int:
    never = ("-r", "n") in pairwise(words) or "--norestart" in words
    assert never or (dialect == "pbs" and "-J" in words), words
    script = Path(words[-1])
    name = words[list(words).index("-N") + 1]
    element, first, last = _numbers(dialect, list(words))
    numbers = [{element: str(n)} for n in range(first, last + 1)] if element else [{}]
    place, variable = str(script.parent), _VARIABLE[dialect]
    jobs = [_job(home, name, script, place, variable, number) for number in numbers]
    return _say(_SAID[dialect].format(jobs[-1]))


def _numbers(dialect: str, words: Sequence[str]) -> tuple[str, int, int]:
    """Return the variable of an array's elements, the first and the last number."""
    option, element = _ARRAY[dialect]
    if option not in words:
        return "", 0, 0
    first, _, last = words[words.index(option) + 1].partition("%")[0].partition("-")
    assert int(last) > int(first), "no batch system need have arrays of one"
    return element, int(first), int(last)


def _status_kin(dialect: str, home: Path, words: Sequence[str]) -> int:
    living = {n: job["name"] for n, job in _jobs(home).items() if _alive(job["pid"])}
    if dialect == "sge":
        _say("<?xml version='1.0'?>\n<job_info>")
        for number, name in living.items():
            _say(f'<job_list state="running"><JB_job_number>{number}</JB_job_number>')
            _say(f"<JB_name>{name}</JB_name><state>r</state></job_list>")
        return _say("</job_info>")
    if dialect == "pjsub":
        _say("H,JOB_ID,JOB_NAME,ST")
        for number, name in living.items():
            _say(f",{number},{name},RUN")
        return 0
    asked = [word.removesuffix(".server") for word in words if word != "-f"]
    for number in asked or living:
        if number in living:
            _say(f"Job Id: {number}.server\n    Job_Name = {living[number]}\n    job_state = R\n")
    if set(asked) - living.keys():
        os.write(2, b"qstat: Unknown Job Id\n")
        return 153
    return 0


def _kin(command: str, home: Path, words: Sequence[str]) -> int:
    dialect, _, kind = command.partition(":")
    if kind == "cancel":
        return _scancel(home, [word.removesuffix(".server") for word in words])
    return (_submit_kin if kind == "submit" else _status_kin)(dialect, home, words)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


if __name__ == "__main__":
    does = {"sbatch": _sbatch, "squeue": _squeue, "scancel": _scancel, "scontrol": _scontrol}
    if ":" in sys.argv[2]:
        sys.exit(_kin(sys.argv[2], Path(sys.argv[1]), sys.argv[3:]))
    sys.exit(does[sys.argv[2]](Path(sys.argv[1]), sys.argv[3:]))
