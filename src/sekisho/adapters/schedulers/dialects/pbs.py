"""OpenPBS and PBS Professional, and Torque: `qsub`, `qstat`, `qdel`.

Both tell much the same; they differ in what `qsub` is asked. Torque's commands were tried in the
form that Slurm brings; neither has been confirmed at a site yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from sekisho.adapters.schedulers.dialect import (
    SCRIPT,
    Dialect,
    Row,
    Submission,
    Words,
    clock,
    mebibytes,
    state_of,
    strange,
    text_of,
)
from sekisho.site.host import Answer

#: Our own jobs in full, when the ids are not known. `qselect` is not everywhere.
_SEARCH: Final = (
    'set -f; user=$1; shift; ids=$(qselect -u "$user" 2>/dev/null) || exec "$@" -f; '
    '[ -z "$ids" ] || exec "$@" -f $ids'
)
_JOB: Final = re.compile(r"^Job Id:\s*(\S+)\s*$", re.MULTILINE | re.IGNORECASE)
#: `17[].pbs01` is a whole array, `17[3].pbs01` one element. Torque adds the number to its name.
_ELEMENT_ID: Final = re.compile(r"\A(\d+)\[\d*\]")
_ELEMENT_NAME: Final = re.compile(r"\A(s[0-9a-f]{14})-\d+\Z")
_FIELD: Final = re.compile(r"^\s*(Job_Name|job_state)\s*=\s*(\S+)\s*$", re.MULTILINE)
_QUIET: Final = ("-m", "n", "-S", "/bin/sh", "-o", "/dev/null", "-e", "/dev/null")
_UNKNOWN: Final = re.compile(r"unknown job id|job has finished|invalid job id", re.IGNORECASE)
_WAITING: Final = frozenset("QHWT")
_ENDED: Final = frozenset("CFXM")


def _chunk_pbs(job: Submission) -> Iterator[str]:
    """PBS: chunks of equal nodes, `-l select=2:ncpus=16:mpiprocs=4:mem=1024mb`."""
    asked = job.resources
    tasks = asked.tasks or 1
    parts = (
        (
            "ncpus",
            None if asked.cpus is None and asked.tasks is None else tasks * (asked.cpus or 1),
        ),
        ("mpiprocs", asked.tasks),
        ("mem", None if asked.memory is None else f"{mebibytes(asked.memory)}mb"),
        ("ngpus", asked.gpus),
    )
    said = [f"{key}={value}" for key, value in parts if value is not None]
    if said or asked.nodes is not None:
        yield ":".join((f"select={asked.nodes or 1}", *said))


def _chunk_torque(job: Submission) -> Iterator[str]:
    """Torque: `-l nodes=2:ppn=16:gpus=1`, and memory for the whole job."""
    asked = job.resources
    nodes = asked.nodes or 1
    processors = (asked.tasks or 1) * (asked.cpus or 1)
    gpus = "" if asked.gpus is None else f":gpus={asked.gpus}"
    if asked.nodes or asked.tasks or asked.cpus or asked.gpus:
        yield f"nodes={nodes}:ppn={processors}{gpus}"
    if asked.memory is not None:
        yield f"mem={nodes * mebibytes(asked.memory)}mb"


def _array_pbs(job: Submission) -> Words:
    """PBS takes no array that must not be run again: there the run latch alone prevents it."""
    numbers = job.limited_numbers()
    return ("-r", "n") if numbers is None else ("-J", numbers, "-r", "y")


def _array_torque(job: Submission) -> Words:
    numbers = job.limited_numbers()
    return ("-r", "n") if numbers is None else ("-t", numbers, "-r", "n")


def _submitting(
    chunks: Callable[[Submission], Iterator[str]], array: Callable[[Submission], Words]
) -> Callable[[Words, Submission], Words]:
    def submit(command: Words, job: Submission) -> Words:
        asked = job.resources
        lists = (*chunks(job), *asked.licences, f"walltime={clock(job.wall_time)}")
        return (
            *command,
            *asked.directives,
            *(("-q", asked.queue) if asked.queue is not None else ()),
            *(("-A", asked.account) if asked.account is not None else ()),
            *(word for item in lists for word in ("-l", item)),
            *("-N", job.name, *array(job), *_QUIET, f"{job.directory}/{SCRIPT}"),
        )

    return submit


def _by_ids(command: Words, ids: Sequence[str]) -> Words:
    return (*command, "-f", *ids)


def _search(command: Words, _: Sequence[str], user: str) -> Words:
    return ("/bin/sh", "-c", _SEARCH, "search", user, *command)


def _rows(answer: Answer) -> list[Row]:
    """Read blocks of `qstat -f`. Ids that are not known any more are left out, not a fault."""
    if answer.code != 0 and not _gone(answer):
        raise strange(answer)
    text = answer.stdout.decode("utf-8", "replace")
    ids = _JOB.findall(text)
    blocks = _JOB.split(text)[2::2]
    if text.strip() and (not ids or text.lstrip()[:6].lower() != "job id"):
        raise strange(answer)
    return [_row(answer, identity, block) for identity, block in zip(ids, blocks, strict=True)]


def _gone(answer: Answer) -> bool:
    """Say whether the complaint is no more than that some of the jobs are not there.

    The commands that Slurm brings say it by their exit status alone. A server that went away in
    the middle says that as well, and what it did not come to is not gone.
    """
    if answer.code not in (35, 153) or _AWAY.search(answer.stderr.decode("utf-8", "replace")):
        return False
    return not answer.stderr.strip() or _UNKNOWN.search(text_of(answer)) is not None


def _row(answer: Answer, identity: str, block: str) -> Row:
    fields = dict(reversed(_FIELD.findall(block)))  # the first of each: later ones are values
    if fields.keys() != {"Job_Name", "job_state"}:
        raise strange(answer)
    state = state_of(fields["job_state"], _WAITING, _ENDED)  # E, exiting, is alive
    name = _ELEMENT_NAME.sub(r"\1", fields["Job_Name"])
    held = fields["job_state"] == "H"
    return Row(id=_ELEMENT_ID.sub(r"\1[]", identity), name=name, state=state, held=held)


_FULL: Final = re.compile(
    r"would exceed|exceeds? (?:the )?(?:queue|server|site|limit|maximum)|[Mm]aximum number of jobs"
    r"|max_queued|queue limit|too many jobs",
    re.IGNORECASE,
)
_AWAY: Final = re.compile(
    r"cannot connect|connection refused|timed? ?out|communication failure|server busy|try again"
    r"|no route to host|end of file|premature|server.*down|not enabled|errno=|protocol",
    re.IGNORECASE,
)
PBS: Final = Dialect(
    name="pbs",
    commands=(("qsub",), ("qstat",), ("qdel",)),
    element="${PBS_ARRAY_INDEX-}",
    submit=_submitting(_chunk_pbs, _array_pbs),
    receipt=re.compile(r"(\d{1,20}(?:\[\])?(?:\.[A-Za-z0-9_.-]+)?)\n?"),
    by_ids=_by_ids,
    search=_search,
    rows=_rows,
    full=_FULL,
    away=_AWAY,
)
TORQUE: Final = replace(
    PBS,
    name="torque",
    element="${PBS_ARRAYID-${SLURM_ARRAY_TASK_ID-}}",  # Slurm brings commands of this kind
    submit=_submitting(_chunk_torque, _array_torque),
)
