"""Several teachers as one: the student learns from the mixture of what they say.

softmax(result / T) = Σ w · softmax(t / T) for classes (Hinton et al., "Distilling the Knowledge in a Neural
Network", 2015, section 3, distil an ensemble so); the weighted mean for numbers. Where the student has
several heads, each has its own mixture, and a teacher may answer one of them alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from device_bench.errors import BadInputError
from pipeline.data.base import Metric
from pipeline.data.heads import columns
from pipeline.methods.matching import blended


class Ensemble(nn.Module):
    """Answers as its teachers do together.

    Args:
        teachers: for the same inputs and outputs, in evaluation mode.
        weights: of each; they are scaled to sum to 1.
        metric: tells whether outputs are logits or numbers.
        temperature: at which distributions are mixed.
        heads: classes of each of several tasks; empty for one.
        answered: which head each teacher answers, None for all of them; empty if all answer all.

    Raises:
        BadInputError: a weight is below zero, or all are zero, or there is not one for each teacher; a head
            that nobody with a weight answers.
    """

    def __init__(
        self,
        teachers: Sequence[nn.Module],
        weights: Sequence[float],
        metric: Metric,
        temperature: float,
        heads: tuple[int, ...] = (),
        answered: Sequence[int | None] = (),
    ) -> None:
        super().__init__()
        if len(weights) != len(teachers) or min(weights) < 0.0 or sum(weights) <= 0.0:
            raise BadInputError(
                f"{len(teachers)} teachers need a weight each, none below zero and one above it; "
                f"got {list(weights)}"
            )
        self.teachers = nn.ModuleList(teachers)
        self._weights = [weight / sum(weights) for weight in weights]
        self._heads = columns(heads)
        self._answered = list(answered) or [None] * len(teachers)
        for head in range(len(self._heads)):
            if sum(self._weights[teacher] for teacher in self._teachers_of(head)) <= 0.0:
                raise BadInputError(f"no teacher answers head {head}; give it one with a share above 0")
        self._mixes_classes = metric is Metric.ACCURACY
        self._temperature = temperature

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits or numbers for a batch, [n, k]."""
        answers = [teacher(x) for teacher in self.teachers]
        if self._mixes_classes:
            return torch.cat([self._blended(answers, head) for head in range(len(self._heads))], 1)
        return torch.stack([weight * a for weight, a in zip(self._weights, answers, strict=True)]).sum(0)

    def _teachers_of(self, head: int) -> list[int]:
        return [teacher for teacher, only in enumerate(self._answered) if only in (None, head)]

    def _blended(self, answers: Sequence[torch.Tensor], head: int) -> torch.Tensor:
        asked = self._teachers_of(head)
        given = [
            answers[teacher] if self._answered[teacher] == head else answers[teacher][:, self._heads[head]]
            for teacher in asked
        ]
        return blended(given, [self._weights[teacher] for teacher in asked], self._temperature)
