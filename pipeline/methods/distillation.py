"""The loss of recovery: the labels, and what the teacher says of the same sample."""

from __future__ import annotations

import torch
from torch.nn import functional

from pipeline.data.base import Metric
from pipeline.data.heads import by_head
from pipeline.plan import RecoveryChoice


def task_loss(
    outputs: torch.Tensor, truth: torch.Tensor, metric: Metric, heads: tuple[int, ...] = ()
) -> torch.Tensor:
    """Cross-entropy where the outputs are classes, mean squared error where they are values; a scalar.

    Args:
        outputs: [n, k].
        truth: int64 [n] classes, or float [n] values; int64 [n, heads] for several tasks.
        heads: classes of each of several tasks; the loss is the mean of theirs.
    """
    if heads:
        each = [task_loss(given, true, metric) for given, true in by_head(outputs, truth, heads)]
        return torch.stack(each).mean()
    outputs = outputs.float()
    if _are_classes(outputs, metric):
        return functional.cross_entropy(outputs, truth.long())
    return functional.mse_loss(outputs.reshape(truth.shape), truth.float())


def _are_classes(outputs: torch.Tensor, metric: Metric) -> bool:
    return metric in (Metric.ACCURACY, Metric.AUC) and outputs.shape[1] > 1


def recovery_loss(
    student: torch.Tensor,
    teacher: torch.Tensor | None,
    truth: torch.Tensor,
    choice: RecoveryChoice,
    metric: Metric,
    heads: tuple[int, ...] = (),
) -> torch.Tensor:
    """alpha * task loss + (1 - alpha) * distillation, a scalar.

    Classification: alpha * CE(y, s) + (1 - alpha) * T^2 * KL(softmax(t/T) || softmax(s/T))  (Hinton et al.,
    "Distilling the Knowledge in a Neural Network", 2015). Regression: mean squared error to both.

    Args:
        student: outputs [n, k].
        teacher: outputs [n, k] for the same inputs, or None for the labels alone.
        truth: int64 [n] classes, or float [n] values; int64 [n, heads] for several tasks.
        heads: classes of each of several tasks; each has its own distributions, and the loss is the mean.
    """
    if heads:
        taught_by = student if teacher is None else teacher
        each = [
            recovery_loss(one, None if teacher is None else other, true, choice, metric)
            for (one, true), (other, _) in zip(
                by_head(student, truth, heads), by_head(taught_by, truth, heads), strict=True
            )
        ]
        return torch.stack(each).mean()
    student = student.float()
    own = task_loss(student, truth, metric)
    if teacher is None:
        return own
    if not _are_classes(student, metric):
        return choice.alpha * own + (1 - choice.alpha) * functional.mse_loss(student, teacher.float())
    heat = choice.temperature
    taught = functional.kl_div(
        functional.log_softmax(student / heat, dim=1),
        functional.log_softmax(teacher.float() / heat, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return choice.alpha * own + (1 - choice.alpha) * heat**2 * taught
