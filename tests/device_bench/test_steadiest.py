"""Comparisons that other work disturbed are made again, whatever they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from small_graphs import measurement

from device_bench.bench import STEADY_WIDTH, steadiest
from device_bench.protocol import Comparison, Failure, FailureKind

GONE = Failure(kind=FailureKind.UNREACHABLE, message="gone")


def comparison(ratio: float, width: float) -> Comparison:
    alone = measurement(1.0)
    return Comparison(
        speedup=ratio,
        low=ratio * (1 - width / 2),
        high=ratio * (1 + width / 2),
        rounds=8,
        first=alone.latency,
        second=alone.latency,
        conditions=alone.conditions,
    )


def answers(outcomes: Sequence[Comparison | Failure]) -> tuple[Callable[[], Comparison | Failure], list[int]]:
    """Gives one outcome after the other; the list says how many were asked for."""
    asked: list[int] = []

    def compare() -> Comparison | Failure:
        asked.append(1)
        return outcomes[len(asked) - 1]

    return compare, asked


def test_a_steady_one_is_not_made_again() -> None:
    first = comparison(1.3, STEADY_WIDTH / 2)
    compare, asked = answers([first])
    assert steadiest(compare) is first
    assert len(asked) == 1


def test_a_wide_one_is_made_again_until_one_is_steady() -> None:
    slow, fast, calm = comparison(0.8, 0.3), comparison(1.5, 0.06), comparison(1.1, 0.01)
    compare, asked = answers([slow, fast, calm, comparison(9.0, 0.0)])
    assert steadiest(compare) is calm
    assert len(asked) == 3


def test_of_wide_ones_the_narrowest_stands_and_not_the_one_that_says_most() -> None:
    made = [comparison(1.5, 0.4), comparison(1.0, 0.1), comparison(2.0, 0.2)]
    compare, asked = answers(made)
    assert steadiest(compare, attempts=3) is made[1]
    assert len(asked) == 3


def test_a_failure_is_told_where_nothing_was_compared_before() -> None:
    wide = comparison(1.2, 0.5)
    assert steadiest(answers([GONE])[0]) is GONE
    assert steadiest(answers([wide, GONE])[0]) is wide
