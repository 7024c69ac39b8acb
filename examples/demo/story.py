"""The demo's story, in the order in which it happens, and what is checked along the way."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from examples.demo import proof
from examples.demo.author import OUTPUTS, Answer, Author, LifeFound
from examples.demo.engineer import Engineer
from examples.demo.operator import Operator
from examples.demo.places import Places
from examples.demo.screen import Screen
from examples.demo.shell import Shell

REFUSED = 77
SHORTEST_LIFE, LONGEST_LIFE = 1e2, 1e9


@dataclass(frozen=True, slots=True)
class Told:
    """The numbers of the story."""

    answer: Answer
    command_seconds: float
    life: LifeFound


@dataclass(frozen=True, slots=True)
class Servers:
    """The process ids of the broker and the agent."""

    broker: int
    agent: int


class Story:
    """Tells the story on ``screen``, with all files in ``places``."""

    def __init__(self, screen: Screen, shell: Shell, places: Places) -> None:
        self._screen = screen
        self._shell = shell
        self._places = places
        self._operator = Operator(shell, places)
        self._engineer = Engineer(shell, places)
        self._author = Author(shell, places)

    def tell(self, solver: str) -> Told:
        """Tell all of it; whether it went well is in the screen's checks."""
        self._places.make()
        broker = self._set_up_broker()
        canaries = self._set_up_site()
        with proof.Watch(self._places.site) as watch:
            servers = Servers(broker, self._engineer.start_agent())
            answer = self._compute(solver)
            life = self._use(answer)
            self._try_more(solver)
        command_seconds = self._look_at_broker(answer)
        self._look_at_site(answer.job)
        self._look_for_secrets(canaries)
        self._look_at_sockets(watch, servers)
        self._stop()
        return Told(answer, command_seconds, life)

    def _set_up_broker(self) -> int:
        self._screen.section("broker")
        self._operator.set_up()
        self._operator.invite()
        return self._operator.serve()

    def _set_up_site(self) -> list[str]:
        self._screen.section("site")
        canaries = self._engineer.make_secrets()
        self._screen.output(self._engineer.join().splitlines())
        self._screen.say("manifest")
        return canaries

    def _compute(self, solver: str) -> Answer:
        self._screen.section("workflow")
        self._author.set_up()
        answer = self._author.stresses(solver)
        self._screen.check("came_back", ok=answer.files == _sorted(OUTPUTS), files=_list(OUTPUTS))
        return answer

    def _use(self, answer: Answer) -> LifeFound:
        life = self._author.life()
        sound = SHORTEST_LIFE < life.cycles < LONGEST_LIFE
        found = {"cycles": f"{life.cycles:.3g}", "solver": life.solver, "job": answer.job}
        self._screen.check("life", ok=sound, **found)
        return life

    def _try_more(self, solver: str) -> None:
        """Ask for what the site does not give."""
        self._screen.section("refusals")
        everything = self._author.everything(solver)
        same = everything.files == _sorted(OUTPUTS)
        self._screen.check("curious", ok=same, files=len(everything.files))
        for name, code, words in (
            ("refuse_file", "output.not_permitted", ("-o", "analysis.inp")),
            ("refuse_value", "parameter.invalid", ("-p", "max_stress=450; cat /etc/passwd")),
            ("refuse_range", "parameter.invalid", ("-p", "max_stress=9000")),
            ("refuse_parameter", "parameter.unknown", ("-p", "site_data=/tmp")),
        ):
            self._expect_refusal(name, code, self._author.refused(*words))
        refused = self._author.refused(command="shell")
        self._expect_refusal("refuse_command", "command.unknown", refused)

    def _expect_refusal(self, name: str, code: str, got: tuple[int, str]) -> None:
        self._screen.check(name, ok=got == (REFUSED, code), code=got[1] or "-", status=got[0])

    def _look_at_broker(self, answer: Answer) -> float:
        """Show what the broker tells of the job; return how long, as it saw, the command ran."""
        self._screen.section("broker_saw")
        told = self._operator.show(answer.job)
        times = {step["state"]: datetime.fromisoformat(step["at"]) for step in told["history"]}
        self._screen.output(_facts(told, times))
        content = ("notched", "stress", "solver", "reduction")
        self._screen.check("broker_knows", ok=not any(w in json.dumps(told) for w in content))
        took = (times["returning"] - times["running"]).total_seconds()
        rest = answer.seconds - took
        self._screen.say("timing", total=answer.seconds, command=took, rest=rest)
        return took

    def _look_at_site(self, job: str) -> None:
        self._screen.section("site_saw")
        log = self._engineer.log_of(job)
        self._screen.output(log.splitlines())
        told = job in log and all(name in log for name in OUTPUTS)
        self._screen.check("log_tells", ok=told)
        self._screen.check("log_verifies", ok=self._engineer.log_verifies())

    def _look_for_secrets(self, canaries: list[str]) -> None:
        """Search everything outside the site, and show that the search can find."""
        self._screen.section("secrets")
        outside = (self._places.broker, self._places.workflow)
        names = ("material_model.toml", "specimen.inp", str(self._places.secrets))
        leaks = [f for text in (*canaries, *names) for f in proof.files_with(text, outside)]
        files, size = proof.count_files(outside)
        self._screen.check("no_leak", ok=not leaks, files=files, size=size, found=leaks)
        inside = all(proof.files_with(text, (self._places.secrets,)) for text in canaries)
        work = [f for text in canaries for f in proof.files_with(text, (self._places.work_base,))]
        self._screen.check("found_inside", ok=inside and bool(work), files=_list(work))
        result = (self._places.results / OUTPUTS[0]).read_text("utf-8").splitlines()[1]
        chunks = proof.files_with(result, (self._places.broker / "chunks",))
        self._screen.check("found_chunk", ok=bool(chunks), file=OUTPUTS[0])

    def _look_at_sockets(self, watch: proof.Watch, servers: Servers) -> None:
        self._screen.section("sockets")
        agent = watch.seen | proof.listening((servers.agent,))
        looked = watch.looks > 0 and self._shell.alive(servers.agent)
        self._screen.check("no_port", ok=looked and not agent, looks=watch.looks, found=agent)
        broker = proof.listening((servers.broker,))
        self._screen.check("port_found", ok=len(broker) == 1, port=self._places.port)

    def _stop(self) -> None:
        self._screen.section("end")
        begun = time.monotonic()
        statuses = self._shell.stop()
        took = time.monotonic() - begun
        self._screen.check("stopped", ok=not any(statuses), seconds=took)
        left = proof.processes_in(self._places.root) - {os.getpid()}
        self._screen.check("nothing_runs", ok=not left, found=left)


def _facts(told: dict[str, Any], times: dict[str, datetime]) -> list[str]:
    """Return what the broker tells of a job as lines; times count from the submission."""
    job = told["job"]
    lines = [f"{name}: {job[name]}" for name in ("id", "site", "submitter", "state")]
    lines.append(f"chunks: {told['chunks']} ({told['chunk_bytes']} bytes)")
    begun = min(times.values())
    lines += [f"{(at - begun).total_seconds():8.3f} s  {state}" for state, at in times.items()]
    return lines


def _sorted(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(names))


def _list(items: Iterable[str | Path]) -> str:
    return ", ".join(sorted({Path(item).name for item in items}))
