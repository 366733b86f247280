"""Several teachers as one: the student learns from the mixture of what they say.

softmax(result / T) = Σ w · softmax(t / T) for classes (Hinton et al., "Distilling the Knowledge in a Neural
Network", 2015, section 3, distil an ensemble so); the weighted mean for numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from device_bench.errors import BadInputError
from pipeline.data.base import Metric
from pipeline.methods.matching import blended


class Ensemble(nn.Module):
    """Answers as its teachers do together.

    Args:
        teachers: for the same inputs and outputs, in evaluation mode.
        weights: of each; they are scaled to sum to 1.
        metric: tells whether outputs are logits or numbers.
        temperature: at which distributions are mixed.

    Raises:
        BadInputError: a weight is below zero, or all are zero, or there is not one for each teacher.
    """

    def __init__(
        self, teachers: Sequence[nn.Module], weights: Sequence[float], metric: Metric, temperature: float
    ) -> None:
        super().__init__()
        if len(weights) != len(teachers) or min(weights) < 0.0 or sum(weights) <= 0.0:
            raise BadInputError(
                f"{len(teachers)} teachers need a weight each, none below zero and one above it; "
                f"got {list(weights)}"
            )
        self.teachers = nn.ModuleList(teachers)
        self._weights = [weight / sum(weights) for weight in weights]
        self._mixes_classes = metric is Metric.ACCURACY
        self._temperature = temperature

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits or numbers for a batch, [n, k]."""
        answers = [teacher(x) for teacher in self.teachers]
        if self._mixes_classes:
            return blended(answers, self._weights, self._temperature)
        return torch.stack([weight * a for weight, a in zip(self._weights, answers, strict=True)]).sum(0)
