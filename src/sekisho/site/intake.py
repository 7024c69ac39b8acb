"""From an offer to a staged job: the manifest's decision, the accept, the inputs.

P7: what the manifest does not allow is refused here, before anything of the request is used.
P3: the journal has the job before the broker hears that it is accepted.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from sekisho.domain.egress import Fault, clear_reason
from sekisho.domain.errors import (
    Conflict,
    IntegrityError,
    InvalidTransition,
    NotFound,
    Refused,
    SekishoError,
    StaleEpoch,
    StorageFull,
    SyncFailed,
    TooLarge,
    UsageError,
)
from sekisho.domain.manifest import Admission, Command
from sekisho.domain.resources import Venue
from sekisho.domain.run import Run, Stage, advance
from sekisho.domain.sitelog import Kind
from sekisho.site.admission import admission
from sekisho.site.desk import Control, Desk, at_workplace, hold_of, in_thread, together
from sekisho.site.early import Early
from sekisho.site.outcome import DISK_FULL, FATE_UNKNOWN, REPLAYED
from sekisho.site.release import Release
from sekisho.site.stock import lendable, without
from sekisho.site.workplace import Place
from sekisho.transfer.tree import Tree
from sekisho.wire.envelope import Request, open_request
from sekisho.wire.v1 import Offer


class Intake:
    """The steps before a start."""

    def __init__(self, desk: Desk, release: Release, early: Early) -> None:
        self._desk = desk
        self._early = early
        self._release = release

    async def take(self, offer: Offer) -> Run:
        """Return the run of a new ``offer``, journaled: taken, or refused with the reason why."""
        run = self._run(offer)
        facts = self._facts(run)
        try:
            return await self._admitted(run, facts)
        except (Refused, UsageError) as reason:
            await self._desk.log(run, (Kind.OFFERED, facts))
            return await self._release.close(run, Stage.REFUSED, clear_reason(reason))

    async def _admitted(self, run: Run, facts: dict[str, Any]) -> Run:
        admission = self._admit(run, self._request(run), None)
        run = replace(run, command=admission.command.name, venue=admission.command.venue)
        known = {**facts, "command": run.command}

        def keep() -> Run:
            if self._desk.journal.knew(run.job):
                raise Refused(REPLAYED.code)
            return self._desk.keep(run, (Kind.OFFERED, known), (Kind.ACCEPTED, {}))

        return await in_thread(keep)

    async def refuse_replay(self, offer: Offer) -> None:
        """Refuse an ``offer`` of a job that ended here, leaving what is remembered of it."""
        run = self._run(offer)
        await self._desk.log(run, (Kind.OFFERED, self._facts(run)))
        await self._release.refuse(run, REPLAYED)

    def _run(self, offer: Offer) -> Run:
        return Run(
            job=offer.job,
            epoch=offer.epoch,
            submitter=offer.submitter,
            request=offer.request,
            taken_at=self._desk.clock.now(),
        )

    def _facts(self, run: Run) -> dict[str, Any]:
        return {
            "submitter": run.submitter,
            "epoch": run.epoch,
            "request": hashlib.sha256(run.request).hexdigest(),
            "manifest": self._desk.word().manifest.digest,
        }

    async def accept_anew(self, run: Run, control: Control) -> Run:
        """Take the offer of a job in hand: the broker never heard, or forgot, that it is ours.

        As after its restore from a backup. Nothing is started; the run goes on under the new epoch.
        """
        run = await self._desk.save(replace(run, epoch=control.offered, told=()))
        if run.stage is Stage.TAKEN:
            return run
        control.running = run  # said nothing of it under this epoch, as long as it is not ours
        with suppress(StaleEpoch, InvalidTransition):  # too late: there will be a next one
            await self._desk.mailbox.accept(hold_of(run))
            control.running = None
        return run

    async def accept(self, run: Run, control: Control) -> Run:
        """Tell the broker that the job is ours; it is then nobody else's, ever.

        Without inputs, of which something may be wrong, its directories are made meanwhile; what
        may be wrong with those shows when it is staged.
        """
        async with together() as group:
            group.start_soon(self._prepare, run, control)
            await self._desk.mailbox.accept(hold_of(run))
        return advance(run, Stage.ACCEPTED)

    async def _prepare(self, run: Run, control: Control) -> None:
        if control.prepared == run.attempt or self._request(run).inputs is not None:
            return
        try:
            prepare = self._desk.workplace(run).prepare
            await at_workplace(run, prepare, run.job, run.attempt)
        except SyncFailed:
            raise
        except SekishoError:
            return
        control.prepared = run.attempt

    async def stage(self, run: Run, control: Control) -> Run:
        """Fetch the inputs into a fresh work directory, if the manifest allows what they are."""
        if control.stop is not None:
            return await self._release.close(run, Stage.CANCELLED, None)
        try:
            manifest = self._desk.word().manifest.digest
            tree = await self._listed(run)
            if refusal := self._refusal(run, tree):
                return await self._release.close(run, Stage.REFUSED, refusal)
            kept = must_last(self._desk.word().command(run))
            run = replace(run, kept=kept, manifest=manifest)
            await self._fetch(run, tree, control)
        except SekishoError as reason:
            return await self._not_staged(run, reason)
        return advance(run, Stage.STAGED)

    async def reviewed(self, run: Run) -> Run:
        """Return ``run``, or its end when the present manifest does not allow what was staged.

        Inputs are judged once more when the manifest is another than the one that they passed.
        """
        manifest = self._desk.word().manifest.digest
        if run.manifest == manifest:
            return run
        try:
            if refusal := self._refusal(run, await self._listed(run)):
                return await self._release.close(run, Stage.REFUSED, refusal)
        except SekishoError as reason:
            return await self._not_staged(run, reason)
        return await self._desk.save(replace(run, manifest=manifest), lasting=False)

    async def restage(self, run: Run, control: Control) -> Run:
        """Have the inputs of ``run``, whose start was intended, whole again after a power cut.

        Nothing is touched that may have been started, nor where they were staged to last.
        """
        if run.kept or control.filled == run.attempt:
            return run
        workplace = self._desk.workplace(run)
        try:
            await at_workplace(run, workplace.prepare, run.job, run.attempt)
            control.prepared = run.attempt
            await self._fetch(run, await self._listed(run), control)
        except Conflict as latched:
            if latched.code != "site.attempt_started":
                raise
        except SekishoError as reason:
            return await self._not_staged(run, reason)
        return run

    async def _not_staged(self, run: Run, reason: SekishoError) -> Run:
        """End ``run`` when ``reason`` is about its inputs or our disk; else raise it."""
        match reason:
            case StorageFull():
                return await self._release.close(run, Stage.FAILED, DISK_FULL)
            case Conflict(code="site.attempt_started"):  # the journal was lost, the latch was not
                return await self._release.close(run, Stage.LOST, FATE_UNKNOWN)
            case (
                IntegrityError()
                | UsageError()
                | TooLarge()
                | NotFound(code="chunk.not_found")
                | Conflict(code="fetch.blocked")
            ):
                return await self._release.close(run, Stage.FAILED, clear_reason(reason))
            case _:  # the line, the credential, the broker's word: not a matter of these inputs
                raise reason

    async def _listed(self, run: Run) -> Tree:
        inputs = self._request(run).inputs
        if inputs is None:
            return Tree()
        return await self._desk.mailbox.list_inputs(hold_of(run), inputs)

    async def _fetch(self, run: Run, tree: Tree, control: Control) -> None:
        workplace = self._desk.workplace(run)
        if control.prepared != run.attempt:
            await at_workplace(run, workplace.prepare, run.job, run.attempt)
        control.prepared = 0  # another try begins with fresh ones
        if tree.files:
            await self._early.settle(run.job)
            try:
                where = workplace.place(run.job, run.attempt)
                await self._bring(run, tree, where)
                await self._early.drop(run.job)
                await at_workplace(run, workplace.fill, where)
            except StorageFull:
                await self._give_room(run)
                raise
        control.filled = run.attempt

    async def _bring(self, run: Run, tree: Tree, where: Place) -> None:
        """Put the files of ``tree`` into ``input_dir``: lent, as far as may be, or fetched."""
        stock = self._desk.stock
        if stock is None:
            return await self._fetched(run, tree, where)
        shared = lendable(self._desk.word().command(run), tree, clones=stock.clones)
        for writable, files in shared:
            lend = partial(stock.lend, writable=writable, lasting=run.kept)
            tree = without(tree, await in_thread(lend, run.submitter, where, files))
        await self._fetched(run, tree, where)
        came = {file.path for file in tree.files}
        for writable, files in shared:
            if fresh := [file for file in files if file.path in came]:
                keep = partial(stock.keep, writable=writable)
                await in_thread(keep, run.submitter, where, fresh)
        return None

    async def _fetched(self, run: Run, tree: Tree, where: Place) -> None:
        if tree.files:
            fetch = self._desk.mailbox.fetch
            await fetch(hold_of(run), tree, where.input_dir, lasting=run.kept)

    async def _give_room(self, run: Run) -> None:
        """Remove inputs that are half there: they would keep the room from everybody for long.

        The attempt's directories are fresh, as `prepare` has just seen: nothing was started there,
        and without them nothing can be.
        """
        if run.attempt == 1:
            with suppress(SekishoError):
                await at_workplace(run, self._desk.workplace(run).purge, run.job)

    def _refusal(self, run: Run, tree: Tree) -> Fault | None:
        try:
            self._admit(run, self._request(run), tree)
        except Refused as reason:
            return clear_reason(reason)
        return None

    def admission(self, run: Run) -> Admission:
        """Return what the manifest allows for ``run`` at this moment, or raise Refused."""
        return self._admit(run, self._request(run), None)

    def _request(self, run: Run) -> Request:
        return open_request(run.request)

    def _admit(self, run: Run, request: Request, tree: Tree | None) -> Admission:
        return admission(self._desk.word(), run.submitter, request, tree)


def must_last(command: Command | None) -> bool:
    """Say whether inputs for ``command`` must outlive a power cut of this machine.

    They must where what is to use them does: a batch system's queue, another host, what was done
    before the command. Otherwise they are staged again: nothing was started.
    """
    return command is None or command.venue != Venue() or command.before is not None
