"""`EffectModel` for thousands of plans at once: the same sums over rows of options.

Of rows [n, positions] as `PlanCodec` encodes plans in normal form:

    drop = sum over stages (sum_{i in stage} d_i^p)^(1/p)          d: own drop of each position's option
    saving = sum over blocks of s_i + sum over units of s_i * (share of the unit's MACs not in removed blocks)
    latency = base - c * saving                                   c: from the tried plans most alike
    corrected drop = r * drop                                     r: the same of drops

c and r are medians of observed over predicted. All but them depends on the context alone, and is kept
for the last few contexts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from device_bench.errors import BadInputError
from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy.base import PolicyContext
from pipeline.policy.effect_model import (
    CORRECTION_RANGE,
    FLOOR_SHARE,
    LEAST_SAVING,
    NEIGHBOURS,
    STAGE_EXPONENT,
    EffectModel,
    part_of,
)
from pipeline.tables.codec import Options, PlanCodec, Position

Vector = NDArray[np.float64]
# Drops are harder to predict than savings: on recorded tasks this range did better than that of latencies.
DROP_CORRECTION_RANGE = (0.1, 8.0)
# So many contexts are remembered: several targets, budgets or seeds of one model share an entry or two.
REMEMBERED = 16
# So many plans of trials keep their rows; encoding them costs more than all the rest of a prediction.
MOST_ROWS = 4096


@dataclass(frozen=True, eq=False)
class EffectTable:
    """What options cost and give, and what rows of them add up to."""

    context: PolicyContext
    codec: PlanCodec
    _rows: dict[int, tuple[CompressionPlan, Options | None]] = field(default_factory=dict)
    _mended: dict[bytes, Options] = field(default_factory=dict)
    _kept: dict[tuple[str, ...], Options] = field(default_factory=dict)

    @cached_property
    def drops(self) -> Vector:
        """Own drop of each option in points, [positions, options]; 0 where there is no such option."""
        return self._own("")

    @cached_property
    def allowed(self) -> NDArray[np.bool_]:
        """Options that were probed, or leave the position as it is, [positions, options]."""
        probed = {part_of(change) for change in self._model.changes}
        found = np.zeros(self.codec.keeps.shape, dtype=np.bool_)
        for place, position in enumerate(self.codec.positions):
            for option, keep in enumerate(position.keeps):
                found[place, option] = option == 0 or _part(position, keep) in probed
        return found

    @cached_property
    def stages(self) -> NDArray[np.int64]:
        """For each position the number of its stage, from 0."""
        names = [self._model.stage(position.name) for position in self.codec.positions]
        return np.array([sorted(set(names)).index(name) for name in names], dtype=np.int64)

    def savings(self, target: str) -> Vector:
        """Own saving of each option in ms, [positions, options]."""
        if target not in self._savings:
            self._savings[target] = self._own(target)
        return self._savings[target]

    def drop(self, rows: Options) -> Vector:
        """Predicted drop before recovery of rows [n, positions], in points."""
        powers: Vector = self.powers[self._places, rows]
        stages: Vector = powers @ self._stage_of
        return np.asarray((stages**self.to_points).sum(axis=1))

    def saved(self, rows: Options, target: str) -> Vector:
        """What blocks and what widths are predicted to save, [n, 2] in ms, before correction."""
        own = self.savings(target)[self._places, rows]
        blocks = self._is_block
        widths = own[:, ~blocks] * self._outside(rows)
        return np.stack([own[:, blocks].sum(axis=1), widths.sum(axis=1)], axis=1)

    def latency_ms(self, rows: Options, target: str, history: Sequence[Trial]) -> Vector:
        """Predicted p50 of rows [n, positions] on `target`, corrected by what was observed."""
        base = self.context.base_latency_ms[target]
        saved = self.saved(rows, target)
        corrected: Vector = base - self._correction(saved, target, history) * saved.sum(axis=1)
        return np.asarray(np.maximum(FLOOR_SHARE * base, corrected))

    def corrected_drop(self, rows: Options, history: Sequence[Trial]) -> Vector:
        """Predicted drop of rows [n, positions] in points, corrected by what was observed."""
        drop = self.drop(rows)
        known = [(row, self.context.drop(accuracy)) for _, row, accuracy in self.told(history)]
        if not known:
            return drop
        tried = np.stack([row for row, _ in known])
        predicted = self.drop(tried)
        telling = predicted > 0.0
        if not telling.any():
            return drop
        ratios = np.array([seen for _, seen in known])[telling] / predicted[telling]
        far = self._apart(rows, tried[telling])
        return np.asarray(drop * _median_of_nearest(ratios, far, DROP_CORRECTION_RANGE))

    def _apart(self, rows: Options, others: Options) -> NDArray[np.float32]:
        """How differently two plans drop: d^p of what only one of them does, [n, others]."""
        mine, theirs = (self.powers[self._places, some].astype(np.float32) for some in (rows, others))
        apart = np.zeros((len(rows), len(others)), dtype=np.float32)
        step = np.empty_like(apart)
        for place in range(rows.shape[1]):
            np.subtract(mine[:, place, None], theirs[None, :, place], out=step)
            apart += np.abs(step, out=step)
        return apart

    def row_of(self, trial: Trial) -> Options | None:
        """The row of a trial's plan; None where it is no plan of the space."""
        known = self._rows.get(id(trial.plan))
        if known is None or known[0] is not trial.plan:
            if len(self._rows) > MOST_ROWS:
                self._rows.clear()
            try:
                known = trial.plan, self.codec.encode(trial.plan)
            except BadInputError:
                known = trial.plan, None
            self._rows[id(trial.plan)] = known
        return known[1]

    def neighbours(self, rows: Options) -> Options:
        """All rows one allowed change away from those of [n, positions], in normal form, each once."""
        moved = np.repeat(rows, len(self._moves), axis=0)
        places, options = np.tile(self._moves, (len(rows), 1)).T
        lines = np.arange(len(moved))
        homes = self.codec.inside[places]
        legal = (moved[lines, places] != options) & ~((homes >= 0) & (moved[lines, homes] > 0))
        moved[lines, places] = options
        # What is inside a block leaves with it.
        moved = np.where((self.codec.inside >= 0) & (moved[:, self.codec.inside] > 0), 0, moved)
        linked = legal & self._is_linked[places]
        if linked.any():
            moved[linked] = self._fitted(moved[linked])
        return distinct(moved[legal])

    def _own(self, target: str) -> Vector:
        own = np.zeros(self.codec.keeps.shape)
        for place, position in enumerate(self.codec.positions):
            for option, keep in enumerate(position.keeps[1:], start=1):
                name, ratio = _part(position, keep)
                if ratio is not None:
                    ratio = self._model.nearest_probed(name, ratio)
                if ratio is not None or (position.is_block and self.allowed[place, 1]):
                    own[place, option] = self._model.own((name, ratio), target)
        return np.maximum(own, 0.0) if target == "" else own

    def _fitted(self, rows: Options) -> Options:
        """The rows [n, positions] with linked widths that fit each other."""
        # Only linked widths, and what blocks they may leave with, have a say.
        binding, which = _unique(np.where(self._is_linked | self._is_block, rows, 0).astype(np.int16))
        for row in binding:
            if row.tobytes() not in self._mended:
                self._mended[row.tobytes()] = self.codec.encode(self.codec.decode(row))
        mended = np.stack([self._mended[row.tobytes()] for row in binding])
        return np.where(self._is_linked, mended[which], rows)

    def _outside(self, rows: Options) -> Vector:
        """The share of each unit's MACs that is not in removed blocks, [n, units]."""
        gone = (rows[:, self._is_block] @ self._block_layers) > 0
        return np.asarray(1.0 - gone @ self._layer_shares)

    def _correction(self, saved: Vector, target: str, history: Sequence[Trial]) -> Vector:
        known = [(row, t.latency_ms[target]) for t, row in self.placed(history) if target in t.latency_ms]
        if not known:
            return np.ones(len(saved))
        base = self.context.base_latency_ms[target]
        seen = self.saved(np.stack([row for row, _ in known]), target)
        telling = seen.sum(axis=1) > LEAST_SAVING * base
        if not telling.any():
            return np.ones(len(saved))
        ratios = (base - np.array([ms for _, ms in known])[telling]) / seen[telling].sum(axis=1)
        apart = saved[:, None, :] - seen[None, telling, :]
        far: Vector = apart[..., 0] ** 2 + apart[..., 1] ** 2
        return _median_of_nearest(ratios, far, CORRECTION_RANGE)

    def told(self, history: Sequence[Trial]) -> list[tuple[Trial, Options, float]]:
        """The trials of plans of the space that did not fail: trial, row, accuracy before recovery."""
        return [
            (trial, row, trial.accuracy)
            for trial, row in self.placed(history)
            if trial.failure is None and trial.accuracy is not None and isfinite(trial.accuracy)
        ]

    def placed(self, history: Sequence[Trial]) -> list[tuple[Trial, Options]]:
        """The trials whose plans are of the space, with their rows."""
        found = [(trial, self.row_of(trial)) for trial in history]
        return [(trial, row) for trial, row in found if row is not None]

    @cached_property
    def _model(self) -> EffectModel:
        return EffectModel(self.context)

    @cached_property
    def _savings(self) -> dict[str, Vector]:
        return {}

    @cached_property
    def powers(self) -> Vector:
        """d^p of each option, which add up within a stage, [positions, options]."""
        return np.asarray(self.drops**STAGE_EXPONENT)

    @property
    def to_points(self) -> float:
        """1/p: what takes a stage's sum of powers to points."""
        return 1.0 / STAGE_EXPONENT

    def kept(self, name: tuple[str, ...], make: Callable[[], Options]) -> Options:
        """What `make` makes of the context alone, made once."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        return np.arange(len(self.codec.positions))

    @cached_property
    def _stage_of(self) -> Vector:
        return np.eye(int(self.stages.max(initial=0)) + 1)[self.stages]

    @cached_property
    def _is_block(self) -> NDArray[np.bool_]:
        return np.array([position.is_block for position in self.codec.positions], dtype=np.bool_)

    @cached_property
    def _is_linked(self) -> NDArray[np.bool_]:
        space = self.context.space
        return np.array([not p.is_block and space.is_linked(p.name) for p in self.codec.positions], np.bool_)

    @cached_property
    def _moves(self) -> NDArray[np.int64]:
        """(position, option) of every allowed change, [moves, 2]."""
        return np.argwhere(self.allowed)

    @cached_property
    def _block_layers(self) -> NDArray[np.int64]:
        """1 where a layer leaves with a block, [blocks, layers]."""
        blocks = {block.name: set(block.layers) for block in self.context.graph.blocks}
        names = [position.name for position in self.codec.positions if position.is_block]
        layers = self.context.graph.layers
        return np.array(
            [[layer.name in blocks[name] for layer in layers] for name in names], dtype=np.int64
        ).reshape(len(names), len(layers))

    @cached_property
    def _layer_shares(self) -> Vector:
        """Each layer's share of the MACs of each unit that has a position, [layers, units]."""
        graph = self.context.graph
        units = [graph.unit_by_name[p.name] for p in self.codec.positions if not p.is_block]
        macs = np.array(
            [[one.macs * (one.name in unit.layers) for unit in units] for one in graph.layers], np.float64
        ).reshape(len(graph.layers), len(units))
        return np.asarray(macs / np.maximum(1.0, macs.sum(axis=0)))


