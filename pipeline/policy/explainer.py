"""Why a plan is as it is: for every unit and block what its change does, alone and within the plan.

Alone: the measured effect of the one change on the original (a probe, or the line between two probes). Within
the plan, predicted by `effect_table` with the corrections that the run's trials gave to this plan: what would
change if this one change were undone, and if it were taken one step further. And where the policy tells them,
the features that its decision was made by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from device_bench.errors import BadInputError
from pipeline.experience import Trial
from pipeline.graph import Block, Unit
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Change, PolicyContext
from pipeline.policy.effect_table import EffectTable, effect_table
from pipeline.policy.explanation import Attributions, Explains, Reason, Shift, TargetExplanation
from pipeline.tables.codec import Options


@dataclass(frozen=True)
class Explainer:
    """Explains plans for one target of a run.

    Args:
        context: of the run, with the effects of single changes where they were probed.
        probed: the changes that were measured; other effects lie on lines between those.
        trials: of the run, in order.
        policies: by name, those that made trials; they are asked for attributions.
    """

    context: PolicyContext
    probed: frozenset[Change]
    trials: Sequence[Trial]
    policies: Mapping[str, object]

    def explain(self, target: str, plan: CompressionPlan) -> TargetExplanation:
        """Why `plan` is what it is on `target`.

        Raises:
            BadInputError: the plan is not one of the context's space.
        """
        trial = next((found for found in self.trials if found.plan.plan_id == plan.plan_id), None)
        view = _View(self.context, target, self.trials, self._table.codec.encode(plan))
        attributions = self._attributions(trial, target)
        places = range(len(self._table.codec.positions))
        reasons = [self._reason(view, place, attributions) for place in places]
        reasons += [self._fixed(view, unit) for unit in self._fixed_units]
        reasons.sort(key=lambda reason: (self._first_layer[reason.name], not reason.is_block))
        explanation = TargetExplanation(
            target=target,
            plan_id=plan.plan_id,
            reasons=tuple(reasons),
            missing=tuple(self._missing(view, trial, attributions)),
        )
        return explanation.model_copy(update=self._figures(view, trial))

    @cached_property
    def _table(self) -> EffectTable:
        return effect_table(self.context)

    @cached_property
    def _first_layer(self) -> dict[str, int]:
        """Where in forward order each unit and block begins."""
        order = {layer.name: place for place, layer in enumerate(self.context.graph.layers)}
        parts: list[Unit | Block] = [*self.context.graph.units, *self.context.graph.blocks]
        return {part.name: min((order[n] for n in part.layers if n in order), default=0) for part in parts}

    @property
    def _fixed_units(self) -> list[Unit]:
        free = {position.name for position in self._table.codec.positions}
        return [unit for unit in self.context.graph.units if unit.name not in free]

    def _reason(self, view: _View, place: int, attributions: Attributions) -> Reason:
        position, option = self._table.codec.positions[place], int(view.row[place])
        units, blocks = self.context.graph.unit_by_name, {b.name: b for b in self.context.graph.blocks}
        home = position.inside >= 0 and bool(view.row[position.inside])
        keep = 0.0 if home else position.keeps[option]
        change = _change(position.name, keep, position.is_block)
        effect = self.context.effects.get(change) if change is not None else None
        known = view.predicts
        undone = view.shift(place, 0) if option and known else None
        onward = view.further(place) if known and not home else None
        alone = None
        if effect is not None and view.target in effect.latency_ms:
            saved = effect.latency_ms[view.target] - view.base
            alone = Shift(latency_ms=saved, drop=self.context.drop(effect.accuracy))
        part: Unit | Block = blocks[position.name] if position.is_block else units[position.name]
        reason = Reason(
            name=position.name,
            is_block=position.is_block,
            width=None if position.is_block else units[position.name].width,
            kept=keep,
            why="",
            macs_share=part.macs / max(1, self.context.graph.macs),
            latency_share=view.share(part),
            alone=alone,
            measured=change in self.probed,
            undone=undone,
            further=None if onward is None else onward[1],
            further_kept=None if onward is None else onward[0],
            attributions=dict(attributions.get(position.name, {})),
        )
        block = self._table.codec.positions[position.inside].name if home else None
        return reason.model_copy(update={"why": _why(reason, block)})

    def _fixed(self, view: _View, unit: Unit) -> Reason:
        return Reason(
            name=unit.name,
            is_block=False,
            width=unit.width,
            kept=1.0,
            why=unit.reason or "it has no narrower width that the target's kernels are good at",
            macs_share=unit.macs / max(1, self.context.graph.macs),
            latency_share=view.share(unit),
        )

    def _attributions(self, trial: Trial | None, target: str) -> Attributions:
        policy = self.policies.get(trial.origin) if trial is not None else None
        if trial is None or not isinstance(policy, Explains):
            return {}
        before = [found for found in self.trials if found.number < trial.number]
        # Features differ by target: the policy is asked about this one.
        only = tuple(one for one in self.context.targets if one.name == target)
        return policy.attribute(replace(self.context, targets=only), before, trial.plan)

    def _missing(self, view: _View, trial: Trial | None, attributions: Attributions) -> list[str]:
        missing = []
        if trial is None:
            missing.append(
                "this is the original: no trial that met the budget was better, so nothing was changed"
            )
        if not self.context.effects:
            missing.append(
                "what single changes do was not measured, so neither their effects nor those of undoing "
                "them are known; a run with --policy greedy, knapsack or meta probes them"
            )
        if view.target not in self.context.shares:
            missing.append(
                f"{view.target} could not tell where its latency goes: there are no latency shares"
            )
        if trial is not None and not attributions:
            missing.append(
                f"policy {trial.origin} gives no attributions: its decision is what the figures say"
            )
        return missing

    def _figures(self, view: _View, trial: Trial | None) -> dict[str, object]:
        found: dict[str, object] = {}
        if view.predicts:
            found = {"predicted_latency_ms": view.latency_ms, "predicted_drop": view.drop}
        if trial is None:
            return found
        recovered = trial.accuracy_recovered
        return found | {
            "policy": trial.origin,
            "trial": trial.number,
            "latency_ms": trial.latency_ms.get(view.target),
            "drop": None if trial.accuracy is None else self.context.drop(trial.accuracy),
            "recovered_drop": None if recovered is None else self.context.drop(recovered),
        }


class _View:
    """A plan's row on one target, and what is predicted for it and near it."""

    def __init__(self, context: PolicyContext, target: str, trials: Sequence[Trial], row: Options) -> None:
        if target not in context.base_latency_ms:
            raise BadInputError(
                f"the run has no target {target}; it has {', '.join(context.base_latency_ms)}"
            )
        self.target, self.row, self.base = target, row, context.base_latency_ms[target]
        self.predicts = bool(context.effects)
        self._context, self._table = context, effect_table(context)
        self.latency_ms = float(self._table.latency_ms(row[None], target, trials)[0])
        self.drop = float(self._table.corrected_drop(row[None], trials)[0])

    def shift(self, place: int, option: int) -> Shift | None:
        """What another option there would change, corrected as the plan is; None where nothing does."""
        other = self.row.copy()
        other[place] = option
        other = self._table.codec.normal(other[None])[0]
        if (other == self.row).all():
            return None
        rows = np.stack([self.row, other])
        saved, drops = self._table.saved(rows, self.target).sum(axis=1), self._table.drop(rows)
        faster = (self.base - self.latency_ms) / saved[0] if saved[0] > 0 else 1.0
        worse = self.drop / drops[0] if drops[0] > 0 else 1.0
        return Shift(
            latency_ms=float(faster * (saved[0] - saved[1])), drop=float(worse * (drops[1] - drops[0]))
        )

    def further(self, place: int) -> tuple[float, Shift] | None:
        """The next step from here: what would then be kept, and what it would change."""
        position = self._table.codec.positions[place]
        for option in range(int(self.row[place]) + 1, len(position.keeps)):
            if self._table.allowed[place, option]:
                shift = self.shift(place, option)
                return None if shift is None else (position.keeps[option], shift)
        return None

    def share(self, part: Unit | Block) -> float | None:
        """The measured share of the original's latency; of a block that of its units' layers in it."""
        shares = self._context.shares.get(self.target)
        if shares is None:
            return None
        if isinstance(part, Unit):
            return shares.get(part.name)
        macs = {layer.name: layer.macs for layer in self._context.graph.layers}
        total = 0.0
        for unit in self._context.graph.units:
            own = sum(macs.get(name, 0) for name in unit.layers)
            inside = sum(macs.get(name, 0) for name in unit.layers if name in part.layers)
            total += shares.get(unit.name, 0.0) * (inside / own if own else 0.0)
        return total


def _change(name: str, keep: float, is_block: bool) -> Change | None:
    if is_block:
        return Change(block=name) if keep == 0.0 else None
    return Change(unit=name, keep_ratio=keep) if 0.0 < keep < 1.0 else None


def _why(reason: Reason, block: str | None) -> str:
    """One clause that says what speaks for the choice."""
    if block is not None:
        return f"leaves with {block}"
    if reason.undone is not None:
        return f"undone, {_in_words(reason.undone)}"
    if reason.further is not None:
        step = "without it" if reason.is_block else f"at {100 * (reason.further_kept or 0.0):.0f} %"
        return f"left whole: {step}, {_in_words(reason.further)}"
    if reason.kept < 1.0:
        return "removed" if reason.is_block else "narrowed"
    return "left whole"


def _in_words(shift: Shift) -> str:
    slower, lost = shift.latency_ms, shift.drop
    pace = f"{abs(slower):.3g} ms {'slower' if slower >= 0 else 'faster'}"
    return f"{pace} and {abs(lost):.2f} points {'worse' if lost >= 0 else 'better'}"
