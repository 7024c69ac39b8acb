"""The chapters that every telling of the story has, whichever way the files go."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from examples.demo import confinement, proof
from examples.demo.author import OUTPUTS, Answer, Author, LifeFound
from examples.demo.engineer import Engineer
from examples.demo.places import Places
from examples.demo.screen import Screen
from examples.demo.shell import Shell

REFUSED = 77
SHORTEST_LIFE, LONGEST_LIFE = 1e2, 1e9


class Chapters:
    """Tells them on ``screen``; each leaves its checks there."""

    def __init__(self, screen: Screen, shell: Shell, places: Places) -> None:
        self.screen = screen
        self.shell = shell
        self.places = places
        self.engineer = Engineer(shell, places)
        self.author = Author(shell, places)

    def compute(self, solver: str) -> Answer:
        """Let the site compute, and see what came back."""
        answer = self.author.stresses(solver)
        self.screen.check("came_back", ok=answer.files == by_name(OUTPUTS), files=listed(OUTPUTS))
        return answer

    def use(self, answer: Answer) -> LifeFound:
        """Compute the fatigue life from what came back."""
        life = self.author.life()
        sound = SHORTEST_LIFE < life.cycles < LONGEST_LIFE
        found = {"cycles": f"{life.cycles:.3g}", "solver": life.solver, "job": answer.job}
        self.screen.check("life", ok=sound, **found)
        return life

    def try_more(self, solver: str) -> None:
        """Ask for what the site does not give."""
        self.screen.section("refusals")
        everything = self.author.everything(solver)
        same = everything.files == by_name(OUTPUTS)
        self.screen.check("curious", ok=same, files=len(everything.files))
        for name, code, words in (
            ("refuse_file", "output.not_permitted", ("-o", "analysis.inp")),
            ("refuse_value", "parameter.invalid", ("-p", "max_stress=450; cat /etc/passwd")),
            ("refuse_range", "parameter.invalid", ("-p", "max_stress=9000")),
            ("refuse_parameter", "parameter.unknown", ("-p", "site_data=/tmp")),
        ):
            self.expect_refusal(name, code, self.author.refused(*words))
        refused = self.author.refused(command="shell")
        self.expect_refusal("refuse_command", "command.unknown", refused)
        self.pry()

    def pry(self) -> None:
        """Let a program at the site look around: confined as the solver is, and free."""
        if self.places.hpc_port is not None:
            return
        if not confinement.possible():
            self.screen.say("no_confinement")
            return
        tried = len(confinement.TRIED)
        confined = self.author.seen(confinement.CONFINED)
        self.screen.check("confined", ok=confined == f"0 of {tried}", seen=confined)
        free = self.author.seen(confinement.FREE)
        self.screen.check("not_confined", ok=free == f"{tried} of {tried}", seen=free)

    def expect_refusal(self, name: str, code: str, got: tuple[int, str]) -> None:
        """Check that a job was refused with ``code``."""
        self.screen.check(name, ok=got == (REFUSED, code), code=got[1] or "-", status=got[0])

    def look_at_site(self, job: str) -> None:
        """Show what the site's log says of the job, and that nobody has changed it."""
        self.screen.section("site_saw")
        log = self.engineer.log_of(job)
        self.screen.output(log.splitlines())
        told = job in log and all(name in log for name in OUTPUTS)
        self.screen.check("log_tells", ok=told)
        self.screen.check("log_verifies", ok=self.engineer.log_verifies())

    def look_for_secrets(
        self, canaries: list[str], outside: Iterable[Path], check: str = "no_leak"
    ) -> None:
        """Search everything outside the site, and show that the search can find."""
        self.screen.section("secrets")
        outside = tuple(outside)
        names = ("material_model.toml", "specimen.inp", str(self.places.secrets))
        leaks = [f for text in (*canaries, *names) for f in proof.files_with(text, outside)]
        files, size = proof.count_files(outside)
        self.screen.check(check, ok=not leaks, files=files, size=size, found=leaks)
        inside = all(proof.files_with(text, (self.places.secrets,)) for text in canaries)
        work = [f for text in canaries for f in proof.files_with(text, (self.places.work_base,))]
        self.screen.check("found_inside", ok=inside and bool(work), files=listed(work))

    def stop(self, check: str = "stopped", part: Callable[[], None] = lambda: None) -> None:
        """End the servers, then by ``part`` what else is open; look that nothing is left."""
        self.screen.section("end")
        begun = time.monotonic()
        statuses = self.shell.stop()
        took = time.monotonic() - begun
        part()
        self.screen.check(check, ok=not any(statuses), seconds=took)
        left = proof.left_of(self.places.root, {os.getpid(), os.getppid()})
        self.screen.check("nothing_runs", ok=not left, found=left)


def by_name(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(names))


def listed(items: Iterable[str | Path]) -> str:
    return ", ".join(sorted({Path(item).name for item in items}))
