"""Everything that leaves a site: collect, decide, record, send. The only caller of `clear`.

P6: the decision, bound to the digest of what was copied, is synced in the site's log before the
first byte leaves; if the log cannot be written, nothing leaves.
P4: what is sent is the staged copy that the recorded digest names, however often it is sent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from sekisho.domain.egress import Cleared, Decision, Fault, Withheld, clear, decide
from sekisho.domain.errors import Corrupt, IntegrityError, StorageFull
from sekisho.domain.files import Pattern
from sekisho.domain.run import Run, Stage, Stop, advance
from sekisho.domain.sitelog import Kind, Link
from sekisho.site.desk import Control, Desk, at_workplace, hold_of
from sekisho.site.mailbox import LastWord, Step
from sekisho.site.outcome import COPY_DAMAGED, DISK_FULL, envelope, reason_of, verdict_of, went_well
from sekisho.site.shown import Shown
from sekisho.site.steps import Steps
from sekisho.site.workplace import Collected, Staged
from sekisho.wire.envelope import open_request, seal

log = structlog.get_logger()

#: How long what was computed waits for room on the site's disk before its job fails.
ROOM_SECONDS: Final = 86_400.0
#: How often a copy may be found damaged before its job fails: the disk does not keep it.
MAX_DAMAGED: Final = 5
_KINDS = {
    Stage.REFUSED: Kind.REFUSED,
    Stage.FAILED: Kind.FAILED,
    Stage.CANCELLED: Kind.CANCELLED,
    Stage.LOST: Kind.LOST,
}
#: What is sent within a moment is not announced before: the last word tells the steps as well.
SOON_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class _Copy:
    """What was found, what was decided, and the copy of what leaves."""

    collected: Collected
    decision: Decision
    staged: Staged
    step: Fault | None = None  #: what went wrong after the command

    @property
    def faults(self) -> tuple[Fault, ...]:
        first = () if self.step is None else (self.step,)
        return first + self.collected.faults + self.decision.faults + self.staged.faults

    @property
    def withheld(self) -> tuple[Withheld, ...]:
        return self.collected.withheld + self.decision.withheld + self.staged.withheld


class Release:
    """The steps after the command, and every word that leaves the site."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._steps = Steps(desk)

    async def close(self, run: Run, stage: Stage, fault: Fault | None) -> Run:
        """End ``run`` without outputs: refused, unable, cancelled, lost. Logged, then journaled."""
        result = await self._recorded(run, stage, fault)
        run = advance(run, stage, result=result, finished_at=self._desk.clock.now())
        return await self._desk.save(run)

    async def refuse(self, run: Run, fault: Fault) -> None:
        """Tell the broker that ``run``, which the journal does not know, is refused."""
        result = await self._recorded(run, Stage.REFUSED, fault)
        word = verdict_of(run, Stage.REFUSED)
        last = LastWord(verdict=word, result=result, tree=None, steps=())
        await self._desk.mailbox.tell(hold_of(run), clear(last))

    async def _recorded(self, run: Run, stage: Stage, fault: Fault | None) -> bytes:
        """Log an end without outputs; return the outcome that may be told of it."""
        facts: dict[str, Any] = {"code": fault.code if fault else None}
        link = await self._desk.log(run, (_KINDS[stage], facts))
        return envelope(run, verdict_of(run, stage), fault, tree=None, receipt=link.digest)

    async def publish(self, run: Run, shown: Shown) -> None:
        """Record what is shown of the running command, by digest, and let it go."""
        link = await self._desk.log(run, (Kind.PUBLISHED, shown.facts()))
        snapshot = shown.snapshot(self._desk.clock.now(), link.digest)
        await self._desk.mailbox.publish(hold_of(run), clear(seal(snapshot)))

    async def collect(self, run: Run, control: Control) -> Run:
        """Copy what may leave out of the job's reach, and record the decision."""
        control.over = True
        async with control.looking:
            return await self._collect(run, control)

    async def _collect(self, run: Run, control: Control) -> Run:
        if run.stop is Stop.CANCEL and run.exit is not None and run.exit.code != 0:
            return await self.close(run, Stage.CANCELLED, None)
        fault = await self._finished(run, control)
        collected = await at_workplace(run, self._collected, run, fault)
        return collected or await self._without_room(run, control)

    def _collected(self, run: Run, fault: Fault | None) -> Run | None:
        """Copy, decide, record; None when there is no room for the copy."""
        try:
            copy = self._copy(run, fault)
        except StorageFull:
            return None
        return self._decided(advance(run, Stage.COLLECTED), copy)

    async def _without_room(self, run: Run, control: Control) -> Run:
        """Have the copy tried again for as long as somebody may make room and wants the result."""
        now = self._desk.clock.monotonic()
        control.full_since = now if control.full_since is None else control.full_since
        if control.stop is Stop.CANCEL or now - control.full_since >= ROOM_SECONDS:
            return await self.close(run, Stage.FAILED, DISK_FULL)
        raise StorageFull(DISK_FULL.code)

    async def _finished(self, run: Run, control: Control) -> Fault | None:
        """Have done what comes after a command that ended well; return what went wrong."""
        command = self._desk.word().command(run)
        if command is None or run.exit is None or run.exit.code != 0:
            return None
        return await self._steps.run(run, command, "after", control)

    def _copy(self, run: Run, fault: Fault | None) -> _Copy:
        """Walk, decide, copy. A command that the manifest no longer has may release nothing."""
        place, workplace = self._desk.place(run), self._desk.workplace(run)
        collected = workplace.collect(place)
        command = self._desk.word().command(run)
        requested = [Pattern(text) for text in open_request(run.request).outputs]
        rules, most = (command.outputs, command.max_output_name_bytes) if command else ((), 0)
        decision = decide(rules, requested, collected.found, most)
        if command is None:
            gone = Fault("command.unknown", (("command", run.command),))
            decision = replace(decision, faults=(gone, *decision.faults))
        logs = (command.stdout, command.stderr) if command else None
        released = set(decision.release)
        files = [file for file in collected.found if file.path in released]
        if command and decision.name_bytes > most:
            log.warning(
                "output_names_withheld",
                job=run.job,
                epoch=run.epoch,
                command=command.name,
                max_output_name_bytes=most,
                name_bytes=decision.name_bytes,
            )
        return _Copy(collected, decision, workplace.stage(place, files, logs), fault)

    def _decided(self, run: Run, copy: _Copy) -> Run:
        """Log what leaves, by digest; remember and return ``run`` with the outcome to be told."""
        run = replace(run, ok=went_well(run, copy.faults))
        word = verdict_of(run, Stage.COLLECTED)
        fault = reason_of(run, copy.faults)
        tree = copy.staged.tree if copy.staged.tree.files else None

        def sealed(link: Link) -> Run:
            result = envelope(run, word, fault, tree=tree, receipt=link.digest)
            sent = tree.digest if tree else None
            return replace(run, result=result, tree=sent, seal=copy.staged.seal)

        released = (Kind.RELEASED, _release_facts(word, fault, copy))
        return self._desk.keep(run, (Kind.ENDED, _end_facts(run)), released, sealed=sealed)

    async def deliver(self, run: Run, control: Control) -> Run:
        """Send the staged copy and the last word; both may be repeated."""
        if run.tree is not None:
            try:
                staged = await at_workplace(run, self._restage, run)
            except (IntegrityError, Corrupt):
                return await self._mend(run, control)
            if staged.tree.size > SOON_BYTES:
                run = await self.announce(run)
            await self._desk.mailbox.send(hold_of(run), clear(staged))
        await self._desk.mailbox.tell(hold_of(run), _last_word(run))
        run = self._settled(advance(run, Stage.RETURNED))
        return await self._desk.record(run, (Kind.RETURNED, {"tree": run.tree}), lasting=False)

    async def _mend(self, run: Run, control: Control) -> Run:
        """Make a damaged copy of what leaves anew, once; look again some times; then give up."""
        control.damaged += 1
        if control.damaged >= MAX_DAMAGED:
            return await self.close(run, Stage.FAILED, COPY_DAMAGED)
        if control.damaged > 1:
            raise Corrupt("site.staging_changed", job=run.job)
        fault = await self._finished(run, control)
        return await at_workplace(run, lambda: self._decided(run, self._copy(run, fault)))

    def _restage(self, run: Run) -> Staged:
        """Return the staged copy, if it is still the one that the log says was released."""
        staged = self._desk.workplace(run).staged(self._desk.place(run))
        if not staged.recorded(run):
            raise IntegrityError("site.staging_changed")
        return staged

    async def announce(self, run: Run) -> Run:
        """Tell the broker how far the run is, as far as it has not acknowledged it."""
        steps = _owed(run)
        await self._desk.mailbox.tell(hold_of(run), clear(steps))
        return replace(run, told=(*run.told, *(_STAGE_OF[step] for step in steps)))

    async def give_verdict(self, run: Run, _: Control) -> Run:
        """Tell the broker the end of a run that was closed without outputs."""
        await self._desk.mailbox.tell(hold_of(run), _last_word(run))
        return await self._desk.save(self._settled(run), lasting=False)

    def _settled(self, run: Run) -> Run:
        return replace(run, told=(*run.told, run.stage), finished_at=self._desk.clock.now())


