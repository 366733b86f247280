"""The loss of recovery: the labels, and what the teacher says of the same sample."""

from __future__ import annotations

import torch
from torch.nn import functional

from pipeline.data.base import Metric
from pipeline.plan import RecoveryChoice


def recovery_loss(
    student: torch.Tensor,
    teacher: torch.Tensor | None,
    truth: torch.Tensor,
    choice: RecoveryChoice,
    metric: Metric,
) -> torch.Tensor:
    """alpha * task loss + (1 - alpha) * distillation, a scalar.

    Classification: alpha * CE(y, s) + (1 - alpha) * T^2 * KL(softmax(t/T) || softmax(s/T))  (Hinton et al.,
    "Distilling the Knowledge in a Neural Network", 2015). Regression: mean squared error to both.

    Args:
        student: outputs [n, k].
        teacher: outputs [n, k] for the same inputs, or None for the labels alone.
        truth: int64 [n] classes, or float [n] values.
    """
    student = student.float()
    classes = metric in (Metric.ACCURACY, Metric.AUC) and student.shape[1] > 1
    if not classes:
        own = functional.mse_loss(student.reshape(truth.shape), truth.float())
        if teacher is None:
            return own
        return choice.alpha * own + (1 - choice.alpha) * functional.mse_loss(student, teacher.float())
    own = functional.cross_entropy(student, truth)
    if teacher is None:
        return own
    heat = choice.temperature
    taught = functional.kl_div(
        functional.log_softmax(student / heat, dim=1),
        functional.log_softmax(teacher.float() / heat, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return choice.alpha * own + (1 - choice.alpha) * heat**2 * taught
