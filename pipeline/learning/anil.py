"""ANIL: almost no inner loop. As MAML, but a task changes the head only.

    headᵢ′ = head − α∇_head L(body, head; supportᵢ)
    (body, head) ← (body, head) − β∇ (1/n) Σᵢ L(body, headᵢ′; queryᵢ)        (Raghu et al., ICLR 2020)

The outer step moves everything: the body learns features from which a new head alone is enough.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from device_bench.errors import BadInputError
from pipeline.learning.adam import AdamState
from pipeline.learning.inner import Batch, InnerLoop, Loss, MetaStep, Parameters, TaskBatch
from pipeline.learning.maml import MAML


@dataclass(frozen=True)
class ANIL:
    """MAML whose inner steps are on the head.

    Args:
        inner: the steps that adapt to a task; its `movable` is left None.
        head: names of the head's parameters; at least one.
        outer_rate: β, Adam's rate.
    """

    inner: InnerLoop
    head: Collection[str]
    outer_rate: float = 1e-3
    name: str = "anil"
    _maml: MAML = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.head or isinstance(self.head, str):
            raise BadInputError(f"head must be the names of the head's parameters; got {self.head!r}")
        if self.inner.movable is not None:
            raise BadInputError("the inner loop of ANIL moves the head; leave movable out and name the head")
        on_head = replace(self.inner, movable=frozenset(self.head))
        object.__setattr__(self, "_maml", MAML(on_head, self.outer_rate))

    def start(self, parameters: Parameters) -> AdamState:
        """Adam's state before the first outer step."""
        return self._maml.start(parameters)

    def meta_step(
        self, parameters: Parameters, state: AdamState, tasks: Sequence[TaskBatch], loss: Loss
    ) -> MetaStep:
        """One outer step; see `MetaLearner`."""
        return self._maml.meta_step(parameters, state, tasks, loss)

    def adapt(self, parameters: Parameters, support: Batch, loss: Loss) -> Parameters:
        """`parameters` after the inner steps on the head."""
        return self._maml.adapt(parameters, support, loss)