def _last_word(run: Run) -> Cleared[LastWord]:
    return clear(
        LastWord(
            verdict=verdict_of(run, run.stage),
            result=run.result or b"",
            tree=run.tree,
            steps=_owed(run),
        )
    )


_STAGE_OF: dict[Step, Stage] = {"started": Stage.RUNNING, "ended": Stage.ENDED}


def _owed(run: Run) -> tuple[Step, ...]:
    """Return the steps that the broker must hear before a verdict on ``run``, in their order."""
    steps: list[Step] = []
    if run.stage in (Stage.RUNNING, Stage.COLLECTED) and Stage.RUNNING not in run.told:
        steps.append("started")
    if run.stage is Stage.COLLECTED and Stage.ENDED not in run.told:
        steps.append("ended")
    return tuple(steps)


def _end_facts(run: Run) -> dict[str, Any]:
    end = run.exit
    return {
        "exit_code": end.code if end else None,
        "signal": end.signal if end else None,
        "stop": run.stop.value if run.stop else None,
    }


def _release_facts(word: str, fault: Fault | None, copy: _Copy) -> dict[str, Any]:
    tree = copy.staged.tree
    return {
        "verdict": word,
        "code": fault.code if fault else None,
        "tree": tree.digest if tree.files else None,
        "files": [[str(f.path), f.size] for f in tree.files],
        "bytes": tree.size,
        "name_bytes": copy.decision.name_bytes,
        "withheld": [[w.path, w.why] for w in copy.withheld[:1000]],
        "withheld_count": len(copy.withheld) + copy.collected.unlisted,
    }
