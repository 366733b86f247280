from __future__ import annotations

from collections.abc import Mapping

import pytest

from device_bench.errors import BadInputError
from pipeline.policy.lagrange import MOST, Multipliers, mean_violations

GRID = [(x / 200, y / 200) for x in range(-200, 401) for y in range(-200, 401, 8)]


def excess(point: tuple[float, float]) -> dict[str, float]:
    """x >= 1, and y <= 1."""
    x, y = point
    return {"x": 1.0 - x, "y": y - 1.0}


def minimiser(multipliers: Multipliers) -> tuple[float, float]:
    """Of x^2 + y^2 + penalty."""
    return min(GRID, key=lambda p: p[0] ** 2 + p[1] ** 2 + multipliers.penalty(excess(p)))


def test_dual_ascent_ends_at_the_saddle_point() -> None:
    """min x^2 + y^2 subject to x >= 1 and y <= 1 has its saddle point at (1, 0) with lambda = (2, 0)."""
    multipliers = Multipliers()
    for _ in range(40):
        multipliers = multipliers.updated(excess(minimiser(multipliers)))
    assert minimiser(multipliers) == pytest.approx((1.0, 0.0), abs=0.006)
    assert multipliers.values == pytest.approx({"x": 2.0, "y": 0.0}, abs=0.02)


def test_a_multiplier_that_is_too_high_has_the_same_minimiser() -> None:
    assert minimiser(Multipliers({"x": 7.0})) == pytest.approx((1.0, 0.0))
    assert minimiser(Multipliers({"x": 1.0}))[0] == pytest.approx(0.5)


def test_a_multiplier_falls_while_room_is_left_and_never_below_nought() -> None:
    once = Multipliers({"memory": 0.3}, rate=1.0).updated({"memory": -0.2})
    assert once.values == pytest.approx({"memory": 0.1})
    assert once.updated({"memory": -0.2}).values == {"memory": 0.0}


def test_room_under_one_limit_does_not_pay_for_another() -> None:
    multipliers = Multipliers({"memory": 2.0, "file": 3.0})
    assert multipliers.penalty({"memory": 0.5, "file": -0.9}) == pytest.approx(1.0)
    assert multipliers.penalty({"memory": -0.5, "file": -0.9}) == 0.0
    assert multipliers.penalty({"unheard of": 4.0}) == 0.0


def test_what_nothing_meets_stays_finite() -> None:
    multipliers = Multipliers(rate=400.0)
    for _ in range(5):
        multipliers = multipliers.updated({"memory": 1.0})
    assert multipliers.values == {"memory": MOST}


def test_constraints_not_named_keep_theirs_and_the_argument_is_left_alone() -> None:
    before = Multipliers({"memory": 1.0})
    assert before.updated({"file": 1.0}).values == {"memory": 1.0, "file": 0.5}
    assert before.values == {"memory": 1.0}


def test_a_batch_moves_by_its_mean() -> None:
    batch: list[Mapping[str, float]] = [{"memory": 1.0, "file": -1.0}, {"memory": 0.0}]
    assert mean_violations(batch) == {"memory": 0.5, "file": -1.0}


def test_no_violation_is_not_a_number() -> None:
    with pytest.raises(BadInputError, match="violation of memory must be a number"):
        Multipliers().updated({"memory": float("nan")})
    with pytest.raises(BadInputError, match="rate of the multipliers"):
        Multipliers(rate=0.0)
