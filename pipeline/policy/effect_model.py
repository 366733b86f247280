"""What several changes at once are likely to cost and give, from the measured effects of single ones.

Latency of a plan on a target, with base latency L, changes i and s_i = L - latency of change i alone:

    predicted = L - c * sum_i s_i * (share of the unit's MACs that lie outside removed blocks)

c is the median of observed over predicted saving among the tried plans most like this one (in what blocks and
what widths are predicted to save), and 1 before there are any. A unit inside a removed block so counts for
nothing, as its change is gone with it.

Drop of a plan, with d_i the drop of change i alone, at least what a probe can tell, and a stage being
all that works at one resolution:

    predicted = sum over stages (sum_{i in stage} d_i^p)^(1/p),   p < 1

Changes to one stage hurt more together than their sum, as each takes what made up for the other; far from
each other they come closer to adding up. It is a model to rank by: a probed drop says little of the drop
after recovery. NetAdapt (Yang et al., ECCV 2018) adds measured latencies in the same way and measures
accuracy again at each step, which costs a recovery each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import dist, isfinite
from statistics import median

from pipeline.experience import Trial
from pipeline.graph import ModelGraph
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Change, PolicyContext
from pipeline.policy.guessed_effects import guessed_effects

# Fitted to 26 random combinations of removed blocks and halved widths of a ResNet-20 on CIFAR-10: the median
# of observed over predicted drop is 1.0 and their rank correlation 0.94 (plain sums: 1.4, in one stage 1.7).
STAGE_EXPONENT = 0.65
# A probe cannot tell a drop of less than this share of what the original knows above chance from nothing.
# Were it taken for nothing, the best plans would make all such changes at once.
LEAST_DROP_SHARE = 0.002
# So many tried plans, those most like the one asked for, correct a prediction.
NEIGHBOURS = 3
# Plans predicted to save less say more about noise than about the prediction.
LEAST_SAVING = 0.05
CORRECTION_RANGE = (0.25, 2.0)
# However much the sums say, no plan is predicted to run in less than this share of the base latency.
FLOOR_SHARE = 0.05


@dataclass(frozen=True)
class State:
    """A plan as the policy handles it: keep ratios below 1, by unit, and removed blocks."""

    keep: Mapping[str, float]
    removed: frozenset[str]

    @classmethod
    def of(cls, plan: CompressionPlan) -> State:
        """The state that `plan` makes."""
        keep = {name: choice.keep_ratio for name, choice in plan.units.items() if choice.keep_ratio < 1.0}
        return cls(keep, frozenset(plan.removed))


# A unit and its keep ratio, or a block and None: what a `Change` says, quicker to look up.
Part = tuple[str, float | None]


class EffectModel:
    """Predicts drop and latency of states from a context's effects and what was tried.

    Args:
        context: with the effects of the single changes that may be combined; guessed where there are none.
        history: corrects the latencies.
    """

    def __init__(self, context: PolicyContext, history: Sequence[Trial] = ()) -> None:
        self._context = context
        self._history = history
        self._stages = _stages(context.graph)
        # Where nothing was probed, sizes and latency shares have to do.
        effects = context.effects or guessed_effects(context)
        self._effects = {part_of(c): effect for c, effect in effects.items() if isfinite(effect.accuracy)}
        self._probes = tuple(effects)
        self._least_drop = LEAST_DROP_SHARE * abs(context.drop(context.chance))
        self._own: dict[tuple[Part, str], float] = {}

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """The probed changes that the space allows, in a fixed order."""
        space = self._context.space
        probed = [change for change in self._probes if part_of(change) in self._effects]
        allowed = [c for c in probed if c.block in space.removable or self._is_choice(c)]
        return tuple(sorted(allowed, key=lambda c: (c.block or "", c.unit or "", -(c.keep_ratio or 0.0))))

    def drop(self, state: State) -> float:
        """Predicted drop before recovery, in points of the metric, never below 0."""
        stages: dict[object, float] = {}
        for part in self._parts(state):
            stage = self._stages[part[0]]
            stages[stage] = stages.get(stage, 0.0) + self.own(part, "") ** STAGE_EXPONENT
        return float(sum(total ** (1.0 / STAGE_EXPONENT) for total in stages.values()))

    def latency_ms(self, state: State, target: str) -> float:
        """Predicted p50 of the INT8 export on `target`, corrected by what was observed."""
        base = self._context.base_latency_ms[target]
        savings = self._savings(state, target)
        return max(FLOOR_SHARE * base, base - self._correction(savings, target) * sum(savings))

    def saving_ms(self, state: State, target: str) -> float:
        """Predicted saving on `target` before correction."""
        return sum(self._savings(state, target))

    def _savings(self, state: State, target: str) -> tuple[float, float]:
        """What removed blocks and what narrower units are predicted to save."""
        gone = frozenset().union(*(self._block_layers[name] for name in state.removed))
        blocks, widths = 0.0, 0.0
        for name, keep in self._parts(state):
            if keep is None:
                blocks += self.own((name, keep), target)
            else:
                widths += self.own((name, keep), target) * self._outside(name, gone)
        return blocks, widths

    def _is_choice(self, change: Change) -> bool:
        return change.unit is not None and change.keep_ratio in self._context.space.choices.get(
            change.unit, ()
        )

    def _parts(self, state: State) -> list[Part]:
        """The single changes that make up a state; a width not probed goes by the nearest that was."""
        parts: list[Part] = [(name, None) for name in sorted(state.removed) if (name, None) in self._effects]
        for name, keep in sorted(state.keep.items()):
            ratio = self.nearest_probed(name, keep)
            if ratio is not None:
                parts.append((name, ratio))
        return parts

    def stage(self, name: str) -> int:
        """The resolution that a unit or block works at, which all of one stage share."""
        return self._stages[name]

    def nearest_probed(self, unit: str, keep: float) -> float | None:
        """The probed keep ratio of the unit that is nearest to `keep`; None where there is none."""
        probed = self._probed.get(unit, ())
        return keep if keep in probed else min(probed, key=lambda ratio: abs(ratio - keep), default=None)

    @cached_property
    def _probed(self) -> dict[str, tuple[float, ...]]:
        probed: dict[str, tuple[float, ...]] = {}
        for name, keep in self._effects:
            if keep is not None:
                probed[name] = (*probed.get(name, ()), keep)
        return probed

    def own(self, part: Part, target: str) -> float:
        """What one change itself saves on `target`, or drops where `target` is "".

        A change to a linked unit was measured with what it forces on others; their parts are taken off.
        """
        key = (part, target)
        if key not in self._own:
            effect = self._effects[part]
            if target:
                base = self._context.base_latency_ms[target]
                # What could not be measured on a target counts as saving nothing there.
                whole = base - effect.latency_ms.get(target, base)
            else:
                whole = self._context.drop(effect.accuracy)
            # Units that force each other share what was measured; the first one asked for has it all.
            self._own[key] = 0.0
            others = sum(self.own(other, target) for other in self._forced_by(part))
            mine = whole if part[1] is None else max(0.0, whole - others)
            self._own[key] = mine if target else max(self._least_drop, mine)
        return self._own[key]

    def _forced_by(self, part: Part) -> list[Part]:
        """What a change to a linked unit changes along."""
        name, keep = part
        if keep is None or not self._context.space.is_linked(name):
            return []
        state = State.of(self._context.space.plan({name: keep}))
        return [other for other in self._parts(state) if other[0] != name]

    def _outside(self, unit: str, gone_layers: frozenset[str]) -> float:
        """The share of a unit's MACs that is not in the layers gone."""
        macs = self._unit_macs[unit]
        total = sum(macs.values())
        left = sum(count for name, count in macs.items() if name not in gone_layers)
        return left / total if total else 1.0

    @cached_property
    def _unit_macs(self) -> dict[str, dict[str, int]]:
        macs = {layer.name: layer.macs for layer in self._context.graph.layers}
        return {u.name: {name: macs.get(name, 0) for name in u.layers} for u in self._context.graph.units}

    @cached_property
    def _block_layers(self) -> dict[str, frozenset[str]]:
        return {block.name: frozenset(block.layers) for block in self._context.graph.blocks}

    @cached_property
    def _observed(self) -> dict[str, list[tuple[tuple[float, float], float]]]:
        """By target, for every tried plan that tells: its predicted savings, observed over predicted."""
        observed: dict[str, list[tuple[tuple[float, float], float]]] = {}
        for target, base in self._context.base_latency_ms.items():
            for trial in self._history:
                savings = self._savings(State.of(trial.plan), target)
                if target in trial.latency_ms and sum(savings) > LEAST_SAVING * base:
                    ratio = (base - trial.latency_ms[target]) / sum(savings)
                    observed.setdefault(target, []).append((savings, ratio))
        return observed

    def _correction(self, savings: tuple[float, float], target: str) -> float:
        known = sorted(self._observed.get(target, []), key=lambda pair: dist(pair[0], savings))[:NEIGHBOURS]
        if not known:
            return 1.0
        low, high = CORRECTION_RANGE
        return min(high, max(low, median(ratio for _, ratio in known)))


def part_of(change: Change) -> Part:
    """What the change changes, and to what."""
    return (change.block, None) if change.block is not None else (str(change.unit), change.keep_ratio)


def _stages(graph: ModelGraph) -> dict[str, int]:
    """For each unit and block the positions (pixels, time steps) its first layer computes."""
    positions = {layer.name: layer.activation_bytes // max(1, layer.out_size) for layer in graph.layers}
    named = [(unit.name, unit.layers) for unit in graph.units] + [(b.name, b.layers) for b in graph.blocks]
    return {name: positions.get(layers[0], 0) for name, layers in named}
