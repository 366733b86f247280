"""Policies whose plan-value network was meta-learned: MAML, FOMAML, Reptile and ANIL, and the shipped one.

Each call adapts the network to the history by its learner's inner steps, corrects it by what its errors on
the history say, and proposes the plans of most expected growth of the front: `pipeline.policy.planner`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import cast

import numpy as np
import torch

from device_bench.errors import BadInputError
from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy.base import PolicyContext
from pipeline.policy.plan_features import NAMES, PlanFeatures
from pipeline.policy.plan_value import Parameters, PlanBatch, predict
from pipeline.policy.planner import Planner, Trained
from pipeline.policy.planner_training import learner_named, loss
from pipeline.policy.policy_file import SHIPPED_FOLDER, SUFFIX, PolicyFile, load_policy_file, shipped_policy
from pipeline.policy.residual_kernel import ResidualKernel
from pipeline.policy.training import one_thread
from pipeline.tables.codec import PlanCodec

META = "meta"


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
            return self._proposed(context, history, count)

    def _proposed(
        self, context: PolicyContext, history: Sequence[Trial], count: int
    ) -> list[CompressionPlan]:
        plans: list[CompressionPlan] = []
        seen = list(history)
        while len(plans) < count:
            target = context.targets[len(seen) % len(context.targets)].name
            wanted = count - len(plans) if len(context.targets) == 1 else 1
            new = self._planner(context, target).propose(seen, wanted)
            if not new:
                break
            plans += new
            # A plan that waits for its trial must not be proposed for the next target again.
            seen += [_waiting(plan, len(seen) + place, self.name) for place, plan in enumerate(new)]
        return plans

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
        return Planner(context, target, self._adapted, self._meta)

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


class MetaPolicy:
    """The policy that comes with the package as the default; of whatever learner did best.

    Raises:
        BadInputError: it is missing, damaged or of another version.
    """

    name = META

    def __init__(self) -> None:
        from pipeline.policy import policy_of

        self._best = policy_of(load_policy_file(SHIPPED_FOLDER / f"{META}{SUFFIX}"))

    def propose(self, context: PolicyContext, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        """What the best policy proposes."""
        return self._best.propose(context, history, count)

    def attribute(
        self, context: PolicyContext, history: Sequence[Trial], plan: CompressionPlan
    ) -> Mapping[str, Mapping[str, float]]:
        """What the best policy decides by; empty where it cannot tell."""
        told = getattr(self._best, "attribute", None)
        return {} if told is None else cast("Mapping[str, Mapping[str, float]]", told(context, history, plan))


def _waiting(plan: CompressionPlan, number: int, origin: str) -> Trial:
    """A trial that has not come back yet: it teaches nothing, and its plan is taken."""
    from device_bench.protocol import Failure, FailureKind

    failure = Failure(kind=FailureKind.CANCELLED, message="waits for its turn")
    return Trial(number=number, plan=plan, origin=origin, failure=failure)
