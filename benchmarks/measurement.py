"""What every benchmark is made of: steps, each in a process of its own, and their sum."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.results import Result

Tell = Callable[[float], None]
"""Takes how much of a step is done, from 0 to 1."""


@dataclass(frozen=True)
class Step:
    """One process at the near end, a new far end opposite it.

    ``arguments`` go to the module's ``measure(far, tell, **arguments)``, an asynchronous
    function whose result is JSON.
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    round_trip: float = 0.0
    tls: bool = False


Outcomes = list[tuple[Step, Any]]
"""What each step gave; None where this machine cannot have its line."""


class Steps(Protocol):
    """Makes a benchmark's steps."""

    def __call__(self, *, quick: bool) -> list[Step]:
        """The steps; with ``quick`` as few rounds as show that it works."""
        ...


@dataclass(frozen=True)
class Measurement:
    """One benchmark.

    Args:
        module: whose ``measure`` the steps run.
        about: what is measured, in a few words.
        steps: makes its steps.
        combine: makes one result of all outcomes.
    """

    module: str
    about: str
    steps: Steps
    combine: Callable[[Outcomes], Result]

    @property
    def name(self) -> str:
        """What ``--only`` takes."""
        return self.module.rpartition(".")[2]


def counted(total: int, tell: Tell) -> Iterator[int]:
    """``range(total)``, telling how far it is."""
    for done in range(total):
        tell(done / total)
        yield done


async def in_turns(
    ways: Mapping[str, Callable[[], Awaitable[float]]], rounds: int, tell: Tell
) -> dict[str, list[float]]:
    """Each way's figure in each round; a round before them warms up and is not counted.

    Every other round goes backwards, since each finds what the one before left in the caches.
    """
    for way in ways.values():
        await way()
    found: dict[str, list[float]] = {name: [] for name in ways}
    there = list(ways)
    for done in counted(rounds, tell):
        for name in reversed(there) if done % 2 else there:
            found[name].append(await ways[name]())
    return found


def pick(outcomes: Outcomes, **arguments: object) -> Iterable[Any]:
    """What the steps with these arguments gave."""
    return (
        found
        for step, found in outcomes
        if found is not None and arguments.items() <= step.arguments.items()
    )
