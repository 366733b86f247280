from __future__ import annotations

from dataclasses import replace

import pytest

from device_bench.protocol import Failure, FailureKind
from pipeline.data.base import Metric
from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.selection import (
    FIRST_FORECAST,
    FIRST_REHEARSED_SHARE,
    WORTHWHILE,
    Forecast,
    Yardstick,
    best_recovered,
    next_to_recover,
    rehearsal_share,
    to_rehearse,
)

HERE, THERE = "local-litert", "local-onnxruntime"
FLOAT = 90.0
# What may be lost before recovery so that the first forecast is a loss of one point after it.
HARD = FIRST_FORECAST**-0.5
MEASURE = Yardstick(Metric.ACCURACY, FLOAT, FLOAT)


def trial(number: int, ms: float, lost: float, lost_after: float | None = None, **more: object) -> Trial:
    """A trial that takes `ms` on HERE and lost so many points before and after recovery."""
    return Trial(
        number=number,
        plan=CompressionPlan(seed=number),
        origin="by hand",
        accuracy=FLOAT - lost,
        accuracy_recovered=None if lost_after is None else FLOAT - lost_after,
        latency_ms={HERE: ms},
        **more,
    )


def number_of(found: Trial | None) -> int | None:
    return None if found is None else found.number


def test_a_drop_is_held_against_the_fair_score_and_counts_in_its_share() -> None:
    yardstick = Yardstick(Metric.ACCURACY, float_score=94.0, fair_score=92.0, counts=0.5)
    assert yardstick.drop(91.0) == pytest.approx(0.5)
    assert yardstick.drop(93.0) == pytest.approx(-0.5)
    assert yardstick.loss_before_recovery(trial(1, 1.0, lost=0.0)) == pytest.approx(4.0)


def test_an_error_that_grows_is_a_loss() -> None:
    yardstick = Yardstick(Metric.MSE, float_score=2.0, fair_score=2.0)
    worse, better = (
        Trial(number=n, plan=CompressionPlan(), origin="", accuracy=mse) for n, mse in ((1, 2.5), (2, 1.0))
    )
    assert yardstick.loss_before_recovery(worse) == pytest.approx(0.5)
    assert yardstick.loss_before_recovery(better) == 0.0
    assert yardstick.drop(3.0) == pytest.approx(1.0)


def factor(trials: list[Trial], rehearsed: bool = False) -> float:
    return Forecast.of(MEASURE, trials, rehearsed=rehearsed).factor


def test_the_forecast_is_the_median_of_what_was_seen() -> None:
    assert factor([]) == FIRST_FORECAST
    seen = [trial(1, 1, 10, 0.2), trial(2, 1, 20, 2.0), trial(3, 1, 10, 0.7)]
    # 0.2 / 100, 2 / 400, 0.7 / 100
    assert factor(seen) == pytest.approx(0.005)
    assert factor(seen[:2]) == pytest.approx((0.002 + 0.005) / 2)
    assert factor([trial(1, 1, 10, -3.0)]) == pytest.approx(FIRST_FORECAST / 10)
    # A trial that lost nothing before tells nothing.
    assert factor([trial(1, 1, 0, 0.5)]) == FIRST_FORECAST


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        ([], None),
        # The fastest that the forecast puts within a point.
        ([trial(1, 3.0, 5), trial(2, 2.0, 0.9 * HARD), trial(3, 1.0, 1.1 * HARD)], 2),
        # None is forecast within it: what loses least.
        ([trial(1, 1.0, 1.2 * HARD), trial(2, 3.0, 1.1 * HARD), trial(3, 2.0, 1.3 * HARD)], 2),
        # One was recovered within it: another must be faster by more than is worth the trouble.
        ([trial(1, 2.0, 10, 0.1), trial(2, 2.0 / WORTHWHILE * 1.01, 1), trial(3, 5.0, 1)], None),
        ([trial(1, 2.0, 10, 0.1), trial(2, 2.0 / WORTHWHILE * 0.99, 1), trial(3, 5.0, 1)], 2),
        # One is within it and nothing faster is forecast to be: done.
        ([trial(1, 2.0, 10, 0.2), trial(2, 1.0, 30)], None),
        # What loses more than one that failed to recover is passed over, though it is faster.
        ([trial(1, 1.0, 20, 1.5), trial(2, 0.8, 25), trial(3, 1.2, 12)], 3),
        # Factor 1.5 / 400: a loss of 16 leaves 0.96, one of 17 leaves 1.08.
        ([trial(1, 1.0, 20, 1.5), trial(2, 1.1, 17), trial(3, 1.2, 16)], 3),
        # All that is left is worse than what failed already.
        ([trial(1, 1.0, 20, 1.5), trial(2, 0.8, 25), trial(3, 0.7, 20)], None),
    ],
)
def test_what_is_recovered_next(trials: list[Trial], expected: int | None) -> None:
    assert number_of(next_to_recover(trials, HERE, MEASURE, max_drop=1.0)) == expected


def test_a_looser_budget_lets_more_through() -> None:
    trials = [trial(1, 3.0, 5), trial(2, 1.0, 1.3 * HARD)]
    assert number_of(next_to_recover(trials, HERE, MEASURE, max_drop=1.0)) == 1
    assert number_of(next_to_recover(trials, HERE, MEASURE, max_drop=2.0)) == 2


def test_failed_trials_and_other_targets_are_no_candidates() -> None:
    crash = Failure(kind=FailureKind.CRASHED, message="signal 11")
    assert next_to_recover([trial(1, 1.0, 1, failure=crash)], HERE, MEASURE, 1.0) is None
    assert next_to_recover([trial(1, 1.0, 1)], THERE, MEASURE, 1.0) is None
    assert best_recovered([trial(1, 1.0, 1, 0.1)], THERE, MEASURE, 1.0) is None


