"""The policy of two Gaussian processes: what plans cost and what they destroy; priors are learned over tasks.

Each call conditions the one on the target's measurements of single changes and trials, and the other on the
trials' accuracies, and proposes the plans of most expected growth of the front, by
`pipeline.policy.planner`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import isfinite

import numpy as np
import torch

from device_bench.errors import BadInputError
from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy.base import PolicyContext
from pipeline.policy.change_damage import STATIC, ChangeDamage, Guess
from pipeline.policy.damage_process import NO_TRUST_IN_ANSWERS, DamageBelief
from pipeline.policy.latency_process import LatencyBelief, Measured
from pipeline.policy.layer_work import FORMS, MEASURES, LayerWork
from pipeline.policy.plan_features import PlanFeatures
from pipeline.policy.plan_search import Outlook, Predict
from pipeline.policy.planner import Planner, Tried, in_turn, tried_of
from pipeline.policy.policy_file import PolicyFile, shipped_policy
from pipeline.policy.process import Numbers
from pipeline.policy.training import one_thread
from pipeline.search import changes_to_probe, plan_of
from pipeline.tables.codec import Options, PlanCodec

LEARNER = "gp"
# Latency has a prior for each runtime that was trained on, and this one for all others.
ANY_RUNTIME = "any"
FEATURES = (*MEASURES, *FORMS, *STATIC, "answers")
# Policies trained before answers were kept do not go by them.
FEATURES_BEFORE_ANSWERS = FEATURES[:-1]


class GpPolicy:
    """Trained priors.

    Args:
        trained: the file's content; the shipped one by default.

    Raises:
        BadInputError: the priors are about other features than this version's.
    """

    name = LEARNER

    def __init__(self, trained: PolicyFile | None = None) -> None:
        self._trained = trained or shipped_policy(LEARNER)
        if tuple(self._trained.setting("features")) not in (FEATURES, FEATURES_BEFORE_ANSWERS):
            raise BadInputError(
                "the gp policy was trained on other features than this version gives; train it anew with "
                "`edgeloop meta-train tasks.toml --policy gp`"
            )

    def propose(self, context: PolicyContext, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        """Up to `count` new plans; several targets are served in turn."""
        with one_thread():
            return in_turn(context, history, count, self.name, lambda one: self._planner(context, one))

    def attribute(
        self, context: PolicyContext, history: Sequence[Trial], plan: CompressionPlan
    ) -> Mapping[str, Mapping[str, float]]:
        """What each changed position gives and takes within the plan, as it was expected before its trial.

        "time saved" is a share of plain INT8's latency, "knowledge lost" (negative: it spoke against the
        change) one of what the original knows above chance; both are the difference that undoing the change
        alone makes. Of several targets the first is asked.
        """
        target = context.targets[0].name
        codec = PlanCodec(context.space)
        row = codec.encode(plan)
        changed = np.flatnonzero(row).tolist()
        undone = np.repeat(row[None], len(changed) + 1, axis=0)
        for line, place in enumerate(changed, start=1):
            undone[line, place] = 0
        with one_thread():
            outlook = self._after(context, target, codec, tried_of(context, target, codec, history))(
                codec.normal(undone)
            )
        kept = np.exp(-outlook.total)
        return {
            codec.positions[place].name: {
                "time saved": float(outlook.cost[line] - outlook.cost[0]),
                "knowledge lost": float(kept[0] - kept[line]),
            }
            for line, place in enumerate(changed, start=1)
        }

    def _planner(self, context: PolicyContext, target: str) -> Planner:
        return Planner(context, target, lambda codec, tried: self._after(context, target, codec, tried))

    def _after(self, context: PolicyContext, target: str, codec: PlanCodec, tried: Tried) -> Predict:
        features = PlanFeatures.of(context, target, context.chance, codec)
        changes = ChangeDamage.of(features, self._guess)
        damage = DamageBelief.of(changes, self._numbers["damage"], tried.rows, tried.gains)
        alone = range(len(codec.positions), len(codec.positions) + len(tried.rows))
        latency = LatencyBelief.of(
            LayerWork.of(context, target, codec),
            self._latency_prior(context, target),
            measured_changes(context, target, codec),
            Measured(tried.rows, tried.costs.tolist(), list(alone)),
        )

        def predict(asked: Options) -> Outlook:
            with torch.no_grad():
                total, spread = damage.total(asked)
                return Outlook(total, spread, *latency.ratio(asked))

        return predict

    def _latency_prior(self, context: PolicyContext, target: str) -> Numbers:
        runtime = next(one.runtime.value for one in context.targets if one.name == target)
        return self._numbers.get(f"latency of {runtime}", self._numbers[f"latency of {ANY_RUNTIME}"])

    @cached_property
    def _numbers(self) -> dict[str, Numbers]:
        found: dict[str, Numbers] = {}
        for key, array in self._trained.tensors.items():
            prior, _, name = key.rpartition("/")
            found.setdefault(prior, {})[name] = torch.from_numpy(np.array(array, dtype=np.float64))
        return found | {"damage": NO_TRUST_IN_ANSWERS | found["damage"]}

    @cached_property
    def _guess(self) -> Guess:
        guess = self._numbers["guess"]
        return Guess(guess["slopes"].numpy(), float(guess["spread"]))


def measured_changes(context: PolicyContext, target: str, codec: PlanCodec) -> Measured:
    """The changes whose latency on `target` was probed; what lies between two of them was not measured."""
    rows, ratios = [], []
    for change in changes_to_probe(context.graph, context.space):
        effect = context.effects.get(change)
        latency = None if effect is None else effect.latency_ms.get(target)
        if latency is not None and isfinite(latency):
            rows.append(codec.encode(plan_of(context.space, change)))
            ratios.append(latency / context.base_latency_ms[target])
    table = np.stack(rows) if rows else np.zeros((0, len(codec.positions)), np.int16)
    return Measured(table, ratios, [_home(codec, row) for row in table])


def _home(codec: PlanCodec, row: Options) -> int:
    """The block of a single change, or its unit outside of blocks: those are probed one after another."""
    place = int(np.flatnonzero(row)[0])
    inside = int(codec.inside[place])
    return inside if inside >= 0 else place
