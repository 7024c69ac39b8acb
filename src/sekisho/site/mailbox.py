"""What the runner needs of the lane to the workflow side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from sekisho.domain.egress import Cleared
from sekisho.site.workplace import Staged
from sekisho.transfer.tree import Tree
from sekisho.wire.envelope import TreeRef
from sekisho.wire.v1 import Coming, PollAnswer

Step = Literal["started", "ended"]
VerdictWord = Literal["succeeded", "failed", "unable", "refused", "cancelled", "lost"]


@dataclass(frozen=True, slots=True)
class Hold:
    """A job under the offer by which this site speaks of it.

    ``submitter`` says for whom its inputs may be kept; "": for nobody.
    """

    job: str
    epoch: int
    submitter: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastWord:
    """A site's verdict: the opaque outcome, the tree that was sent before, steps not yet told."""

    verdict: VerdictWord
    result: bytes
    tree: str | None
    steps: tuple[Step, ...]


class Mailbox(Protocol):
    """The lane, from the site's end. Only cleared values go out.

    Every method may be repeated and is then answered the same. An adapter does not retry for ever:
    Unavailable comes back to the runner, which retries for as long as the work is owed. StaleEpoch:
    the hold is no longer this site's. Cancellation at any await loses nothing. An error after which
    part of the files is there already says so (``advanced``).
    """

    async def poll(
        self,
        *,
        free: int,
        holds: Sequence[str],
        cancelling: Sequence[str],
        wait_s: float,
        coming: Sequence[str] | None = None,
    ) -> PollAnswer:
        """Ask for at most ``free`` offers and for cancel requests on ``holds``; wait for news.

        Unless None, also for drafts other than those in ``coming``, and which of these are gone.
        """
        ...

    async def accept(self, hold: Hold) -> None:
        """Take the job. Call it only after the journal has it."""
        ...

    async def list_inputs(self, hold: Hold, ref: TreeRef) -> Tree:
        """Return the verified list of the input files."""
        ...

    async def fetch(self, hold: Hold, tree: Tree, directory: str, *, lasting: bool) -> None:
        """Place the files of ``tree``, verified, in ``directory``; resumes what was begun.

        Unless ``lasting`` a power cut may take them away again, or a part of each.
        """
        ...

    async def send(self, hold: Hold, staged: Cleared[Staged]) -> None:
        """Store the staged outputs at the other side; resumes what was begun."""
        ...

    async def publish(self, hold: Hold, snapshot: Cleared[bytes]) -> None:
        """Show the opaque snapshot of a running job, in place of the one before.

        A lane that cannot shows nothing.
        """
        ...

    async def tell(self, hold: Hold, news: Cleared[tuple[Step, ...]] | Cleared[LastWord]) -> None:
        """Report steps, or give the last word."""
        ...


class EarlyLine(Protocol):
    """A lane that lets inputs be fetched before their job is offered."""

    async def fetch(self, coming: Coming, ref: TreeRef, allow: Callable[[Tree], Tree]) -> None:
        """Fetch what arrives until all is here, and hold it for `Mailbox.fetch` of this job.

        ``allow`` raises for a tree that is not to be fetched, and returns the part of it that is.
        May be repeated, and goes on where it was. Cancellation is heard soon. Raise
        InvalidTransition or NotFound for what no longer waits, Conflict(`early.silent`) when
        nothing has come for long, StorageFull before it would take room that jobs may need,
        Unavailable.
        """
        ...

    async def drop(self, job: str | None) -> None:
        """Remove what is held of ``job``, or of all jobs, from this process or another."""
        ...
