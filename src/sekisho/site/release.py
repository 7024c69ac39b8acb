"""From an end to a returned result: collect, decide, record, send. The only caller of `clear`.

P6: the decision, bound to the digest of what was copied, is synced in the site's log before the
first byte leaves; if the log cannot be written, nothing leaves.
P4: what is sent is the staged copy that the recorded digest names, however often it is sent.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sekisho.domain.egress import Cleared, Decision, Fault, clear, decide
from sekisho.domain.errors import IntegrityError, StorageFull
from sekisho.domain.files import Pattern
from sekisho.domain.run import Run, Stage, Stop, advance
from sekisho.domain.sitelog import Kind
from sekisho.site.desk import Control, Desk, hold_of, in_thread
from sekisho.site.mailbox import LastWord, Step
from sekisho.site.outcome import DISK_FULL, envelope, reason_of, verdict_of, went_well
from sekisho.site.workplace import Collected, Staged
from sekisho.wire.envelope import open_request

_KINDS = {
    Stage.REFUSED: Kind.REFUSED,
    Stage.FAILED: Kind.FAILED,
    Stage.CANCELLED: Kind.CANCELLED,
    Stage.LOST: Kind.LOST,
}


class Release:
    """The steps after the command, and every word that leaves the site."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def close(self, run: Run, stage: Stage, fault: Fault | None) -> Run:
        """End ``run`` without outputs: refused, unable, cancelled, lost. Logged, then journaled."""
        facts: dict[str, Any] = {"code": fault.code if fault else None}
        link = await self._desk.log(run, (_KINDS[stage], facts))
        word = verdict_of(run, stage)
        result = envelope(run, word, fault, tree=None, receipt=link.digest)
        run = advance(run, stage, result=result, finished_at=self._desk.clock.now())
        return await self._desk.save(run)

    async def collect(self, run: Run, _: Control) -> Run:
        """Copy what may leave out of the job's reach, and record the decision."""
        if run.stop is Stop.CANCEL and run.exit is not None and run.exit.code != 0:
            return await self.close(run, Stage.CANCELLED, None)
        try:
            collected, decision, staged = await in_thread(self._stage, run)
        except StorageFull:
            return await self.close(run, Stage.FAILED, DISK_FULL)
        faults = collected.faults + decision.faults + staged.faults
        run = replace(run, ok=went_well(run, faults))
        word = verdict_of(run, Stage.COLLECTED)
        fault = reason_of(run, faults)
        link = await self._desk.log(
            run,
            (Kind.ENDED, _end_facts(run)),
            (Kind.RELEASED, _release_facts(word, fault, collected, decision, staged)),
        )
        tree = staged.tree if staged.tree.files else None
        result = envelope(run, word, fault, tree=tree, receipt=link.digest)
        run = advance(run, Stage.COLLECTED, result=result, tree=tree.digest if tree else None)
        return await self._desk.save(run)

    def _stage(self, run: Run) -> tuple[Collected, Decision, Staged]:
        """Walk, decide, copy. A command that the manifest no longer has may release nothing."""
        place = self._desk.workplace.place(run.job, run.attempt)
        collected = self._desk.workplace.collect(place)
        command = self._desk.word().command(run)
        requested = [Pattern(text) for text in open_request(run.request).outputs]
        decision = decide(command.outputs if command else (), requested, collected.found)
        logs = (command.stdout, command.stderr) if command else None
        released = set(decision.release)
        files = [file for file in collected.found if file.path in released]
        return collected, decision, self._desk.workplace.stage(place, files, logs)

    async def deliver(self, run: Run, _: Control) -> Run:
        """Send the staged copy and the last word; both may be repeated."""
        if run.tree is not None:
            staged = await in_thread(self._restage, run)
            run = await self.announce(run)
            await self._desk.mailbox.send(hold_of(run), clear(staged))
        run = advance(await self._speak(run), Stage.RETURNED)
        await self._desk.log(run, (Kind.RETURNED, {"tree": run.tree}))
        return await self._settle(run)

    def _restage(self, run: Run) -> Staged:
        """Return the staged copy, if it is still the one that the log says was released."""
        place = self._desk.workplace.place(run.job, run.attempt)
        staged = self._desk.workplace.staged(place)
        if staged.tree.digest != run.tree:
            raise IntegrityError("site.staging_changed")
        return staged

    async def announce(self, run: Run) -> Run:
        """Tell the broker how far the run is, as far as it has not acknowledged it."""
        if steps := _owed(run):
            await self._desk.mailbox.tell(hold_of(run), clear(steps))
            run = replace(run, told=(*run.told, *(_STAGE_OF[step] for step in steps)))
        return run

    async def give_verdict(self, run: Run, _: Control) -> Run:
        """Tell the broker the end of a run that was closed without outputs."""
        return await self._settle(await self._speak(run))

    async def _speak(self, run: Run) -> Run:
        await self._desk.mailbox.tell(hold_of(run), self._last_word(run))
        return run

    def _last_word(self, run: Run) -> Cleared[LastWord]:
        return clear(
            LastWord(
                verdict=verdict_of(run, run.stage),
                result=run.result or b"",
                tree=run.tree,
                steps=_owed(run),
            )
        )

    async def _settle(self, run: Run) -> Run:
        run = replace(run, told=(*run.told, run.stage), finished_at=self._desk.clock.now())
        return await self._desk.save(run)


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


def _release_facts(
    word: str, fault: Fault | None, collected: Collected, decision: Decision, staged: Staged
) -> dict[str, Any]:
    withheld = (*collected.withheld, *decision.withheld, *staged.withheld)
    return {
        "verdict": word,
        "code": fault.code if fault else None,
        "tree": staged.tree.digest if staged.tree.files else None,
        "files": [[str(f.path), f.size] for f in staged.tree.files],
        "bytes": staged.tree.size,
        "withheld": [[w.path, w.why] for w in withheld[:1000]],
        "withheld_count": len(withheld) + collected.unlisted,
    }
