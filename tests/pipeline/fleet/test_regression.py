"""Levels that are left, kept, gone back to and accepted."""

from __future__ import annotations

from datetime import timedelta
from math import exp, log

import numpy as np
import pytest
from fleet_visits import BEGAN, visit

from pipeline.fleet.regression import (
    ALPHA,
    LEAST_LEVEL,
    MEMORY_GRAIN_BYTES,
    PRIOR_VISITS,
    Figure,
    State,
    changed_conditions,
    judge,
    last_shift,
    winsorised,
)

SPREAD = 0.02
SLOWER = log(1.15)


def first_alarm(values: np.ndarray, after: int = 0) -> int | None:
    """How many visits after the first `after` ones it took until something was worse."""
    for end in range(after + 1, len(values) + 1):
        shift = last_shift(list(values[:end]), SPREAD)
        if shift is not None and shift.mean > 0:
            return end - after
    return None


@pytest.mark.parametrize(("noise", "caught"), [(0.01, 1.0), (0.02, 0.99), (0.03, 0.95)])
def test_fifteen_percent_are_caught_within_three_visits(noise: float, caught: float) -> None:
    rng, alarms = np.random.default_rng(0), []
    for _ in range(400):
        values = rng.normal(0, noise, 13)
        values[10:] += SLOWER
        alarms.append(first_alarm(values, after=10))
    assert np.mean([alarm is not None for alarm in alarms]) >= caught
    # One visit decides only where the noise of the one before it looked like a slowdown already.
    assert np.mean([alarm == 1 for alarm in alarms]) <= 0.05


@pytest.mark.parametrize(("noise", "allowed"), [(0.01, 0.0), (0.02, 0.005), (0.03, 0.01)])
def test_twenty_visits_without_a_change_raise_no_alarm(noise: float, allowed: float) -> None:
    rng = np.random.default_rng(1)
    alarms = [first_alarm(rng.normal(0, noise, 20)) is not None for _ in range(400)]
    assert np.mean(alarms) <= allowed


def test_noise_with_heavy_tails_and_a_machine_that_was_once_busy() -> None:
    rng = np.random.default_rng(2)
    heavy = [first_alarm(0.02 * rng.standard_t(3, 20)) is not None for _ in range(400)]
    assert np.mean(heavy) <= 0.03
    values = [0.0, 0.01, -0.01, 0.0, 0.01, log(1.6), 0.0, -0.01]
    assert first_alarm(np.array(values)) is None


def now_and_then_busy(rng: np.random.Generator, visits: int) -> np.ndarray:
    """Visits of which one in seven is off by 5 to 20 % to either side, and the others by 0.4 %."""
    values = rng.normal(0, 0.004, visits)
    busy = rng.random(visits) < 1 / 7
    off = rng.choice([-1.0, 1.0], visits) * rng.uniform(0.05, 0.2, visits)
    return np.where(busy, values + off, values)


def test_a_machine_that_is_now_and_then_busy_hides_no_slowdown() -> None:
    rng = np.random.default_rng(3)
    alarms, caught = [], []
    for _ in range(300):
        alarms.append(first_alarm(now_and_then_busy(rng, 20)) is not None)
        values = now_and_then_busy(rng, 23)
        values[20:] += SLOWER
        caught.append(first_alarm(values, after=20) is not None)
    assert np.mean(caught) >= 0.85
    assert np.mean(alarms) <= 0.08


def test_visits_far_off_do_not_widen_what_three_are_held_against() -> None:
    level = [0.0, 0.003, 0.001, -0.002, 0.21, 0.0, 0.002, -0.2, 0.001, -0.001]
    slower = [0.135, 0.136, 0.144]
    assert last_shift([*level, *slower[:2]], SPREAD) is None, "two may both be busy ones"
    shift = last_shift([*level, *slower], SPREAD)
    assert shift is not None and shift.begin == len(level)
    assert shift.mean == pytest.approx(np.mean(slower), abs=0.02)
    # It is told until it goes back.
    assert last_shift([*level, *slower, 0.14, 0.139], SPREAD) is not None
    assert last_shift([*level, *slower, 0.0, 0.001], SPREAD) is None


def test_outliers_are_brought_in_and_others_stay() -> None:
    level = [0.0, 0.01, -0.01, 0.5]
    assert winsorised(level, SPREAD) == [0.0, 0.01, -0.01, pytest.approx(0.005 + 3 * SPREAD)]
    assert winsorised([], SPREAD) == []


def test_the_interval_is_that_of_the_formula() -> None:
    from scipy.stats import t

    level = [0.0, 0.02, -0.01, 0.01]
    shift = last_shift([*level, 0.3, 0.32], SPREAD)
    assert shift is not None
    nu = PRIOR_VISITS + len(level) - 1
    centre = sum(level) / len(level)
    spread = ((PRIOR_VISITS * SPREAD**2 + sum((x - centre) ** 2 for x in level)) / nu) ** 0.5
    assert shift.mean == pytest.approx(0.31 - centre)
    assert shift.allowed == pytest.approx(t.ppf(1 - ALPHA, nu) * spread * (1 / 2 + 1 / 4) ** 0.5)
    assert (shift.begin, shift.visits, shift.level) == (4, 4, pytest.approx(centre))