def _median_of_nearest(ratios: Vector, far: NDArray[np.floating], limits: tuple[float, float]) -> Vector:
    """For each row of distances [n, tried] the median of the nearest ratios [tried], within limits; [n]."""
    nearest = []
    lines = np.arange(len(far))
    for _ in range(min(NEIGHBOURS, far.shape[1])):
        # Of equally near ones the first.
        nearest.append(far.argmin(axis=1))
        far[lines, nearest[-1]] = np.inf
    return np.asarray(np.clip(np.median(ratios[np.stack(nearest, axis=1)], axis=1), *limits))


def distinct(rows: Options) -> Options:
    """Each of the rows [n, positions] once."""
    return _unique(rows)[0]


def _unique(rows: Options) -> tuple[Options, NDArray[np.int64]]:
    """Each of the rows [n, positions] once, and which of them each row is, [n]."""
    whole = np.ascontiguousarray(rows, dtype=np.int16)
    if whole.size == 0:
        return whole, np.zeros(len(whole), dtype=np.int64)
    words = whole.view(np.dtype((np.void, whole.dtype.itemsize * whole.shape[1]))).ravel()
    _, first, which = np.unique(words, return_index=True, return_inverse=True)
    return whole[first], which


def effect_table(context: PolicyContext) -> EffectTable:
    """The table of a context, made once: contexts of the same parts share one.

    Parts are compared by identity, and an entry holds on to its own, so that none is taken for another.
    """
    parts = (context.graph, context.space, context.effects, context.shares, context.base_latency_ms)
    targets = tuple(target.name for target in context.targets)
    key = (*map(id, parts), len(context.effects), context.float_accuracy, context.metric, targets)
    if key not in _TABLES:
        _TABLES[key] = EffectTable(context, PlanCodec(context.space))
        while len(_TABLES) > REMEMBERED:
            _TABLES.popitem(last=False)
    _TABLES.move_to_end(key)
    return _TABLES[key]


_TABLES: OrderedDict[tuple[object, ...], EffectTable] = OrderedDict()


def _part(position: Position, keep: float) -> tuple[str, float | None]:
    return (position.name, None) if position.is_block else (position.name, keep)
