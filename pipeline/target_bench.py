"""From a target to the bench that measures there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from device_bench.bench import Bench, LocalBench
from device_bench.errors import BadInputError, UnreachableError
from device_bench.protocol import Failure, FailureKind
from device_bench.sensors import device_info
from pipeline.device_slots import TurnTaking
from pipeline.fleet.class_bench import ClassBench
from pipeline.target import CLASS, Target, device_of
from pipeline.target_book import LOCAL, Device, TargetBook, default_book

if TYPE_CHECKING:
    from device_bench.client import AgentBench

Answer = TypeVar("Answer")

# A board that restarts under every measurement does not need another one.
_ATTEMPTS = 3
# Before a run, somebody waits for the prompt.
_CHECK_SECONDS = 10.0


def bench_for(target: Target, tell: Callable[[str], None] | None = None) -> Bench:
    """Who measures on a target, one at a time: this machine, its board, or whichever of a class is free.

    Args:
        tell: hears, in words, what a board makes us wait for.

    Raises:
        BadInputError: the board's agent was never paired with.
    """
    if target.where.startswith(CLASS):
        boards = ((one.name, one.url) for one in siblings_of(target) if target.runtime in one.installed)
        return _class_bench(target.where.removeprefix(CLASS), tuple(boards), tell)
    bench = LocalBench() if target.where == LOCAL else agent_bench(target.where, tell)
    return TurnTaking(bench, device_of(target))


@cache
def _class_bench(
    name: str, boards: tuple[tuple[str, str], ...], tell: Callable[[str], None] | None
) -> ClassBench:
    """Kept as long as the process lives, so that it remembers who went away."""
    return ClassBench(name, {board: agent_bench(url, tell) for board, url in boards})


def siblings_of(target: Target, book: TargetBook | None = None) -> tuple[Device, ...]:
    """The boards that a target of a class stands for.

    Raises:
        BadInputError: there is none left.
    """
    name = target.where.removeprefix(CLASS)
    found = [one for one in (book or default_book()).devices().values() if one.device_class == name]
    if not found:
        raise BadInputError(f"no board is of class {name} any more; add one with `edgeloop fleet add`")
    return tuple(found)


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
    elif target.where.startswith(CLASS):
        emulated = _any_emulated(siblings_of(target))
    else:
        emulated = agent_bench(target.where, lost_seconds=_CHECK_SECONDS).reach().info.device.emulated
    if emulated:
        raise BadInputError(
            f"{target.name} is an emulated device, whose times say nothing about a real one: no search and "
            "no calibration can go by them; take a real target, and run files there with `edgeloop bench`"
        )


def _any_emulated(boards: Sequence[Device]) -> bool:
    """Whether one of the boards that answer is.

    Raises:
        UnreachableError: none answers.
    """
    answers, last = [], None
    for board in boards:
        try:
            answers.append(agent_bench(board.url, lost_seconds=_CHECK_SECONDS).reach().info.device.emulated)
        except UnreachableError as error:
            last = error
    if not answers and last is not None:
        raise last
    return any(answers)


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