def test_too_few_visits_judge_nothing() -> None:
    assert judge([], Figure.LATENCY) is None
    for visits in range(1, LEAST_LEVEL + 2):
        found = judge([visit(day, 2.0 + day) for day in range(visits)], Figure.LATENCY)
        assert found is not None and found.state is State.TOO_FEW and found.visits == visits
    found = judge([visit(day, 2.0) for day in range(LEAST_LEVEL + 2)], Figure.LATENCY)
    assert found is not None and found.state is State.STEADY


def test_what_got_worse_since_when_and_what_changed() -> None:
    visits = [visit(day, 2.0) for day in range(6)]
    visits += [visit(day, 2.4, runtime_version="2.4.0", governor="powersave") for day in (6, 7, 8)]
    found = judge(visits, Figure.LATENCY)
    assert found is not None and found.state is State.WORSE
    assert (found.since, found.visits) == (BEGAN + timedelta(days=6), 6)
    assert found.level == pytest.approx(2.0) and found.now == pytest.approx(2.4)
    assert found.ratio == pytest.approx(1.2)
    assert found.low is not None and found.high is not None and 1.0 < found.low < 1.2 < found.high
    assert found.changed == ("runtime version: 2.3.0 → 2.4.0", "governor: untold → powersave")
    memory = judge(visits, Figure.MEMORY)
    assert memory is not None and memory.state is State.STEADY


def test_memory_is_judged_by_its_own() -> None:
    visits = [visit(day, 2.0, peak=(8 if day < 5 else 10) << 20) for day in range(8)]
    found = judge(visits, Figure.MEMORY)
    assert found is not None and found.state is State.WORSE
    assert found.now == pytest.approx(10 << 20)
    assert found.ratio == pytest.approx((10 * 2**20 + MEMORY_GRAIN_BYTES) / (8 * 2**20 + MEMORY_GRAIN_BYTES))
    # A few pages more are nothing.
    few = [visit(day, 2.0, peak=4096 * (1 + day)) for day in range(12)]
    found = judge(few, Figure.MEMORY)
    assert found is not None and found.state is State.STEADY


def test_a_worse_level_is_told_until_it_goes_back() -> None:
    values = [0.0] * 5 + [0.3] * 4
    shift = last_shift(values, SPREAD)
    assert shift is not None and shift.begin == 5
    assert last_shift([*values, 0.0], SPREAD) is not None, "one visit decides nothing"
    assert last_shift([*values, 0.0, 0.0], SPREAD) is None
    # What was worse is no part of the level: the next slowdown is seen as well.
    again = last_shift([*values, 0.0, 0.0, 0.0, 0.15, 0.15], SPREAD)
    assert again is not None and again.begin == 12 and again.level == pytest.approx(0.0)


def test_a_better_level_is_the_new_one() -> None:
    faster = [0.0] * 5 + [-0.3] * 3
    shift = last_shift(faster[:7], SPREAD)
    assert shift is not None and shift.mean == pytest.approx(-0.3)
    # From there on, what was normal before is a regression.
    back = last_shift([*faster, 0.0, 0.0], SPREAD)
    assert back is not None and back.mean == pytest.approx(0.3) and back.begin == 8


def test_an_accepted_level_begins_a_history() -> None:
    visits = [visit(day, 2.0 if day < 5 else 2.5) for day in range(12)]
    worse = judge(visits, Figure.LATENCY)
    assert worse is not None and worse.state is State.WORSE
    accepted = judge(visits, Figure.LATENCY, accepted_at=BEGAN + timedelta(days=5))
    assert accepted is not None and accepted.state is State.STEADY and accepted.visits == 6
    assert judge(visits, Figure.LATENCY, accepted_at=BEGAN + timedelta(days=30)) is None


def test_latencies_beside_another_reference_are_another_figure() -> None:
    visits = [visit(day, 24.0) for day in range(6)]
    visits += [visit(day, 1.9).model_copy(update={"reference_sha256": "2" * 64}) for day in range(6, 10)]
    found = judge(visits, Figure.LATENCY)
    assert found is not None and found.state is State.TOO_FEW and found.visits == 4
    slower = visit(10, 2.4).model_copy(update={"reference_sha256": "2" * 64})
    found = judge([*visits, visits[-1], slower, slower], Figure.LATENCY)
    assert found is not None and found.state is State.WORSE and found.visits == 5
    assert found.level == pytest.approx(1.9)
    # Memory has no reference.
    memory = judge(visits, Figure.MEMORY)
    assert memory is not None and memory.state is State.STEADY and memory.visits == 10


def test_readings_that_wander_are_no_change() -> None:
    before, now = visit(0, 1.0, temperature_c=50.0), visit(1, 1.0, temperature_c=53.0)
    assert changed_conditions(before, now) == ()
    assert changed_conditions(before, visit(1, 1.0, temperature_c=80.0)) == ("temperature c: 50 → 80",)


def test_a_shift_is_a_factor_whatever_the_level() -> None:
    for level in (0.01, 1.0, 300.0):
        visits = [visit(day, level * (1.0 if day < 6 else 1.15)) for day in range(9)]
        found = judge(visits, Figure.LATENCY)
        assert found is not None and found.ratio == pytest.approx(exp(SLOWER))
