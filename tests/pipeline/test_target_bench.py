"""Who measures on a target, and what is asked again."""

from __future__ import annotations

import pytest

from device_bench.bench import LocalBench
from device_bench.errors import BadInputError, UnreachableError
from device_bench.protocol import Failure, FailureKind
from device_bench.sensors import device_info
from pipeline.device_slots import TurnTaking
from pipeline.target import LOCAL_TARGETS
from pipeline.target_bench import ask_again, bench_for, check_real, insist

HERE = LOCAL_TARGETS["local-litert"]


def test_this_machine_measures_itself() -> None:
    bench = bench_for(HERE)
    assert isinstance(bench, TurnTaking)
    assert isinstance(bench.bench, LocalBench)
    assert bench.device == "local"


def outcomes(*kinds: FailureKind | int) -> list[Failure | int]:
    """Failures of these kinds, and numbers as they are."""
    return [Failure(kind=kind, message="why") if isinstance(kind, FailureKind) else kind for kind in kinds]


@pytest.mark.parametrize(
    ("given", "asked", "last"),
    [
        ([1], 1, 1),
        ([FailureKind.AGENT_RESTARTED, 2], 2, 2),
        ([FailureKind.AGENT_RESTARTED] * 5, 3, FailureKind.AGENT_RESTARTED),
        ([FailureKind.NOT_A_MODEL, 3], 1, FailureKind.NOT_A_MODEL),
        ([FailureKind.AGENT_RESTARTED, FailureKind.CRASHED, 4], 2, FailureKind.CRASHED),
    ],
)
def test_only_what_a_restart_broke_is_asked_again(
    given: list[FailureKind | int], asked: int, last: FailureKind | int
) -> None:
    waiting = outcomes(*given)
    found = insist(lambda: waiting.pop(0))
    assert (found.kind if isinstance(found, Failure) else found) == last
    assert len(waiting) == len(given) - asked


def test_a_board_that_is_gone_ends_the_run() -> None:
    with pytest.raises(UnreachableError, match="why"):
        insist(lambda: Failure(kind=FailureKind.UNREACHABLE, message="why"))


def test_an_emulated_device_is_no_target_for_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    check_real(HERE)
    emulated = device_info().model_copy(update={"emulated": True})
    monkeypatch.setattr("pipeline.target_bench.device_info", lambda: emulated)
    with pytest.raises(BadInputError, match="local-litert is an emulated device"):
        check_real(HERE)


def test_a_board_that_is_gone_is_an_outcome_for_who_asks_once() -> None:
    gone = Failure(kind=FailureKind.UNREACHABLE, message="why")
    waiting = [*outcomes(FailureKind.AGENT_RESTARTED), gone]
    assert ask_again(lambda: waiting.pop(0)) is gone
    assert waiting == []
