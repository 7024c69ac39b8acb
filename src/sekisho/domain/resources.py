"""What a command asks of a batch system, and how much of that a request may choose.

The site writes a rule; numbers and names in it may be bound to a parameter, within bounds that are
the site's own. What comes out are plain values: no text of a submitter that the site did not list.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from sekisho.domain.errors import Refused, UsageError
from sekisho.domain.parameter import Choice, Integer, Parameter

LOCAL: Final = "local"
#: How the name of a host begins that is reached by ssh; the rest is its alias.
SSH: Final = "ssh:"
MARGIN_SECONDS: Final = 120
#: The most elements that an array may have.
MAX_ELEMENTS: Final = 10_000
DIALECTS: Final = ("slurm", "pbs", "torque", "sge", "pjsub")


@dataclass(frozen=True, slots=True, kw_only=True)
class Venue:
    """On which host, and by which scheduler there, a command runs."""

    host: str = LOCAL
    scheduler: str = LOCAL


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSystem:
    """One batch system as the site has it. Times in seconds; an empty command: the dialect's own.

    ``poll_s`` is the shortest time between two questions to it, ``poll_max_s`` the longest;
    ``settle_s`` is how long a job must be missing before that means something; ``timeout_s`` is
    how long one of its commands may take.
    """

    name: str
    dialect: str
    submit: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    cancel: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    poll_s: float = 2.0
    poll_max_s: float = 30.0
    settle_s: float = 10.0
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """An amount that a request chooses: ``unit`` times the parameter, in ``least..most``."""

    parameter: str
    most: int
    least: int = 1
    unit: int = 1

    def of(self, texts: Mapping[str, str | None]) -> int | None:
        """Return the amount; None when the parameter has no value."""
        text = texts.get(self.parameter)
        if text is None:
            return None
        amount = int(text) * self.unit
        if not self.least <= amount <= self.most:
            raise Refused("parameter.invalid", parameter=self.parameter, why="range")
        return amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A name that a request chooses among the site's ``values``."""

    parameter: str
    values: tuple[str, ...]

    def of(self, texts: Mapping[str, str | None]) -> str | None:
        """Return the name; None when the parameter has no value."""
        text = texts.get(self.parameter)
        if text is not None and text not in self.values:
            raise Refused("parameter.invalid", parameter=self.parameter, why="choice")
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Array:
    """One job that runs its command many times, as the ``elements`` of a job array.

    ``at_once`` is how many of them run at the same time; None: as many as the batch system lets.
    """

    elements: int | Bound
    at_once: int | None = None


Amount = int | Bound | None
Name = str | Listed | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRule:
    """What a command of the manifest asks for; None: nothing is said to the batch system.

    ``memory`` in bytes for each node, ``wall_time`` in seconds, ``licences`` as the batch system
    writes them, ``directives`` whole arguments of its submit command.
    """

    queue: Name = None
    account: Name = None
    nodes: Amount = None
    tasks: Amount = None
    cpus: Amount = None
    memory: Amount = None
    gpus: Amount = None
    wall_time: Amount = None
    array: Array | None = None
    licences: tuple[str, ...] = ()
    directives: tuple[str, ...] = ()

    @property
    def _bound(self) -> tuple[Bound | Listed, ...]:
        every = (
            *(self.queue, self.account, self.nodes, self.tasks, self.cpus, self.memory),
            *(self.gpus, self.wall_time, None if self.array is None else self.array.elements),
        )
        return tuple(each for each in every if isinstance(each, Bound | Listed))

    @property
    def parameters(self) -> frozenset[str]:
        """The names of the parameters that something here is bound to."""
        return frozenset(bound.parameter for bound in self._bound)

    def check(self, parameters: Mapping[str, Parameter]) -> None:
        """Raise UsageError(`manifest.resource`) for a parameter that cannot be what is bound."""
        for bound in self._bound:
            kind, name = (Integer, "integer") if isinstance(bound, Bound) else (Choice, "choice")
            if not isinstance(parameters.get(bound.parameter), kind):
                raise UsageError("manifest.resource", parameter=bound.parameter, type=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one run asks for: as `ResourceRule`, with every choice made.

    ``elements`` is how many times the command is run as an array; None: it is none.
    """

    queue: str | None = None
    account: str | None = None
    nodes: int | None = None
    tasks: int | None = None
    cpus: int | None = None
    memory: int | None = None
    gpus: int | None = None
    wall_time: int | None = None
    elements: int | None = None
    at_once: int | None = None
    licences: tuple[str, ...] = ()
    directives: tuple[str, ...] = ()


def granted(
    rule: ResourceRule, texts: Mapping[str, str | None], time_limit: timedelta
) -> Resources:
    """Return what ``rule`` grants for parameters that read ``texts``, or raise Refused.

    Without a word on it the batch system gives two minutes more than the site's own limit, which
    stops a command politely. The elements of an array begin when the batch system lets them: it
    alone can hold each to the limit.
    """
    array, wall_time = rule.array, _amount(rule.wall_time, texts)
    if wall_time is None:
        margin = MARGIN_SECONDS if array is None else 0
        wall_time = math.ceil(time_limit.total_seconds()) + margin
    return Resources(
        queue=_name(rule.queue, texts),
        account=_name(rule.account, texts),
        nodes=_amount(rule.nodes, texts),
        tasks=_amount(rule.tasks, texts),
        cpus=_amount(rule.cpus, texts),
        memory=_amount(rule.memory, texts),
        gpus=_amount(rule.gpus, texts),
        wall_time=wall_time,
        elements=None if array is None else _amount(array.elements, texts) or 1,
        at_once=None if array is None else array.at_once,
        licences=rule.licences,
        directives=rule.directives,
    )


def _amount(amount: Amount, texts: Mapping[str, str | None]) -> int | None:
    return amount.of(texts) if isinstance(amount, Bound) else amount


def _name(name: Name, texts: Mapping[str, str | None]) -> str | None:
    return name.of(texts) if isinstance(name, Listed) else name
