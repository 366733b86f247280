"""Which plans of a task are recorded: single changes, plans at random, and plans near the front.

A plan near the front is drawn as the best answer to a random price of time: every position takes the option
with the least  drop + price * (latency - base latency)  of its single change, each factor disturbed by a
log-normal one. Prices are spread evenly on a logarithmic scale, so that gentle and harsh plans come alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.plan import CompressionPlan
from pipeline.policy.base import Change, Effect, PolicyContext, shape_of
from pipeline.tables.codec import Options, PlanCodec

# Points of the metric that all of the latency is worth, at the lowest and at the highest price.
PRICES = (0.5, 200.0)
DISTURBANCE = 0.7
# Of the whole plans so many come at random from the space, the others from near the front.
RANDOM_SHARE = 0.4
# In small spaces few plans are left after a while.
PATIENCE = 200


@dataclass(frozen=True)
class PlanChooser:
    """Draws plans to record.

    Args:
        context: with the effects of single changes on at least one target.
    """

    context: PolicyContext

    def choose(self, count: int, seed: int) -> list[CompressionPlan]:
        """`count` plans of different shapes, or all that were found; the original is none of them."""
        codec = PlanCodec(self.context.space)
        drops, savings = self._effects(codec)
        rng = np.random.default_rng(seed)
        seen = {shape_of(CompressionPlan())}
        plans: list[CompressionPlan] = []
        in_vain = 0
        while len(plans) < count and in_vain < PATIENCE:
            if rng.random() < RANDOM_SHARE:
                plan = self.context.space.sample(rng)
            else:
                plan = codec.decode(_bargain(drops, savings, rng))
            if shape_of(plan) in seen or len(plan.units) + len(plan.removed) < 2:
                in_vain += 1
                continue
            seen.add(shape_of(plan))
            plans.append(plan)
            in_vain = 0
        return plans

    def _effects(self, codec: PlanCodec) -> tuple[np.ndarray, np.ndarray]:
        """Drop in points and share of latency saved by each option alone, [positions, options]."""
        drops = np.where(np.isfinite(codec.keeps), 0.0, np.inf)
        savings = np.zeros_like(drops)
        for place, position in enumerate(codec.positions):
            for option, keep in enumerate(position.keeps[1:], start=1):
                change = (
                    Change(block=position.name)
                    if position.is_block
                    else Change(unit=position.name, keep_ratio=keep)
                )
                effect = self.context.effects.get(change)
                if effect is None:
                    drops[place, option] = np.inf
                else:
                    drops[place, option] = max(0.0, self.context.drop(effect.accuracy))
                    savings[place, option] = _saving(effect, self.context.base_latency_ms)
        return drops, savings


def _bargain(drops: np.ndarray, savings: np.ndarray, rng: np.random.Generator) -> Options:
    price = np.exp(rng.uniform(*np.log(PRICES)))
    disturbed = drops * rng.lognormal(0.0, DISTURBANCE, drops.shape)
    gained = price * savings * rng.lognormal(0.0, DISTURBANCE, (len(drops), 1))
    best: Options = np.argmin(disturbed - gained, axis=1).astype(np.int16)
    return best


def _saving(effect: Effect, base: Mapping[str, float]) -> float:
    shares = [1.0 - ms / base[name] for name, ms in effect.latency_ms.items() if name in base]
    return float(np.mean(shares)) if shares else 0.0
