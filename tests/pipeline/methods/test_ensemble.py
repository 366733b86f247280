"""Several teachers as one: mixtures worked out by hand, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from device_bench.errors import BadInputError
from pipeline.data.base import Metric
from pipeline.methods.ensemble import Ensemble


class Says(nn.Module):
    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = torch.tensor(values)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.values.expand(len(x), -1)


def test_distributions_are_mixed_at_the_temperature() -> None:
    first, second = (torch.tensor([2.0, 0.0]), torch.tensor([0.0, 4.0]))
    both = Ensemble([Says(*first.tolist()), Says(*second.tolist())], [3.0, 1.0], Metric.ACCURACY, 2.0)
    wanted = 0.75 * (first / 2).softmax(0) + 0.25 * (second / 2).softmax(0)
    torch.testing.assert_close((both(torch.zeros(3, 1)) / 2).softmax(1), wanted.expand(3, -1))


def test_numbers_are_averaged() -> None:
    both = Ensemble([Says(1.0), Says(5.0)], [1.0, 3.0], Metric.MSE, 4.0)
    torch.testing.assert_close(both(torch.zeros(2, 1)), torch.full((2, 1), 4.0))


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0]])
def test_weights_of_no_use(weights: list[float]) -> None:
    with pytest.raises(BadInputError, match="2 teachers need a weight each"):
        Ensemble([Says(1.0), Says(2.0)], weights, Metric.ACCURACY, 4.0)


def test_teachers_with_other_classes() -> None:
    with pytest.raises(BadInputError, match="the same classes"):
        Ensemble([Says(1.0, 2.0), Says(1.0, 2.0, 3.0)], [1, 1], Metric.ACCURACY, 4.0)(torch.zeros(1, 1))


def test_a_teacher_may_answer_one_head_alone() -> None:
    general, special = torch.tensor([2.0, 0.0, 1.0, 5.0, 0.0]), torch.tensor([0.0, 3.0, 1.0])
    teachers = [Says(*general.tolist()), Says(*special.tolist())]
    both = Ensemble(teachers, [1.0, 3.0], Metric.ACCURACY, 2.0, (2, 3), [None, 1])
    found = both(torch.zeros(1, 1))[0] / 2
    torch.testing.assert_close(found[:2].softmax(0), (general[:2] / 2).softmax(0))
    wanted = 0.25 * (general[2:] / 2).softmax(0) + 0.75 * (special / 2).softmax(0)
    torch.testing.assert_close(found[2:].softmax(0), wanted)


def test_a_head_that_nobody_answers() -> None:
    with pytest.raises(BadInputError, match="no teacher answers head 0"):
        Ensemble([Says(1.0), Says(2.0)], [1, 1], Metric.ACCURACY, 4.0, (2, 3), [1, 1])
