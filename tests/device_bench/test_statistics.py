"""Statistics on worked values and against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

from device_bench.statistics import drift_note, latency, median_interval, outlier_note, ratio_of_rounds


def test_latency_of_worked_values() -> None:
    found = latency([1_000_000, 2_000_000, 3_000_000, 4_000_000, 10_000_000])
    assert found.samples == 5
    assert (found.min_ms, found.mean_ms, found.p50_ms) == (1.0, 4.0, 3.0)
    assert found.std_ms == pytest.approx(np.sqrt(50 / 4))
    assert found.p90_ms == pytest.approx(7.6)
    assert found.p95_ms == pytest.approx(8.8)
    assert found.p99_ms == pytest.approx(9.76)
    assert found.p50_low_ms <= found.p50_ms <= found.p50_high_ms


def test_latency_of_one_sample() -> None:
    found = latency([5_000_000])
    assert (found.p50_ms, found.p50_low_ms, found.p50_high_ms, found.std_ms) == (5.0, 5.0, 5.0, 0.0)


def test_latency_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        latency([])


def test_the_same_seed_gives_the_same_interval() -> None:
    samples = np.random.default_rng(0).lognormal(13, 0.2, 200).astype(int).tolist()
    assert latency(samples, seed=7) == latency(samples, seed=7)
    assert latency(samples, seed=7) != latency(samples, seed=8)


@pytest.mark.parametrize("n", [15, 64, 201])
def test_median_interval_agrees_with_drawn_resamples(n: int) -> None:
    rng = np.random.default_rng(n)
    samples = rng.lognormal(0, 0.3, n)
    drawn = np.median(rng.choice(samples, size=(20_000, n)), axis=1)
    expected = np.percentile(drawn, [2.5, 97.5])
    # Both are Monte Carlo estimates over order statistics: allow one gap between neighbouring samples.
    gap = np.diff(np.sort(samples))[n // 4 : -n // 4].max()
    assert np.abs(np.array(median_interval(samples, seed=0)) - expected).max() <= gap


def test_ratio_is_of_medians_round_by_round() -> None:
    first = [[2, 2, 100], [8, 8, 8]]
    second = [[1, 1, 1], [2, 2, 2]]
    found = ratio_of_rounds(first, second)
    assert found.ratio == 3.0  # the median of 2 and 4
    assert (found.low, found.high) == (2.0, 4.0)


def test_ratio_does_not_see_a_drift_of_the_whole_machine() -> None:
    slowness = np.linspace(1, 3, 12)
    first = [[int(3000 * s)] * 5 for s in slowness]
    second = [[int(2000 * s)] * 5 for s in slowness]
    found = ratio_of_rounds(first, second)
    assert found.ratio == pytest.approx(1.5, rel=1e-3)
    assert found.high - found.low < 2e-3


def test_ratio_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    held = 0
    for trial in range(200):
        noise = rng.normal(1, 0.05, (2, 12, 1))
        found = ratio_of_rounds((1200 * noise[0]).tolist(), (1000 * noise[1]).tolist(), seed=trial)
        held += found.low <= 1.2 <= found.high
    assert held >= 180


def test_ratio_is_of_means_where_another_process_takes_turns() -> None:
    """Runs of 3.4 and 1.9 ms on a core shared by slices of 4 ms: one of waiting after each of running."""
    rng = np.random.default_rng(3)

    def run(own: float, count: int) -> list[int]:
        ends = np.cumsum(np.full(count, own)) + rng.uniform(0, 4)
        waits = np.diff(np.floor(ends / 4), prepend=0) * 4
        return ((own + waits) * 1e6).astype(int).tolist()

    first = [run(3.4, 30) for _ in range(12)]
    second = [run(1.9, 60) for _ in range(12)]
    found = ratio_of_rounds(first, second)
    assert np.median(first[0]) / np.median(second[0]) > 3  # the one waits mostly, the other seldom
    assert found.of_means
    assert found.ratio == pytest.approx(3.4 / 1.9, rel=0.05)


def test_ratio_stays_one_of_medians_for_a_few_outliers() -> None:
    rng = np.random.default_rng(4)
    rounds = rng.normal(1e6, 1e4, (2, 12, 100))
    rounds[:, :, :3] *= 5
    rounds[0] *= 2
    found = ratio_of_rounds(rounds[0].astype(int).tolist(), rounds[1].astype(int).tolist())
    assert not found.of_means
    assert found.ratio == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_too_few_rounds_disprove_nothing(rounds: int) -> None:
    found = ratio_of_rounds([[2, 2, 100]] * rounds, [[1, 1, 1]] * rounds)
    assert not found.of_means and found.ratio == 2


def test_ratio_needs_as_many_rounds_of_both() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio_of_rounds([[1], [1]], [[1]])


def test_drift_is_told() -> None:
    steady = [1_000_000] * 100
    assert drift_note(steady) is None
    note = drift_note([*steady, *[1_200_000] * 100])
    assert note is not None and "did not settle" in note and "1.2 ms" in note


def test_too_few_samples_are_not_judged_for_drift() -> None:
    assert drift_note([1, 5, 1, 5]) is None


def test_outliers_are_told_when_they_are_many() -> None:
    samples = [1_000_000 + i % 7 * 1000 for i in range(100)]
    assert outlier_note(samples) is None
    note = outlier_note(samples + [9_000_000] * 10)
    assert note is not None and note.startswith("9.1 %")
    assert outlier_note([5] * 50) is None
