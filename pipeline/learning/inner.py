"""The inner loop: a few steps of gradient descent on a task's support set, as a function of where they start.

    θ′ ← θ − α∇L(θ; support), `steps` times        (Finn et al., "MAML", ICML 2017, equation 1)

It is pure: parameters go in and come out as a dict, so an outer learner can differentiate through it, and no
module has to be copied for each task.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.func import grad_and_value

from device_bench.errors import BadInputError, RunError, unknown_name
from pipeline.learning.adam import AdamState

Parameters = dict[str, Tensor]
# Tensors whose first dimension counts samples, for example (inputs [n, ...], targets [n]).
Batch = tuple[Tensor, ...]
# A scalar of parameters and a batch; usually `torch.func.functional_call` and a mean over the batch.
Loss = Callable[[Parameters, Batch], Tensor]


@dataclass(frozen=True)
class TaskBatch:
    """One task as a meta-learner sees it: it adapts on `support` and is judged on `query`."""

    support: Batch
    query: Batch


class MetaStep(NamedTuple):
    """What one outer step gives: new parameters, the optimizer's new state, and the loss it started from."""

    parameters: Parameters
    state: AdamState
    query_loss: float


class MetaLearner(Protocol):
    """Learns parameters from which a task is learned in a few inner steps.

    It keeps nothing between calls: whoever trains keeps parameters and state, and can so stop and go on.
    """

    @property
    def name(self) -> str:
        """How the learner is called by its users."""
        ...

    def start(self, parameters: Parameters) -> AdamState:
        """The optimizer's state before the first outer step from `parameters`."""
        ...

    def meta_step(
        self, parameters: Parameters, state: AdamState, tasks: Sequence[TaskBatch], loss: Loss
    ) -> MetaStep:
        """One outer step over `tasks`; `query_loss` is the mean after adapting, before this step.

        Raises:
            BadInputError: no tasks, or one with an empty support or query set.
            RunError: a loss is not finite; says of which task and step.
        """
        ...

    def adapt(self, parameters: Parameters, support: Batch, loss: Loss) -> Parameters:
        """`parameters` after the inner steps on `support`; detached, new tensors where they moved.

        Raises:
            BadInputError: an empty support set, or names that `parameters` lacks.
            RunError: the loss is not finite; says at which step.
        """
        ...


@dataclass(frozen=True)
class InnerLoop:
    """`steps` steps of plain gradient descent at `rate`.

    Args:
        rate: α, above 0.
        steps: at least 1.
        movable: names of the parameters that the steps change; all if None.
        longest: a step's gradients, as one vector, are cut to this norm (Pascanu et al., ICML 2013); not if
            None. An outer gradient goes through the cut.
    """

    rate: float
    steps: int = 1
    movable: frozenset[str] | None = None
    longest: float | None = None

    def __post_init__(self) -> None:
        if not self.rate > 0.0:
            raise BadInputError(f"the inner rate must be above 0; got {self.rate}: try 0.01")
        if self.steps < 1:
            raise BadInputError(f"inner steps must be at least 1; got {self.steps}")
        if self.longest is not None and not self.longest > 0.0:
            raise BadInputError(f"the longest inner gradient must be above 0; got {self.longest}: try 1")

    def unrolled(self, parameters: Parameters, support: Batch, loss: Loss) -> Parameters:
        """θ′ as a differentiable function of θ = `parameters`, for an outer gradient to go through."""
        check_batch(support, "support")
        moving = {name: parameters[name] for name in self._moving_names(parameters)}

        def of_moving(current: Parameters) -> Tensor:
            return loss(parameters | current, support)

        for step in range(self.steps):
            gradients, value = grad_and_value(of_moving)(moving)
            check_finite(value, f"the loss on the support set before inner step {step + 1}")
            if self.longest is not None:
                gradients = cut(gradients, self.longest)
            moving = {name: moving[name] - self.rate * gradients[name] for name in moving}
        return parameters | moving

    def adapt(self, parameters: Parameters, support: Batch, loss: Loss) -> Parameters:
        """θ′ as plain values; nothing of how they came about is kept."""
        adapted = self.unrolled(detached(parameters), support, loss)
        return detached(adapted)

    def _moving_names(self, parameters: Parameters) -> Collection[str]:
        if self.movable is None:
            return parameters
        if not self.movable:
            raise BadInputError(
                "no parameter may move in the inner loop; name at least one, or give None for all"
            )
        for name in sorted(self.movable):
            if name not in parameters:
                raise unknown_name("parameter", name, parameters)
        # In the order of the parameters, so that equal arguments give equal sums.
        return [name for name in parameters if name in self.movable]


def cut(gradients: Parameters, longest: float) -> Parameters:
    """The same direction, with a norm of at most `longest`."""
    # Above 0 also where all are 0, for the root has no gradient there.
    norm = (sum(gradient.square().sum() for gradient in gradients.values()) + 1e-12) ** 0.5
    scale = (longest / norm).clamp(max=1.0)
    return {name: scale * gradient for name, gradient in gradients.items()}


def detached(parameters: Parameters) -> Parameters:
    """The same values without what they were computed from."""
    return {name: tensor.detach() for name, tensor in parameters.items()}


def check_batch(batch: Batch, name: str) -> None:
    """Refuse a batch of nothing.

    Raises:
        BadInputError: it has no tensors or no samples.
    """
    if not batch or any(len(tensor) == 0 for tensor in batch):
        raise BadInputError(f"the {name} set is empty; give at least one sample")


def check_tasks(tasks: Sequence[TaskBatch]) -> None:
    """Refuse an outer step over nothing.

    Raises:
        BadInputError: there are no tasks, or one has an empty support or query set.
    """
    if not tasks:
        raise BadInputError("an outer step needs at least one task; got none")
    for number, task in enumerate(tasks):
        check_batch(task.support, f"support (task {number})")
        check_batch(task.query, f"query (task {number})")


def check_finite(value: Tensor, name: str) -> None:
    """Refuse to go on from a loss that is NaN or infinite.

    Raises:
        RunError: it is not finite.
    """
    if not bool(torch.isfinite(value)):
        raise RunError(
            f"{name} is {float(value.detach())}; look for such values in the data, or lower the rate"
        )
