from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_graphs import measurement

from device_bench.errors import BadInputError
from pipeline.data.base import Metric
from pipeline.reward import Baseline, RewardParts, reward
from pipeline.task import Budget

BASELINES = (
    Baseline(target="a", accuracy=90.0, latency_ms=0.34, peak_memory_bytes=6 << 20),
    Baseline(target="b", accuracy=90.0, latency_ms=0.30, peak_memory_bytes=9 << 20),
)
LATENCIES = st.floats(1e-3, 1e3)
BYTES = st.integers(0, 1 << 34)
LIMITS = st.none() | st.floats(0.01, 10.0)
BUDGETS = st.builds(
    Budget,
    max_drop=st.floats(0.0, 5.0),
    max_latency_ms=LIMITS,
    min_speedup=LIMITS,
    max_peak_memory_bytes=st.none() | st.integers(1, 1 << 30),
    max_artifact_bytes=st.none() | st.integers(1, 1 << 30),
)


@st.composite
def outcomes(draw: st.DrawFn) -> tuple[float, list[float], list[int], list[int]]:
    """Accuracy, and for both targets latency, peak memory and file size."""
    return (
        draw(st.floats(0.0, 100.0)),
        [draw(LATENCIES), draw(LATENCIES)],
        [draw(BYTES), draw(BYTES)],
        [draw(BYTES), draw(BYTES)],
    )


def judged(outcome: tuple[float, list[float], list[int], list[int]], budget: Budget) -> RewardParts:
    accuracy, latencies, peaks, files = outcome
    found = {
        name: measurement(*figures) for name, *figures in zip("ab", latencies, peaks, files, strict=True)
    }
    return reward(accuracy, found, budget, BASELINES)


@given(outcome=outcomes(), budget=BUDGETS, slower=st.floats(1.0, 1e3), target=st.integers(0, 1))
def test_never_rises_with_latency(outcome, budget: Budget, slower: float, target: int) -> None:  # type: ignore[no-untyped-def]
    accuracy, latencies, peaks, files = outcome
    worse = [ms * slower if i == target else ms for i, ms in enumerate(latencies)]
    assert judged((accuracy, worse, peaks, files), budget).total <= judged(outcome, budget).total


@given(outcome=outcomes(), budget=BUDGETS, more=BYTES, target=st.integers(0, 1), where=st.integers(2, 3))
def test_never_rises_with_memory_or_size(outcome, budget: Budget, more: int, target: int, where: int) -> None:  # type: ignore[no-untyped-def]
    worse = [list(part) if isinstance(part, list) else part for part in outcome]
    worse[where][target] += more
    assert judged(tuple(worse), budget).total <= judged(outcome, budget).total  # type: ignore[arg-type]


@given(outcome=outcomes(), budget=BUDGETS, points=st.floats(0.0, 100.0))
def test_never_falls_with_accuracy(outcome, budget: Budget, points: float) -> None:  # type: ignore[no-untyped-def]
    better = (outcome[0] + points, *outcome[1:])
    assert judged(better, budget).total >= judged(outcome, budget).total


@given(one=outcomes(), other=outcomes(), budget=BUDGETS)
def test_every_infeasible_plan_ranks_below_every_feasible_one(one, other, budget: Budget) -> None:  # type: ignore[no-untyped-def]
    first, second = judged(one, budget), judged(other, budget)
    for parts in (first, second):
        assert (parts.total > 0.0) == parts.feasible
    if first.feasible and not second.feasible:
        assert first.total > second.total


def test_feasible_is_what_meets_every_constraint() -> None:
    budget = Budget(max_drop=1.0, min_speedup=1.4, max_peak_memory_bytes=8 << 20, max_artifact_bytes=300_000)
    good = judged((89.0, [0.2, 0.2], [5 << 20, 5 << 20], [200_000, 300_000]), budget)
    assert good.feasible
    bad = judged((88.0, [0.2, 0.25], [5 << 20, 16 << 20], [200_000, 450_000]), budget)
    assert bad.violations == pytest.approx(
        {
            "max_drop": 1.0,
            "min_speedup on b": 0.25 / (0.30 / 1.4) - 1.0,
            "max_peak_memory_bytes on b": 1.0,
            "max_artifact_bytes on b": 0.5,
        }
    )


def test_a_drop_that_equals_the_limit_meets_it() -> None:
    baseline = Baseline(target="a", accuracy=87.48, latency_ms=0.3, peak_memory_bytes=0)
    parts = reward(86.48, {"a": measurement(0.1)}, Budget(max_drop=1.0), [baseline])
    assert parts.feasible


def test_parts_add_up_to_the_total() -> None:
    parts = judged((89.5, [0.17, 0.10], [3 << 20, 4 << 20], [1, 1]), Budget())
    score = parts.accuracy + sum(parts.speed.values()) + sum(parts.memory.values())
    assert parts.total == pytest.approx(1.0 + score / (1.0 + abs(score)))
    assert parts.speed["a"] == pytest.approx(0.5 * 0.6931, rel=1e-3)
    assert RewardParts.model_validate_json(parts.model_dump_json()) == parts


def test_lower_may_be_better() -> None:
    baseline = Baseline(target="a", accuracy=2.0, metric=Metric.MSE, latency_ms=0.3, peak_memory_bytes=0)
    budget = Budget(max_drop=0.5)
    assert reward(2.4, {"a": measurement(0.1)}, budget, [baseline]).feasible
    assert not reward(2.6, {"a": measurement(0.1)}, budget, [baseline]).feasible
    assert reward(0.1, {"a": measurement(0.1)}, budget, [baseline]).feasible


def test_an_emulated_device_is_refused() -> None:
    found = {"a": measurement(0.1), "b": measurement(0.1, emulated=True)}
    with pytest.raises(BadInputError, match="measurement of b is from an emulated device"):
        reward(90.0, found, Budget(), BASELINES)


@pytest.mark.parametrize(
    ("accuracy", "names", "match"),
    [
        (90.0, ["a"], "one measurement for each baseline"),
        (90.0, ["a", "b", "c"], "one measurement for each baseline"),
        (float("nan"), ["a", "b"], "accuracy must be finite"),
    ],
)
def test_what_cannot_be_judged_is_an_error(accuracy: float, names: list[str], match: str) -> None:
    with pytest.raises(BadInputError, match=match):
        reward(accuracy, {name: measurement(0.1) for name in names}, Budget(), BASELINES)


def test_no_time_at_all_is_an_error() -> None:
    with pytest.raises(BadInputError, match="p50 of a"):
        reward(90.0, {"a": measurement(0.0), "b": measurement(0.1)}, Budget(), BASELINES)