def test_what_recovered_for_one_target_serves_another_if_it_is_as_fast() -> None:
    both = trial(1, 2.0, 10, 0.1).model_copy(update={"latency_ms": {HERE: 2.0, THERE: 9.0}})
    other = trial(2, 3.0, 8).model_copy(update={"latency_ms": {HERE: 3.0, THERE: 5.0}})
    assert next_to_recover([both, other], HERE, MEASURE, 1.0) is None
    assert number_of(next_to_recover([both, other], THERE, MEASURE, 1.0)) == 2


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        ([trial(1, 1.0, 3)], None),
        ([trial(1, 3.0, 9, 0.2), trial(2, 2.0, 9, 0.9), trial(3, 1.0, 9, 1.1)], 2),
        ([trial(1, 3.0, 9, 1.0), trial(2, 2.0, 9, 1.2)], 1),
        ([trial(1, 1.0, 9, 3.0), trial(2, 2.0, 9, 2.0), trial(3, 0.5, 1)], 2),
    ],
)
def test_the_best_is_the_fastest_within_the_budget_or_loses_least(
    trials: list[Trial], expected: int | None
) -> None:
    assert number_of(best_recovered(trials, HERE, MEASURE, max_drop=1.0)) == expected


def rehearsed(
    number: int, ms: float, lost: float, lost_then: float, lost_after: float | None = None
) -> Trial:
    """A trial that lost so many points at first, after its rehearsal and after its recovery."""
    return trial(number, ms, lost, lost_after, accuracy_rehearsed=FLOAT - lost_then)


def test_rehearsed_are_the_ones_that_nothing_beats_where_the_forecast_decides() -> None:
    # Seconds by losses: 4 is beaten by 2 in both, 5 failed.
    trials = [
        trial(1, 1.0, HARD + 10),
        trial(2, 2.0, HARD + 1),
        trial(3, 3.0, HARD - 30),
        trial(4, 2.5, HARD + 2),
        trial(5, 0.5, 0.0, failure=Failure(kind=FailureKind.CRASHED, message="")),
        trial(6, 4.0, 0.0),
    ]
    assert [t.number for t in to_rehearse(trials, [HERE], MEASURE, 1.0, 6)] == [2, 1, 3, 6]
    assert [t.number for t in to_rehearse(trials, [HERE], MEASURE, 1.0, 2)] == [2, 1]
    assert to_rehearse(trials, [THERE], MEASURE, 1.0, 6) == []
    # A resumed run takes the same ones, whatever is known of them by now.
    known = [t.model_copy(update={"accuracy_rehearsed": FLOAT, "accuracy_recovered": FLOAT}) for t in trials]
    assert [t.number for t in to_rehearse(known, [HERE], MEASURE, 1.0, 6)] == [2, 1, 3, 6]


def test_targets_take_turns() -> None:
    both = [
        trial(n, 1.0, HARD + n).model_copy(update={"latency_ms": {HERE: float(n), THERE: float(9 - n)}})
        for n in (1, 2, 3)
    ]
    # Here the first beats the others; there each is faster than the one before it.
    assert [t.number for t in to_rehearse(both, [HERE, THERE], MEASURE, 1.0, 6)] == [1, 2, 3]
    assert [t.number for t in to_rehearse(both, [THERE, HERE], MEASURE, 1.0, 2)] == [1, 2]


def test_a_rehearsal_says_more_than_what_was_lost_at_first() -> None:
    hard = 1.0 / FIRST_REHEARSED_SHARE
    # The first lost more, and comes back.
    trials = [rehearsed(1, 1.0, 80, 0.9 * hard), rehearsed(2, 0.5, 10, 1.1 * hard), trial(3, 0.1, 0.0)]
    assert number_of(next_to_recover(trials, HERE, MEASURE, 1.0)) == 1
    # What was forecast to lose a point lost a tenth: the faster one is worth it too, the unrehearsed one not.
    trials[0] = rehearsed(1, 1.0, 80, 0.9 * hard, 0.1)
    assert number_of(next_to_recover(trials, HERE, MEASURE, 1.0)) == 2
    trials[1] = rehearsed(2, 0.5, 10, 1.1 * hard, 0.1)
    assert next_to_recover(trials, HERE, MEASURE, 1.0) is None


def test_a_rehearsal_is_a_twelfth_but_never_a_handful_of_steps() -> None:
    assert rehearsal_share(24.0, 390) == pytest.approx(1 / 12)
    assert rehearsal_share(8.0, 50) * 8.0 * 50 == pytest.approx(100)
    # A recovery of fewer steps is rehearsed whole.
    assert rehearsal_share(8.0, 7) == rehearsal_share(0.0, 7) == 1.0


def test_after_a_whole_rehearsal_nothing_more_is_forecast_to_come_back() -> None:
    whole = replace(MEASURE, rehearsed=1.0)
    assert Forecast.of(whole, [], rehearsed=True).drop(3.0) == pytest.approx(3.0)
    assert Forecast.of(MEASURE, [], rehearsed=True).drop(3.0) == pytest.approx(0.66)
    half = Forecast.of(replace(MEASURE, rehearsed=0.5), [], rehearsed=True).drop(3.0)
    assert 0.66 < half < 3.0
    # What was rehearsed whole and lost too much is not recovered in the hope of more.
    trials = [rehearsed(1, 1.0, 30, 0.5), rehearsed(2, 0.5, 30, 1.5)]
    assert number_of(next_to_recover(trials, HERE, whole, 1.0)) == 1
    assert number_of(next_to_recover(trials, HERE, MEASURE, 1.0)) == 2
