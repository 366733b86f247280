"""The same keep ratio everywhere, with none to all of the removable blocks gone, evenly spread."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.experience import Trial
from pipeline.graph import ModelGraph
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Novelty, PolicyContext
from pipeline.space import PlanSpace

KEEP_RATIOS = (1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25)


class UniformPolicy:
    """Walks a ladder from the lightest to the heaviest plan, first in big strides and then in between."""

    name = "uniform"

    def propose(self, context: PolicyContext, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        """The next rungs of the ladder that were not tried."""
        novelty = Novelty(history)
        rungs = ladder(context.space)
        return [plan for i in in_strides(len(rungs)) if novelty.admits(plan := rungs[i])][:count]


def ladder(space: PlanSpace) -> list[CompressionPlan]:
    """Every keep ratio with every number of removed blocks, ordered by the MACs that stay."""
    plans = [
        space.uniform(keep, evenly_spread(space.removable, removed))
        for keep in KEEP_RATIOS
        for removed in range(len(space.removable) + 1)
    ]
    return sorted(plans, key=lambda plan: (-macs_share(space.graph, plan), plan.plan_id))


def evenly_spread(blocks: Sequence[str], count: int) -> list[str]:
    """`count` of `blocks`, from the middles of as many equal stretches."""
    return [blocks[int((i + 0.5) * len(blocks) / count)] for i in range(count)]


def macs_share(graph: ModelGraph, plan: CompressionPlan) -> float:
    """About what share of the MACs stays; a layer's inputs are taken to be as narrowed as its outputs."""
    gone = {layer for block in graph.blocks if block.name in plan.removed for layer in block.layers}
    macs = {layer.name: layer.macs for layer in graph.layers if layer.name not in gone}
    units = {layer: unit.name for unit in graph.units for layer in unit.layers}
    left = sum(m * (plan.keep_ratio(units[name]) ** 2 if name in units else 1.0) for name, m in macs.items())
    return left / max(1, graph.macs)


def in_strides(count: int) -> list[int]:
    """The numbers below `count`, ordered so that any first few of them are spread over all.

    Van der Corput's sequence in base 2: 1/2, 1/4, 3/4, 1/8, …
    """
    bits = max(1, count.bit_length())
    mirrored = [int(f"{i:0{bits}b}"[::-1], 2) for i in range(1, 1 << bits)]
    return [i for i in (*mirrored, 0) if i < count]
