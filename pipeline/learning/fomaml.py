"""FOMAML: MAML with the outer gradient taken at θ′ only, as if the inner steps were the identity.

    θ′ᵢ = θ − α∇L(θ; supportᵢ)
    θ  ← θ − β (1/n) Σᵢ ∇_θ′ L(θ′ᵢ; queryᵢ)        (Finn et al., ICML 2017, section 5.2, "first-order")

Half the work of MAML, and no Hessian.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.func import grad_and_value

from pipeline.learning.inner import Loss, Parameters, TaskBatch, check_finite, check_tasks
from pipeline.learning.maml import MAML


@dataclass(frozen=True)
class FOMAML(MAML):
    """First-order MAML: the same steps, another gradient.

    Args:
        inner: the steps that adapt to a task.
        outer_rate: β, Adam's rate.
    """

    name: str = "fomaml"

    def meta_gradient(
        self, parameters: Parameters, tasks: Sequence[TaskBatch], loss: Loss
    ) -> tuple[Parameters, Tensor]:
        """The mean over tasks of ∇_θ′ of the query loss at θ′, and that loss."""
        check_tasks(tasks)
        gradients, total = None, None
        for number, task in enumerate(tasks):
            adapted = self.inner.adapt(parameters, task.support, loss)
            found, value = grad_and_value(loss)(adapted, task.query)
            check_finite(value, f"the query loss of task {number}")
            gradients = found if gradients is None else {k: gradients[k] + found[k] for k in found}
            total = value if total is None else total + value
        assert gradients is not None and total is not None
        return {name: found / len(tasks) for name, found in gradients.items()}, total / len(tasks)
