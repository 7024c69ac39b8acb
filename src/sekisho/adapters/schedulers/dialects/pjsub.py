"""Fujitsu's Technical Computing Suite: `pjsub`, `pjstat`, `pjdel`. From its manuals only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from sekisho.adapters.schedulers.dialect import (
    LOG,
    SCRIPT,
    Dialect,
    Row,
    Submission,
    Words,
    clock,
    lines_of,
    mebibytes,
    state_of,
    strange,
)
from sekisho.site.host import Answer

_FIELDS: Final = "jid,jnam,st"
_ID: Final = re.compile(r"(\d+)(?:\[\d+\])?")  # of a bulk job or one of its elements
_WAITING: Final = frozenset({"ACC", "QUE", "HLD"})
_ENDS: Final = {
    "EXT": None,
    "CCL": "scheduler.cancelled",
    "RJT": None,
}


def _lists(job: Submission) -> Iterator[str]:
    asked = job.resources
    if asked.queue is not None:
        yield f"rscgrp={asked.queue}"
    if asked.nodes is not None:
        yield f"node={asked.nodes}"
    elif asked.cpus is not None:
        yield f"vnode-core={asked.cpus}"
    if asked.memory is not None:
        yield f"node-mem={mebibytes(asked.memory)}Mi"
    if asked.gpus is not None:
        yield f"gpu={asked.gpus}"
    yield f"elapse={clock(job.wall_time)}"
    yield from asked.licences


def _submit(command: Words, job: Submission) -> Words:
    asked = job.resources
    ranks = None if asked.tasks is None else (asked.nodes or 1) * asked.tasks
    return (
        *command,
        *asked.directives,
        *(("-g", asked.account) if asked.account is not None else ()),
        *("-L", ",".join(_lists(job))),
        *(("--mpi", f"proc={ranks}") if ranks is not None else ()),
        *(() if (numbers := job.numbers()) is None else ("--bulk", "--sparam", numbers)),
        *("--norestart", "-j", "-o", f"{job.directory}/{LOG}", "-N", job.name),
        f"{job.directory}/{SCRIPT}",
    )


def _search(command: Words, _: Sequence[str], __: str) -> Words:
    """Without further words only one's own jobs are told."""
    return (*command, "--data", "--choose", _FIELDS)


def _rows(answer: Answer) -> list[Row]:
    """Read lines with commas: a head that begins with H, then one line for each job."""
    lines = lines_of(answer)
    if not any(line.startswith("H,") for line in lines):
        raise strange(answer)
    return [_row(answer, line) for line in lines if line.strip() and not line.startswith("H,")]


def _row(answer: Answer, line: str) -> Row:
    parts = [part.strip() for part in line.split(",")]
    number = _ID.fullmatch(parts[1]) if len(parts) == 4 else None
    if number is None or parts[0] or not parts[3]:
        raise strange(answer)
    word = parts[3]
    state = state_of(word, _WAITING, _ENDS)
    held = word == "HLD"
    return Row(id=number[1], name=parts[2], state=state, why=_ENDS.get(word), held=held)


PJSUB: Final = Dialect(
    name="pjsub",
    commands=(("pjsub",), ("pjstat",), ("pjdel",)),
    element="${PJM_BULKNUM-}",
    submit=_submit,
    receipt=re.compile(r"\[INFO\] PJM \d{4} pjsub Job (\d{1,20}) submitted\.\s*"),
    search=_search,
    rows=_rows,
    full=re.compile(r"accept limit|limit of the number of jobs|exceeds? .*limit", re.IGNORECASE),
    away=re.compile(
        r"not running|connect|timed? ?out|busy|try again|temporar|communication", re.IGNORECASE
    ),
)
