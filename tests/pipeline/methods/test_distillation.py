from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch.nn import functional

from pipeline.data.base import Metric
from pipeline.methods.distillation import recovery_loss, task_loss
from pipeline.plan import RecoveryChoice


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(7, 5, generator=generator) * 3 for _ in range(2))
    return student, teacher, torch.randint(0, 5, (7,), generator=generator)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_classification_is_hintons_formula(
    logits: tuple[torch.Tensor, torch.Tensor, torch.Tensor], alpha: float, temperature: float
) -> None:
    student, teacher, truth = logits
    s, t = student.double().numpy(), teacher.double().numpy()
    cross_entropy = -np.mean(log_softmax(s, axis=1)[np.arange(7), truth.numpy()])
    p = softmax(t / temperature, axis=1)
    divergence = np.mean(np.sum(p * (np.log(p) - log_softmax(s / temperature, axis=1)), axis=1))
    expected = alpha * cross_entropy + (1 - alpha) * temperature**2 * divergence
    choice = RecoveryChoice(alpha=alpha, temperature=temperature)
    for metric in (Metric.ACCURACY, Metric.AUC):
        assert float(recovery_loss(student, teacher, truth, choice, metric)) == pytest.approx(
            expected, rel=1e-5
        )


def test_without_a_teacher_labels_count_alone(
    logits: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    student, _, truth = logits
    expected = -np.mean(log_softmax(student.double().numpy(), axis=1)[np.arange(7), truth.numpy()])
    found = recovery_loss(student, None, truth, RecoveryChoice(alpha=0.1), Metric.ACCURACY)
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("metric", [Metric.MSE, Metric.R2])
def test_regression_is_squared_error_to_both(metric: Metric) -> None:
    student = torch.tensor([[1.0], [2.0], [4.0]])
    teacher = torch.tensor([[1.5], [2.0], [3.0]])
    truth = torch.tensor([0.0, 2.0, 5.0], dtype=torch.float64)
    own, taught = (1 + 0 + 1) / 3, (0.25 + 0 + 1) / 3
    found = recovery_loss(student, teacher, truth, RecoveryChoice(alpha=0.3), metric)
    assert float(found) == pytest.approx(0.3 * own + 0.7 * taught, rel=1e-6)
    assert float(recovery_loss(student, None, truth, RecoveryChoice(), metric)) == pytest.approx(own)


def test_one_anomaly_score_is_fitted_as_a_value() -> None:
    scores, truth = torch.tensor([[0.2], [0.9]]), torch.tensor([0, 1])
    found = recovery_loss(scores, None, truth, RecoveryChoice(), Metric.AUC)
    assert float(found) == pytest.approx((0.04 + 0.01) / 2, rel=1e-5)


def test_half_precision_outputs_are_judged_in_single(
    logits: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    student, teacher, truth = logits
    half = student.bfloat16().requires_grad_()
    choice = RecoveryChoice()
    found = recovery_loss(half, teacher, truth, choice, Metric.ACCURACY)
    assert found.dtype == torch.float32
    expected = recovery_loss(half.detach().float(), teacher, truth, choice, Metric.ACCURACY)
    assert float(found.detach()) == float(expected)
    found.backward()
    assert half.grad is not None


def test_several_heads_have_distributions_of_their_own(
    logits: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    student, teacher, truth = logits
    both = torch.stack([truth % 2, truth % 3], 1)
    choice = RecoveryChoice(alpha=0.3, temperature=4.0)
    parts = [(slice(0, 2), both[:, 0]), (slice(2, 5), both[:, 1])]
    for taught_by in (teacher, None):
        each = [
            recovery_loss(
                student[:, part],
                None if taught_by is None else taught_by[:, part],
                own,
                choice,
                Metric.ACCURACY,
            )
            for part, own in parts
        ]
        found = recovery_loss(student, taught_by, both, choice, Metric.ACCURACY, (2, 3))
        assert float(found) == pytest.approx(float(sum(each)) / 2)
    expected = [functional.cross_entropy(student[:, part], own) for part, own in parts]
    found = task_loss(student, both, Metric.ACCURACY, (2, 3))
    assert float(found) == pytest.approx(float(sum(expected)) / 2)
