"""What a plan-value network sees: every option of every position as a row of numbers.

Sizes enter as logarithms, shares as shares; what was not measured is 0 with a flag of 0 beside it. Nothing in
the features names a model, so that a network trained on some families can be asked about others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log1p, log10

import numpy as np
from numpy.typing import NDArray

from device_bench.protocol import RuntimeName
from pipeline.experience import Trial
from pipeline.graph import Layer, Unit
from pipeline.policy.base import Change, PolicyContext
from pipeline.policy.effect_table import EffectTable, effect_table
from pipeline.tables.codec import Options, PlanCodec, Position

Table = NDArray[np.float32]

NAMES = (
    "block",
    "kept",
    "leaves",
    "macs share",
    "parameters share",
    "latency share",
    "latency share known",
    "depth",
    "width",
    "kernel",
    "stride",
    "depthwise",
    "linear",
    "heads",
    "layers",
    "linked",
    "pixels",
    "probed",
    "damage alone",
    "saving alone",
    "saving known",
    "positions",
    "onnxruntime",
    "litert",
    "threads",
)
# Smaller shares are all the same to the network.
LEAST_SHARE = 1e-4
LEAST_DAMAGE = 1e-3
MOST_DAMAGE = 0.95


@dataclass(frozen=True)
class PlanFeatures:
    """Features of one model on one target.

    `options`: float32 [positions, options, features]. `damage`: −ln of what is left of the gain when only
    this option is taken, NaN where it was not probed. `saving`: the share of latency it saves alone, measured
    or else guessed from shares. Both float32 [positions, options]. `effects` adds single effects up, which is
    where the network starts from; `span` is what the original knows above chance, in points.
    """

    codec: PlanCodec
    effects: EffectTable
    target: str
    span: float
    options: Table
    damage: Table
    saving: Table

    @classmethod
    def of(cls, context: PolicyContext, target: str, chance: float, codec: PlanCodec) -> PlanFeatures:
        """Features of all options that `codec` knows.

        Args:
            chance: the metric of answers that know nothing, so that damage is a share of what is known.
        """
        shape = codec.keeps.shape
        damage, saving = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
        span = max(1e-9, context.drop(chance))
        for place, position in enumerate(codec.positions):
            for option, keep in enumerate(position.keeps[1:], start=1):
                effect = context.effects.get(_change(position, keep))
                if effect is None:
                    continue
                lost = np.clip(context.drop(effect.accuracy) / span, 0.0, MOST_DAMAGE)
                damage[place, option] = -np.log1p(-lost)
                if target in effect.latency_ms:
                    saving[place, option] = 1.0 - effect.latency_ms[target] / context.base_latency_ms[target]
        damage[:, 0] = saving[:, 0] = 0.0
        rows = _static(context, target, codec)
        known = np.isfinite(saving)
        guessed = _guessed_savings(context, target, codec)
        saving = np.where(known, saving, guessed).astype(np.float32)
        measured = np.stack(
            [
                np.isfinite(damage).astype(np.float32),
                np.where(np.isfinite(damage), np.log10(np.nan_to_num(damage) + LEAST_DAMAGE) / 3 + 1, 0.0),
                np.log10(np.maximum(saving, 0.0) + LEAST_DAMAGE) / 3 + 1,
                known.astype(np.float32),
            ],
            axis=-1,
        )
        globals_ = np.broadcast_to(_globals(context, target, codec), (*shape, 4))
        options = np.concatenate([rows, measured, globals_], axis=-1).astype(np.float32)
        return cls(codec, effect_table(context), target, span, options, damage.astype(np.float32), saving)

    def summed(self, rows: Options, history: Sequence[Trial]) -> tuple[Table, Table]:
        """T and ln r of rows [n, positions] by single effects added up, float32 [n] each.

        Args:
            history: corrects the sums where plans were alike.
        """
        alive = np.where(self.active(rows), rows, 0).astype(np.int16)
        lost = np.clip(self.effects.corrected_drop(alive, history) / self.span, 0.0, MOST_DAMAGE)
        base = self.effects.context.base_latency_ms[self.target]
        ratio = self.effects.latency_ms(alive, self.target, history) / base
        return (-np.log1p(-lost)).astype(np.float32), np.log(ratio).astype(np.float32)

    def active(self, rows: Options) -> NDArray[np.bool_]:
        """Which positions of rows [n, positions] change something: not what is inside a removed block."""
        kept = self.codec.keep_of(rows)
        changed: NDArray[np.bool_] = np.asarray(rows) != 0
        for place, home in enumerate(self.codec.inside):
            if home >= 0:
                changed[:, place] &= kept[:, home] != 0.0
        return changed


def _change(position: Position, keep: float) -> Change:
    if position.is_block:
        return Change(block=position.name)
    return Change(unit=position.name, keep_ratio=keep)


def _static(context: PolicyContext, target: str, codec: PlanCodec) -> Table:
    """What is known of options without running anything, float32 [positions, options, 17]."""
    graph = context.graph
    layers = {layer.name: layer for layer in graph.layers}
    place_of = {name: place for place, name in enumerate(layers)}
    shares = context.shares.get(target, {})
    carriers = {unit.source for unit in graph.units if unit.source is not None}
    blocks = {block.name: block for block in graph.blocks}
    table = np.zeros((*codec.keeps.shape, 17), np.float32)
    for place, position in enumerate(codec.positions):
        unit = graph.unit_by_name.get(position.name) if not position.is_block else None
        names = blocks[position.name].layers if unit is None else unit.layers
        own = [layers[name] for name in names if name in layers]
        inside = blocks[position.name].units if unit is None else (position.name,)
        share = sum(shares.get(name, 0.0) for name in inside)
        fixed = [
            _log_share(sum(one.macs for one in own) / max(1, graph.macs)),
            _log_share(sum(one.parameters for one in own) / max(1, graph.parameters)),
            share,
            float(bool(shares)),
            min((place_of[one.name] for one in own), default=0) / max(1, len(layers)),
            *_shape(own, unit),
            log1p(len(own)) / 3,
            float(unit is not None and (unit.source is not None or unit.name in carriers)),
            _pixels(own),
        ]
        for option, keep in enumerate(position.keeps):
            table[place, option] = [float(position.is_block), keep, 1.0 - keep, *fixed]
    return table


def _shape(own: list[Layer], unit: Unit | None) -> tuple[float, ...]:
    """Width, kernel, stride, depthwise, linear, heads."""
    if not own:
        return (0.0,) * 6
    width = unit.width if unit is not None else max(one.out_size for one in own)
    return (
        log1p(width) / 6,
        max((max(one.kernel, default=1) for one in own), default=1) / 5,
        float(any(max(one.stride, default=1) > 1 for one in own)),
        float(any(one.groups == one.out_size > 1 for one in own)),
        float(all(one.operator == "Linear" for one in own)),
        float(unit is not None and unit.heads > 1),
    )


def _pixels(own: list[Layer]) -> float:
    sizes = [one.activation_bytes / max(1, 4 * one.out_size) for one in own]
    return log1p(max(sizes, default=0.0)) / 8


def _log_share(share: float) -> float:
    return log10(share + LEAST_SHARE) / 4 + 1


def _globals(context: PolicyContext, target: str, codec: PlanCodec) -> Table:
    found = next(one for one in context.targets if one.name == target)
    return np.array(
        [
            log1p(len(codec.positions)) / 4,
            float(found.runtime is RuntimeName.ONNXRUNTIME),
            float(found.runtime is RuntimeName.LITERT),
            (found.threads - 1) / 3,
        ],
        np.float32,
    )


def _guessed_savings(context: PolicyContext, target: str, codec: PlanCodec) -> Table:
    """What options would save if latency followed the measured shares, or else MACs; [positions, options]."""
    shares: Mapping[str, float] = context.shares.get(target, {})
    graph = context.graph
    macs = {layer.name: layer.macs / max(1, graph.macs) for layer in graph.layers}
    by_unit = {
        unit.name: shares[unit.name] if unit.name in shares else sum(macs[name] for name in unit.layers)
        for unit in graph.units
    }
    owner = {name: unit.name for unit in graph.units for name in unit.layers}
    guessed = np.zeros(codec.keeps.shape, np.float32)
    for place, position in enumerate(codec.positions):
        if position.is_block:
            block = next(one for one in graph.blocks if one.name == position.name)
            # A trunk's share belongs to all of its layers; a block takes its own part along.
            guessed[place, 1] = sum(_part(name, owner, by_unit, macs, graph.units) for name in block.layers)
        else:
            for option, keep in enumerate(position.keeps):
                guessed[place, option] = by_unit.get(position.name, 0.0) * (1.0 - keep)
    return guessed


def _part(
    layer: str,
    owner: Mapping[str, str],
    by_unit: Mapping[str, float],
    macs: Mapping[str, float],
    units: tuple[Unit, ...],
) -> float:
    if layer not in owner:
        return macs.get(layer, 0.0)
    unit = next(one for one in units if one.name == owner[layer])
    whole = sum(macs[name] for name in unit.layers)
    return by_unit[unit.name] * (macs[layer] / whole if whole else 0.0)
