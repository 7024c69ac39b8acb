"""The workflow's author: one module asks the site for stresses, the next computes the life."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from examples.demo.engineer import COMMAND
from examples.demo.operator import SITE
from examples.demo.places import PROGRAMS, Places
from examples.demo.shell import Ended, Person, Shell

INPUTS = ("reduction_of_area.txt", "tensile_strength.txt", "yield_strength.txt")
OUTPUTS = ("stress_distribution.csv", "stress.png", "summary.json")


@dataclass(frozen=True, slots=True)
class Answer:
    """What `sekisho run` gave: the job, its files' names, and how long it took from outside."""

    job: str
    files: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class LifeFound:
    """What the next module found: cycles to crack initiation, and which solver it rests on."""

    cycles: float
    solver: str
    sentence: str


class Author:
    """What the author types."""

    def __init__(self, shell: Shell, places: Places) -> None:
        self._shell = shell
        self._places = places
        self._who = Person("author", places.workflow)

    def set_up(self) -> None:
        """Take the three property files, and tell the client where the broker is."""
        shutil.copytree(PROGRAMS / "inputs", self._places.workflow / "inputs")
        broker = ("--broker", self._places.url, "--ca", "broker-ca.pem", "--token-file", "token")
        self._type("client", "init", *broker)

    def stresses(self, solver: str) -> Answer:
        """Let the site compute, and fetch what it lets go."""
        return answer_of(self._run(("-p", f"solver={solver}"), OUTPUTS, "results"))

    def everything(self, solver: str) -> Answer:
        """Ask for every file that the command leaves, as a curious author would."""
        return answer_of(self._run(("-p", f"solver={solver}"), ("**",), "curious"))

    def refused(self, *words: str, command: str = COMMAND) -> tuple[int, str]:
        """Ask for what the manifest does not allow; return the status and the site's reason."""
        argv = ("run", SITE, command, *input_words(), *words, "--json")
        return refusal_of(self._type(*argv, expect=None, hidden=input_words()))

    def seen(self, command: str) -> str:
        """Run a command that pries; return how many files it could read."""
        asked = ("-o", "seen.txt", "--into", command, "--json")
        self._type("run", SITE, command, *asked)
        return (self._places.workflow / command / "seen.txt").read_text("utf-8").strip()

    def life(self) -> LifeFound:
        """Compute the fatigue life from what came back: the workflow's next module."""
        argv = ["python", str(PROGRAMS / "fatigue_life.py")]
        argv += ["--distribution", "results/stress_distribution.csv"]
        argv += ["--summary", "results/summary.json"]
        for option, name in zip(("--area", "--tensile", "--yield"), INPUTS, strict=True):
            argv += [option, f"inputs/{name}"]
        sentence = self._shell.run(self._who, argv).out.strip()
        life = json.loads((self._places.workflow / "life.json").read_text("utf-8"))
        summary = json.loads((self._places.results / "summary.json").read_text("utf-8"))
        return LifeFound(float(life["life_cycles"]), str(summary["solver"]), sentence)

    def _run(self, words: Sequence[str], outputs: Sequence[str], into: str) -> Ended:
        asked = [word for name in outputs for word in ("-o", name)]
        argv = ("run", SITE, COMMAND, *input_words(), *words, *asked, "--into", into, "--json")
        return self._type(*argv)

    def _type(self, *words: str, expect: int | None = 0, hidden: Sequence[str] = ()) -> Ended:
        return self._shell.run(self._who, ("sekisho", *words), expect=expect, hidden=hidden)


def input_words() -> list[str]:
    """Return the words that name the three property files."""
    return [word for name in INPUTS for word in ("-i", f"inputs/{name}")]


def answer_of(done: Ended) -> Answer:
    """Return what `sekisho run --json`, or `wait`, told of a job that succeeded."""
    told = json.loads(done.out)
    files = tuple(sorted(file.rsplit("/", 1)[-1] for file in told["files"]))
    return Answer(told["job"], files, done.seconds)


def refusal_of(done: Ended) -> tuple[int, str]:
    """Return the status of a command that was refused, and the reason in what it printed."""
    return done.status, _code(done.out)


def _code(out: str) -> str:
    """Return the reason in what `sekisho run --json` printed."""
    try:
        told = json.loads(out.splitlines()[-1])
    except (IndexError, ValueError):
        return ""
    return str(told.get("code") or told.get("error", {}).get("code") or "")
