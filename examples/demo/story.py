"""The demo's story, in the order in which it happens, and what is checked along the way."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from examples.demo import proof
from examples.demo.author import OUTPUTS, Answer, LifeFound
from examples.demo.chapters import Chapters
from examples.demo.operator import Operator
from examples.demo.places import Places
from examples.demo.screen import Screen
from examples.demo.shell import Shell


@dataclass(frozen=True, slots=True)
class Told:
    """The numbers of the story; without a broker nobody outside knows how long a command took."""

    answer: Answer
    life: LifeFound
    command_seconds: float | None = None


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
        self._chapters = Chapters(screen, shell, places)
        self._engineer = self._chapters.engineer
        self._author = self._chapters.author

    def tell(self, solver: str) -> Told:
        """Tell all of it; whether it went well is in the screen's checks."""
        self._places.make()
        broker = self._set_up_broker()
        canaries = self._set_up_site()
        with proof.Watch(self._places.site) as watch:
            servers = Servers(broker, self._engineer.start_agent())
            answer = self._compute(solver)
            life = self._chapters.use(answer)
            self._chapters.try_more(solver)
        command_seconds = self._look_at_broker(answer)
        self._look_at_slurm()
        self._chapters.look_at_site(answer.job)
        self._look_for_secrets(canaries)
        self._look_at_sockets(watch, servers)
        self._stop()
        return Told(answer, life, command_seconds)

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
        return self._chapters.compute(solver)

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

    def _look_at_slurm(self) -> None:
        """Show what the batch system says of the jobs, if one started them."""
        if self._places.slurm_conf is None:
            return
        self._screen.section("slurm")
        told = self._engineer.queue()
        self._screen.output(told)
        states = [line.split()[-1] for line in told]
        ok = len(states) > 0 and set(states) == {"COMPLETED"}
        self._screen.check("slurm_ran", ok=ok, count=len(states))

    def _look_for_secrets(self, canaries: list[str]) -> None:
        """Search everything outside the site, and show that the search can find."""
        self._chapters.look_for_secrets(canaries, (self._places.broker, self._places.workflow))
        result = (self._places.results / OUTPUTS[0]).read_text("utf-8").splitlines()[1]
        chunks = proof.files_with(result, (self._places.broker / "chunks",))
        self._screen.check("found_chunk", ok=bool(chunks), file=OUTPUTS[0])

    def _stop(self) -> None:
        self._chapters.stop()

    def _look_at_sockets(self, watch: proof.Watch, servers: Servers) -> None:
        self._screen.section("sockets")
        agent = watch.seen | proof.listening((servers.agent,))
        looked = watch.looks > 0 and self._shell.alive(servers.agent)
        self._screen.check("no_port", ok=looked and not agent, looks=watch.looks, found=agent)
        broker = proof.listening((servers.broker,))
        self._screen.check("port_found", ok=len(broker) == 1, port=self._places.port)


def _facts(told: dict[str, Any], times: dict[str, datetime]) -> list[str]:
    """Return what the broker tells of a job as lines; times count from the submission."""
    job = told["job"]
    lines = [f"{name}: {job[name]}" for name in ("id", "site", "submitter", "state")]
    lines.append(f"chunks: {told['chunks']} ({told['chunk_bytes']} bytes)")
    begun = min(times.values())
    lines += [f"{(at - begun).total_seconds():8.3f} s  {state}" for state, at in times.items()]
    return lines
