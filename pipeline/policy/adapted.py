"""Policies whose plan-value network was meta-learned: MAML, FOMAML, Reptile and ANIL.

Each call adapts the network to the history by its learner's inner steps, corrects it by what its errors on
the history say, and proposes the plans of most expected growth of the front: `pipeline.policy.planner`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch

from device_bench.errors import BadInputError
from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy.base import PolicyContext
from pipeline.policy.forecast import Forecast, Trained
from pipeline.policy.plan_features import NAMES, PlanFeatures
from pipeline.policy.plan_search import Predict
from pipeline.policy.plan_value import Parameters, PlanBatch, predict
from pipeline.policy.planner import Planner, Tried, in_turn
from pipeline.policy.planner_training import learner_named, loss
from pipeline.policy.policy_file import PolicyFile, shipped_policy
from pipeline.policy.residual_kernel import ResidualKernel
from pipeline.policy.training import one_thread
from pipeline.tables.codec import PlanCodec


class AdaptedPolicy:
    """A trained plan-value network and the learner that adapts it.

    Args:
        trained: the file's content.

    Raises:
        BadInputError: the network sees other features than this version gives it.
    """

    def __init__(self, trained: PolicyFile) -> None:
        self.name = trained.learner
        self._trained = trained
        self._learner = learner_named(trained.learner)
        if tuple(trained.setting("features")) != NAMES:
            raise BadInputError(
                f"the {trained.learner} policy was trained on other features than this version gives; train "
                f"it anew with `edgeloop meta-train tasks.toml --policy {trained.learner}`"
            )

    def propose(self, context: PolicyContext, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        """Up to `count` new plans; several targets are served in turn."""
        with one_thread():
            return in_turn(context, history, count, self.name, lambda one: self._planner(context, one))

    def attribute(
        self, context: PolicyContext, history: Sequence[Trial], plan: CompressionPlan
    ) -> Mapping[str, Mapping[str, float]]:
        """What each feature of each changed position added to, or took from, the plan's predicted worth.

        Gradient times difference from the mean position (Shrikumar et al., "Not just a black box", 2016), of
        −T by features: positive spoke for the change. Of several targets the first is asked.
        """
        target = context.targets[0].name
        codec = PlanCodec(context.space)
        features = PlanFeatures.of(context, target, context.chance, codec)
        batch = PlanBatch.of(features, codec.encode(plan)[None])
        x = batch.x.clone().requires_grad_()
        damage = torch.nan_to_num(batch.damage).clone().requires_grad_()
        seen = batch.damage.isfinite()
        told = batch._replace(x=x, damage=torch.where(seen, damage, torch.nan))
        total, _ = predict(self._parameters, told)
        total.sum().backward()
        assert x.grad is not None and damage.grad is not None
        contrast = batch.x - torch.from_numpy(features.options.mean((0, 1)))
        parts = -(x.grad * contrast)[0]
        parts[:, NAMES.index("damage alone")] -= (damage.grad * torch.nan_to_num(batch.damage))[0]
        return {
            position.name: {name: float(value) for name, value in zip(NAMES, parts[place], strict=True)}
            for place, position in enumerate(codec.positions)
            if bool(batch.active[0, place])
        }

    def _planner(self, context: PolicyContext, target: str) -> Planner:
        def predict_after(codec: PlanCodec, tried: Tried) -> Predict:
            features = PlanFeatures.of(context, target, context.chance, codec)
            return Forecast.of(self._adapted, self._meta, features, tried).outlook

        return Planner(context, target, predict_after)

    def _adapted(self, support: PlanBatch) -> Parameters:
        if not support.plans:
            return self._parameters
        return self._learner.adapt(self._parameters, support, loss)

    @cached_property
    def _parameters(self) -> Parameters:
        return {name: torch.from_numpy(np.array(array)) for name, array in self._trained.tensors.items()}

    @cached_property
    def _meta(self) -> Trained:
        gain, latency = self._trained.setting("kernels")
        kernels = ResidualKernel(tuple(gain)), ResidualKernel(tuple(latency))
        return Trained(kernels, float(self._trained.setting("trust")))


class MamlPolicy(AdaptedPolicy):
    """See `pipeline.learning.maml`."""

    def __init__(self, trained: PolicyFile | None = None) -> None:
        super().__init__(trained or shipped_policy("maml"))


class FomamlPolicy(AdaptedPolicy):
    """See `pipeline.learning.fomaml`."""

    def __init__(self, trained: PolicyFile | None = None) -> None:
        super().__init__(trained or shipped_policy("fomaml"))


class ReptilePolicy(AdaptedPolicy):
    """See `pipeline.learning.reptile`."""

    def __init__(self, trained: PolicyFile | None = None) -> None:
        super().__init__(trained or shipped_policy("reptile"))


class AnilPolicy(AdaptedPolicy):
    """See `pipeline.learning.anil`."""

    def __init__(self, trained: PolicyFile | None = None) -> None:
        super().__init__(trained or shipped_policy("anil"))
