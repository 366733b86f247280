"""From a target to the bench that measures there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from device_bench.bench import Bench, LocalBench
from device_bench.errors import UnreachableError
from device_bench.protocol import Failure, FailureKind
from pipeline.target import Target
from pipeline.target_book import LOCAL, TargetBook, default_book

if TYPE_CHECKING:
    from device_bench.client import AgentBench

Answer = TypeVar("Answer")

# A board that restarts under every measurement does not need another one.
_ATTEMPTS = 3


def bench_for(target: Target, tell: Callable[[str], None] | None = None) -> Bench:
    """Who measures on a target: this machine, or the agent of its board.

    Args:
        tell: hears, in words, what a board makes us wait for.

    Raises:
        BadInputError: the board's agent was never paired with.
    """
    return LocalBench() if target.where == LOCAL else agent_bench(target.where, tell)


def agent_bench(
    url: str, tell: Callable[[str], None] | None = None, book: TargetBook | None = None
) -> AgentBench:
    """The bench of the agent at an address in the book.

    Raises:
        BadInputError: no agent there was ever paired with.
    """
    # httpx takes a tenth of a second to import, which runs on this machine alone need not wait for.
    from device_bench.client import AgentBench
    from device_bench.connection import AgentAddress, Means

    credential = (book or default_book()).credential(url)
    address = AgentAddress(url=url, token=credential.token, certificate=credential.certificate)
    return AgentBench(address, means=Means() if tell is None else Means(tell=tell))


def insist(ask: Callable[[], Answer | Failure]) -> Answer | Failure:
    """Ask a bench again where the failure is the board's and not the file's.

    Raises:
        UnreachableError: the board is gone: whatever is asked of it next would fail as well.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        outcome = ask()
        if not isinstance(outcome, Failure):
            return outcome
        if outcome.kind is FailureKind.UNREACHABLE:
            raise UnreachableError(outcome.message)
        if outcome.kind is not FailureKind.AGENT_RESTARTED or attempt == _ATTEMPTS:
            return outcome
    raise AssertionError("the loop returns")
