"""How a run ended, in the words that its submitter may read."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sekisho.domain.egress import Fault
from sekisho.domain.run import Part, Run, Stage, Stop
from sekisho.site.mailbox import VerdictWord
from sekisho.transfer.tree import Tree
from sekisho.wire.envelope import Outcome, seal

#: What each final stage is called towards the workflow side. `RETURNED` depends on `Run.ok`.
VERDICTS: Final[dict[Stage, VerdictWord]] = {
    Stage.REFUSED: "refused",
    Stage.FAILED: "unable",
    Stage.CANCELLED: "cancelled",
    Stage.LOST: "lost",
}

LIMIT_TIME: Final = Fault("limit.time")
DISK_FULL: Final = Fault("site.disk_full")
COPY_DAMAGED: Final = Fault("site.copy_damaged")
FATE_UNKNOWN: Final = Fault("site.fate_unknown")
NOT_LAUNCHED: Final = Fault("launch.failed")
PREEMPTED: Final = Fault("scheduler.preempted")
#: What a scheduler may say of an end that was not the command's own, by code.
ENDED_BY: Final = {
    fault.code: fault
    for fault in (
        LIMIT_TIME,
        PREEMPTED,
        Fault("limit.memory"),
        Fault("scheduler.cancelled"),
        Fault("scheduler.node_failed"),
    )
}
#: After these nobody needs to guess: the command was killed, and running it again would not help.
KILLED: Final = frozenset({"limit.time", "limit.memory", "scheduler.cancelled"})
#: After these a command that may be repeated is, even if it had time to say good-bye.
INTERRUPTED: Final = frozenset({PREEMPTED.code, "scheduler.node_failed"})
REPLAYED: Final = Fault("job.replayed")


def verdict_of(run: Run, stage: Stage) -> VerdictWord:
    """Return the word for ``run`` in the final ``stage``."""
    if stage in (Stage.COLLECTED, Stage.RETURNED):
        return "succeeded" if run.ok else "failed"
    return VERDICTS[stage]


def fate(
    run: Run, why: str | None, part: Part | None = None, *, started: bool
) -> tuple[Stage, Fault | None]:
    """Return how ``run`` ends, of which nothing runs and that left no record of its end.

    Of an array, ``part`` is what left none.
    """
    if run.stop is Stop.CANCEL:
        return Stage.CANCELLED, None
    if run.stop is Stop.TIME_LIMIT:
        return Stage.FAILED, LIMIT_TIME
    if why in KILLED or why == PREEMPTED.code:
        return Stage.FAILED, _in_part(ENDED_BY[why], part)
    if part is not None and part.lost:
        return Stage.LOST, _in_part(Fault("array.lost"), replace(part, unstarted=""))
    if part is not None:
        return Stage.FAILED, _in_part(Fault("array.unstarted"), part)
    return (Stage.LOST, FATE_UNKNOWN) if started else (Stage.FAILED, NOT_LAUNCHED)


def _in_part(fault: Fault, part: Part | None) -> Fault:
    """Return ``fault`` with the elements that it is about, if it is one of an array."""
    if part is None:
        return fault
    elements = part.failed or ",".join(each for each in (part.lost, part.unstarted) if each)
    return replace(fault, params=(("count", part.count), ("elements", elements)))


def went_well(run: Run, faults: tuple[Fault, ...]) -> bool:
    """Say whether an ended run counts as success: exit code 0 and every output there.

    A command that ended well before a stop reached it has ended well (P9).
    """
    return run.exit is not None and run.exit.code == 0 and not faults


def reason_of(run: Run, faults: tuple[Fault, ...]) -> Fault | None:
    """Return the one reason that the submitter is told; the first that explains the others."""
    if run.stop is Stop.TIME_LIMIT and run.exit is not None and run.exit.code != 0:
        return LIMIT_TIME
    if run.why in ENDED_BY:
        return _in_part(ENDED_BY[run.why], run.part)
    if run.part is not None:
        return _in_part(Fault("array.failed"), run.part)
    return faults[0] if faults else None


def envelope(
    run: Run, word: VerdictWord, fault: Fault | None, *, tree: Tree | None, receipt: str | None
) -> bytes:
    """Return the outcome envelope: codes, numbers and the names that were cleared."""
    end = run.exit
    return seal(
        Outcome(
            verdict=word,
            exit_code=end.code if end else None,
            signal=end.signal if end and end.signal else None,
            code=fault.code if fault else None,
            params=dict(fault.params) if fault else {},
            outputs=tree.ref() if tree else None,
            started_at=end.started_at if end else None,
            ended_at=end.ended_at if end else None,
            receipt=receipt,
        )
    )
