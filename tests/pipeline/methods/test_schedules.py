from __future__ import annotations

from typing import get_args

import pytest
import torch

from device_bench.errors import BadInputError
from pipeline.methods.schedules import Schedule, keep_by_contribution, prune_until, ratio_at


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_it_rises_to_its_end(schedule: Schedule) -> None:
    ratios = [ratio_at(schedule, step, 20, 0.8) for step in range(21)]
    assert ratios == sorted(ratios)
    assert ratios[-1] == pytest.approx(0.8)
    assert all(0.0 <= ratio <= 0.8 + 1e-12 for ratio in ratios)


def test_halfway() -> None:
    assert ratio_at("constant", 10, 20, 0.8) == 0.8
    assert ratio_at("linear", 10, 20, 0.8) == pytest.approx(0.4)
    assert ratio_at("cubic", 10, 20, 0.8) == pytest.approx(0.7)
    assert ratio_at("one_cycle", 0, 20, 0.8) < 0.01
    # exp(-14 * 0.5 + 5) = exp(-2)
    assert ratio_at("one_cycle", 10, 20, 0.8) == pytest.approx(0.8 * 1.00012341 / 1.13533528)


def test_out_of_range() -> None:
    with pytest.raises(BadInputError, match="steps from 0 to 4"):
        ratio_at("linear", 5, 4, 0.5)
    with pytest.raises(BadInputError, match="final ratio"):
        ratio_at("linear", 1, 4, 1.0)


def test_the_largest_ratio_that_is_good_enough_is_found() -> None:
    found = prune_until(lambda ratio: (f"at {ratio}", 90.0 - 40.0 * ratio**2), 85.0, 0.9, 8)
    assert found is not None
    # 90 - 40 r² = 85 at r = 0.3536.
    assert 0.34 < found.ratio <= 0.35356
    assert found.made == f"at {found.ratio}" and found.accuracy >= 85.0
    assert found.attempts[0][0] == 0.9 and len(found.attempts) == 8


def test_the_most_at_once_if_that_is_good() -> None:
    found = prune_until(lambda ratio: (None, 99.0), 85.0, 0.9, 8)
    assert found is not None and found.ratio == 0.9 and len(found.attempts) == 1


def test_none_where_nothing_is_good() -> None:
    assert prune_until(lambda ratio: (None, 10.0), 85.0, 0.9, 5) is None


def test_contributions_decide_who_stays_and_the_step_how_fast_others_go() -> None:
    contributions = torch.tensor([0.5, 0.01, 0.3, 0.0])
    assert keep_by_contribution(contributions, 0.1, 1.0, 1) == 0.5
    assert keep_by_contribution(contributions, 0.1, 1.0, 4) == pytest.approx(0.8)
    assert keep_by_contribution(contributions, 0.4, 0.8, 3) == pytest.approx(0.6)
    # What has gone does not come back.
    assert keep_by_contribution(torch.tensor([0.5, 0.5, 0.5, 0.0]), 0.1, 0.5, 1) == 0.5
    with pytest.raises(BadInputError, match="count from 1"):
        keep_by_contribution(contributions, 0.1, 1.0, 0)
