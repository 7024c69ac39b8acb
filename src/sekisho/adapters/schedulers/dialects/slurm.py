"""Slurm: `sbatch`, `squeue`, `scancel`. Tried with Slurm 22.05."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from sekisho.adapters.schedulers.dialect import (
    LOG,
    SCRIPT,
    Dialect,
    Limits,
    Row,
    State,
    Submission,
    Words,
    lines_of,
    mebibytes,
    state_of,
    strange,
)
from sekisho.site.host import Answer

_LINE: Final = re.compile(r"(\d+)\|([A-Z_]+)\|([^\s|]*)(?:\|(.*))?")
#: Reasons for which a job waits until somebody does something.
_HELD: Final = re.compile(r"[Hh]eld|DependencyNeverSatisfied|BadConstraints")
_WAITING: Final = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD"})
_ENDS: Final = {
    "COMPLETED": None,
    "FAILED": None,
    "CANCELLED": "scheduler.cancelled",
    "TIMEOUT": "limit.time",
    "DEADLINE": "limit.time",
    "OUT_OF_MEMORY": "limit.memory",
    "PREEMPTED": "scheduler.preempted",
    "NODE_FAIL": "scheduler.node_failed",
    "BOOT_FAIL": "scheduler.node_failed",
    "REVOKED": None,
}


#: By what a complaint calls a limit: in which records it stands, and under which key.
_LIMITS: Final = {
    "QOSMaxSubmitJobPerUserLimit": ("QOS", "MaxSubmitJobsPU"),
    "QOSMaxSubmitJobPerAccountLimit": ("QOS", "MaxSubmitJobsPA"),
    "QOSGrpSubmitJobsLimit": ("QOS", "GrpSubmitJobs"),
    "AssocMaxSubmitJobLimit": ("Association", "MaxSubmitJobs"),
    "AssocGrpSubmitJobsLimit": ("Association", "GrpSubmitJobs"),
}
_RECORDS: Final = re.compile(r"^(\w+) Records$", re.MULTILINE)


def _ask_limits(status: Words, user: str) -> Words:
    """Return the question to `scontrol`, which is where `squeue` is."""
    command = (*status[:-1], status[-1].removesuffix("squeue") + "scontrol")
    return (*command, "show", "assoc_mgr", "flags=assoc,qos", f"users={user}")


def _most(said: str, told: str) -> int | None:
    """Return the largest limit of the kind that is complained of; nobody says which one it was.

    A limit of 0 is how accounts are shut for a while: it says nothing of later.
    """
    kinds = [kind for name, kind in _LIMITS.items() if name in said]
    parts = _RECORDS.split(told)
    records = dict(zip(parts[1::2], parts[2::2], strict=True))
    limits = [
        int(number)
        for head, key in kinds
        for number in re.findall(rf"\b{key}=(\d+)\(", records.get(head, ""))
    ]
    return max(limits, default=0) or None


def _submit(command: Words, job: Submission) -> Words:
    asked = job.resources
    amounts = (
        ("partition", asked.queue),
        ("account", asked.account),
        ("nodes", asked.nodes),
        ("ntasks-per-node", asked.tasks),
        ("cpus-per-task", asked.cpus),
        ("mem", None if asked.memory is None else f"{mebibytes(asked.memory)}M"),
        ("gres", None if asked.gpus is None else f"gpu:{asked.gpus}"),
        ("licenses", ",".join(asked.licences) or None),
        ("time", max(1, -(-job.wall_time // 60))),
        ("array", job.limited_numbers()),
    )
    return (
        *command,
        *asked.directives,
        *(f"--{key}={value}" for key, value in amounts if value is not None),
        *("--parsable", "--no-requeue", "--export=NIL", "--open-mode=append"),
        *(f"--job-name={job.name}", f"--chdir={job.directory}"),
        *("--input=/dev/null", f"--output={LOG}", f"--error={LOG}", SCRIPT),
    )


def _search(command: Words, names: Sequence[str], user: str) -> Words:
    return (
        *(*command, "--noheader", "--states=all", f"--user={user}"),
        *(f"--name={','.join(names)}", "--format=%F|%T|%j|%r"),
    )


def _rows(answer: Answer) -> list[Row]:
    rows = []
    for line in lines_of(answer):
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise strange(answer)
        word = found[2]
        state = state_of(word, _WAITING, _ENDS)
        held = state is State.WAITING and _HELD.search(found[4] or "") is not None
        rows.append(Row(id=found[1], name=found[3], state=state, why=_ENDS.get(word), held=held))
    return rows


SLURM: Final = Dialect(
    name="slurm",
    commands=(("sbatch",), ("squeue",), ("scancel",)),
    element="${SLURM_ARRAY_TASK_ID-}",
    submit=_submit,
    receipt=re.compile(r"(\d{1,20})(?:;[A-Za-z0-9_.-]+)?\n?"),
    search=_search,
    rows=_rows,
    full=re.compile(  # the last is said of every limit; a limit by name says which
        r"temporarily unable to accept job|MaxSubmitJobs|(?:QOS|Assoc)(?:Max|Grp)SubmitJob"
        r"|\A(?!.*(?:QOS|Assoc)[A-Z]).*\(job submit limit",
        re.DOTALL,
    ),
    away=re.compile(
        r"Unable to contact slurm controller|Socket timed out|Connection refused|Zero Bytes were"
        r"|Communication connection failure|Unable to establish|Resource temporarily unavailable"
        r"|slurm_persist_conn|Transport endpoint|controller is in standby|try again"
        r"|authentication|[Mm]unge"
    ),
    limits=Limits(_ask_limits, _most),
)
