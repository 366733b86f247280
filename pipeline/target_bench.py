"""From a target to the bench that measures there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from device_bench.bench import Bench, LocalBench
from device_bench.errors import BadInputError, UnreachableError
from device_bench.protocol import Failure, FailureKind
from device_bench.sensors import device_info
from pipeline.target import Target
from pipeline.target_book import LOCAL, TargetBook, default_book

if TYPE_CHECKING:
    from device_bench.client import AgentBench

Answer = TypeVar("Answer")

# A board that restarts under every measurement does not need another one.
_ATTEMPTS = 3
# Before a run, somebody waits for the prompt.
_CHECK_SECONDS = 10.0


def bench_for(target: Target, tell: Callable[[str], None] | None = None) -> Bench:
    """Who measures on a target: this machine, or the agent of its board.

    Args:
        tell: hears, in words, what a board makes us wait for.

    Raises:
        BadInputError: the board's agent was never paired with.
    """
    return LocalBench() if target.where == LOCAL else agent_bench(target.where, tell)


def agent_bench(
    url: str,
    tell: Callable[[str], None] | None = None,
    book: TargetBook | None = None,
    lost_seconds: float | None = None,
) -> AgentBench:
    """The bench of the agent at an address in the book.

    Args:
        tell: hears, in words, what the board makes us wait for.
        book: the user's own where none is given.
        lost_seconds: how long an agent that does not answer is waited for.

    Raises:
        BadInputError: no agent there was ever paired with.
    """
    # httpx takes a tenth of a second to import, which runs on this machine alone need not wait for.
    from device_bench.client import AgentBench
    from device_bench.connection import AgentAddress, Means, Patience

    credential = (book or default_book()).credential(url)
    address = AgentAddress(url=url, token=credential.token, certificate=credential.certificate)
    patience = Patience() if lost_seconds is None else Patience(lost_seconds=lost_seconds)
    return AgentBench(address, patience, Means() if tell is None else Means(tell=tell))


def check_real(target: Target) -> None:
    """Make sure that a target can be measured on now and that its times are those of a real machine.

    Raises:
        BadInputError: its device is emulated, or its agent refuses us.
        UnreachableError: its agent does not answer.
    """
    if target.where == LOCAL:
        emulated = device_info().emulated
    else:
        emulated = agent_bench(target.where, lost_seconds=_CHECK_SECONDS).reach().info.device.emulated
    if emulated:
        raise BadInputError(
            f"{target.name} is an emulated device, whose times say nothing about a real one: no search and "
            "no calibration can go by them; take a real target, and run files there with `edgeloop bench`"
        )


def insist(ask: Callable[[], Answer | Failure]) -> Answer | Failure:
    """As `ask_again`, for a run that cannot go on without the board.

    Raises:
        UnreachableError: the board is gone: whatever is asked of it next would fail as well.
    """
    outcome = ask_again(ask)
    if isinstance(outcome, Failure) and outcome.kind is FailureKind.UNREACHABLE:
        raise UnreachableError(outcome.message)
    return outcome


def ask_again(ask: Callable[[], Answer | Failure]) -> Answer | Failure:
    """Ask a bench again where its agent was restarted meanwhile, which is no fault of the file."""
    for _ in range(_ATTEMPTS - 1):
        outcome = ask()
        if not isinstance(outcome, Failure) or outcome.kind is not FailureKind.AGENT_RESTARTED:
            return outcome
    return ask()
