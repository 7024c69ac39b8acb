"""Grid Engine and its kin: `qsub -terse`, `qstat -xml`, `qdel`. Tried with Grid Engine 8.1."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from sekisho.adapters.schedulers.dialect import (
    LOG,
    SCRIPT,
    Dialect,
    Row,
    State,
    Submission,
    Words,
    clock,
    mebibytes,
    strange,
)
from sekisho.site.host import Answer

_ITEM: Final = re.compile(r"<job_list\b[^>]*>(.*?)</job_list>", re.DOTALL)
_TAG: Final = re.compile(r"<(JB_job_number|JB_name|state)>([^<]*)</\1>")


def _lists(job: Submission) -> Iterator[str]:
    asked = job.resources
    yield f"h_rt={clock(job.wall_time)}"
    if asked.memory is not None:
        yield f"h_vmem={mebibytes(asked.memory)}M"
    if asked.gpus is not None:
        yield f"gpu={asked.gpus}"
    yield from asked.licences


def _submit(command: Words, job: Submission) -> Words:
    """Return the line. A parallel environment is the site's own word: a directive `-pe NAME N`."""
    asked, tasks = job.resources, job.numbers(first=1)
    at_once = () if asked.at_once is None else ("-tc", str(asked.at_once))
    return (
        *command,
        *asked.directives,
        *(("-q", asked.queue) if asked.queue is not None else ()),
        *(("-P", asked.account) if asked.account is not None else ()),
        *(word for item in _lists(job) for word in ("-l", item)),
        *("-terse", "-r", "n", "-m", "n", "-S", "/bin/sh", "-wd", job.directory),
        *(() if tasks is None else ("-t", tasks, *at_once)),
        *("-i", "/dev/null", "-j", "y", "-o", f"{job.directory}/{LOG}"),
        *("-N", job.name, f"{job.directory}/{SCRIPT}"),
    )


def _search(command: Words, _: Sequence[str], user: str) -> Words:
    return (*command, "-xml", "-u", user)


def _rows(answer: Answer) -> list[Row]:
    text = answer.stdout.decode("utf-8", "replace")
    if answer.code != 0 or not re.search(r"</job_info>\s*\Z", text):
        raise strange(answer)
    return [_row(answer, item) for item in _ITEM.findall(text)]


def _row(answer: Answer, item: str) -> Row:
    fields = dict(_TAG.findall(item))
    if fields.keys() != {"JB_job_number", "JB_name", "state"}:
        raise strange(answer)
    word = fields["state"]
    waiting = "q" in word  # qw, hqw, Eqw; what runs is r, t, s, dr
    return Row(
        id=fields["JB_job_number"],
        name=fields["JB_name"],
        state=State.WAITING if waiting else State.ALIVE,
        held=waiting and ("h" in word or "E" in word),
    )


SGE: Final = Dialect(
    name="sge",
    commands=(("qsub",), ("qstat",), ("qdel",)),
    element="${SGE_TASK_ID-}",
    first=1,
    submit=_submit,
    receipt=re.compile(r"(\d{1,20})(?:\.1-\d{1,5}:1)?\n?"),
    search=_search,
    rows=_rows,
    full=re.compile(r"jobs? (?:are|is) allowed|would exceed|job rejected: only", re.IGNORECASE),
    away=re.compile(
        r"commlib|contact qmaster|unable to send|can't get|can't connect|timeout|timed out"
        r"|connection|denied: .*qmaster|try again|got no response",
        re.IGNORECASE,
    ),
)
