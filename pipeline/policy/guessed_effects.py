"""What single changes are likely to cost and give where none was probed: from sizes and latency shares alone.

Saving of a unit at keep ratio k, with s its measured share of the original's latency on the target, or its
share of the MACs where the target could not tell; of a block, the sum over its layers of their part of s:

    saving = s * (1 - k)         of a block: sum over its layers of s * MACs of the layer / MACs of its unit

Drop in points, with K what the original knows beyond chance and q the unit's share of the parameters:

    drop = K * EXPOSURE * (1 - k)^4 * (q + q0)^(-1/4)        of a block: K * BLOCK_EXPOSURE * (q + q0)^(-1/4)

Units inside a residual block are less exposed, as the shortcut carries on what they lose. The more parameters
a unit has, the more it can spare. The fourth power is how the drops of halved and of quartered units of a CNN
on spoken digits differ (about 7 against 35 points). It is a guess to rank by, and to begin with.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.graph import ModelGraph, Unit
from pipeline.policy.base import Change, Effect, PolicyContext

EXPOSURE = 0.6
INSIDE_EXPOSURE = 0.06
BLOCK_EXPOSURE = 0.015
LEAST_PARAMETER_SHARE = 0.01


def guessed_effects(context: PolicyContext) -> dict[Change, Effect]:
    """An effect for every single change of the space, on every target."""
    graph, space = context.graph, context.space
    latency = {t.name: _unit_shares(graph, context.shares.get(t.name, {})) for t in context.targets}
    # Where nobody said what chance is, the figure itself has to do; only the order of drops matters then.
    span = max(context.drop(context.chance), 0.0) or abs(context.float_accuracy)
    inside = {unit for block in graph.blocks for unit in block.units}
    effects = {}
    for name, ratios in space.choices.items():
        unit = graph.unit_by_name[name]
        exposure = (INSIDE_EXPOSURE if name in inside else EXPOSURE) * _need(graph, unit.parameters)
        for keep in ratios:
            if keep < 1.0:
                savings = {target: shares[name] * (1.0 - keep) for target, shares in latency.items()}
                drop = span * exposure * (1.0 - keep) ** 4
                effects[Change(unit=name, keep_ratio=keep)] = _effect(context, drop, savings)
    for block in graph.blocks:
        if block.name in space.removable:
            drop = span * BLOCK_EXPOSURE * _need(graph, block.parameters)
            savings = {
                target: sum(_layer_share(graph, shares, layer) for layer in block.layers)
                for target, shares in latency.items()
            }
            effects[Change(block=block.name)] = _effect(context, drop, savings)
    return effects


def _need(graph: ModelGraph, parameters: int) -> float:
    """How little of a part can be spared."""
    return float((parameters / max(1, graph.parameters) + LEAST_PARAMETER_SHARE) ** -0.25)


def _effect(context: PolicyContext, drop: float, savings: Mapping[str, float]) -> Effect:
    worse = -drop if context.metric.higher_is_better else drop
    return Effect(
        accuracy=context.float_accuracy + worse,
        latency_ms={name: context.base_latency_ms[name] * (1.0 - saved) for name, saved in savings.items()},
    )


def _unit_shares(graph: ModelGraph, measured: Mapping[str, float]) -> dict[str, float]:
    """Each unit's share of the latency, or of the MACs where nothing was measured."""
    return {u.name: measured.get(u.name, 0.0) if measured else u.macs / graph.macs for u in graph.units}


def _layer_share(graph: ModelGraph, shares: Mapping[str, float], layer: str) -> float:
    macs = {one.name: one.macs for one in graph.layers}
    owner: Unit | None = next((unit for unit in graph.units if layer in unit.layers), None)
    if owner is None:
        return macs.get(layer, 0) / graph.macs
    return shares[owner.name] * macs.get(layer, 0) / max(1, sum(macs.get(one, 0) for one in owner.layers))
