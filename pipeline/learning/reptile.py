"""Reptile: move towards where each task's own training ends.

    θ′ᵢ = θ after several inner steps on task i
    θ  ← θ + ε · (1/n) Σᵢ (θ′ᵢ − θ)        (Nichol et al., "On First-Order Meta-Learning Algorithms", 2018)

It needs no query set to learn from; the query set is only told apart to report the loss after adapting. In
training the inner steps run over support and query together: more samples of the task, and its own gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from device_bench.errors import BadInputError
from pipeline.learning.adam import AdamState
from pipeline.learning.inner import (
    Batch,
    InnerLoop,
    Loss,
    MetaStep,
    Parameters,
    TaskBatch,
    check_finite,
    check_tasks,
    detached,
)


@dataclass(frozen=True)
class Reptile:
    """Reptile with plain steps; the state only counts them.

    Args:
        inner: the steps that adapt to a task; several, for one alone only pre-trains on all tasks.
        outer_rate: ε, above 0 and at most 1.
    """

    inner: InnerLoop
    outer_rate: float = 0.1
    name: str = "reptile"

    def __post_init__(self) -> None:
        if not 0.0 < self.outer_rate <= 1.0:
            raise BadInputError(f"Reptile's outer rate must be above 0 and at most 1; got {self.outer_rate}")

    def start(self, parameters: Parameters) -> AdamState:
        """No step done; Reptile keeps nothing else."""
        return AdamState()

    def meta_step(
        self, parameters: Parameters, state: AdamState, tasks: Sequence[TaskBatch], loss: Loss
    ) -> MetaStep:
        """One outer step; see `MetaLearner`."""
        check_tasks(tasks)
        origin = detached(parameters)
        ways = {name: torch.zeros_like(tensor) for name, tensor in origin.items()}
        total = 0.0
        for number, task in enumerate(tasks):
            with torch.no_grad():
                value = loss(self.inner.adapt(origin, task.support, loss), task.query)
            check_finite(value, f"the query loss of task {number}")
            total += float(value)
            whole = tuple(torch.cat(parts) for parts in zip(task.support, task.query, strict=True))
            adapted = self.inner.adapt(origin, whole, loss)
            ways = {name: ways[name] + adapted[name] - origin[name] for name in origin}
        scale = self.outer_rate / len(tasks)
        moved = {name: tensor + scale * ways[name] for name, tensor in origin.items()}
        return MetaStep(moved, AdamState(state.steps + 1), total / len(tasks))

    def adapt(self, parameters: Parameters, support: Batch, loss: Loss) -> Parameters:
        """`parameters` after the inner steps on `support`."""
        return self.inner.adapt(parameters, support, loss)
