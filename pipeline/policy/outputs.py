"""What single changes do to a network's answers, and what that says of plans that make several of them.

A probe is judged on some hundred samples; its accuracy keeps one number of all that. The outputs say more:
which samples go wrong, and whether two changes spoil the same ones. With z₀ [n, k] the original's outputs, zᵢ
those with change i alone, both without each sample's mean over the classes, and

    cᵢ = ⟨zᵢ, z₀⟩ / ⟨z₀, z₀⟩        how much of the original's own answer is left
    dᵢ = zᵢ / cᵢ^½ − z₀             how the answer leaves it

a plan that makes the changes S is forecast to answer z₀ + Σ_S dᵢ, of a single change just what was seen (a
positive factor changes no decision). Were cᵢ whole, changes would lose no confidence together; were it not
there, they would lose it twice. Half of it forecast plans of CNN, VGG, DS-CNN and ResNet-20 best, the errors
of ln T being 0.61 by single damages alone and 0.44 with this beside them (families left out in turn).
Accuracy is counted softly, a sample whose margin is m as 1 / (1 + exp(−m/τ)) with τ a share of the mean size
of z₀, since a few hundred samples are few to count by. Other metrics are of z₀ + Σ_S (zᵢ − z₀) as it is.

Between probed widths d rises with the square of what is cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.data.base import Metric
from pipeline.data.heads import by_head
from pipeline.evaluation import score
from pipeline.policy.base import Change

if TYPE_CHECKING:
    from pipeline.policy.base import PolicyContext
    from pipeline.tables.codec import Options, PlanCodec, Position

Vector = NDArray[np.float64]
Outputs = NDArray[np.float32]

# Numbers that are kept of a network's answers: samples times outputs.
MOST_NUMBERS = 20_000
# Of the original's answer a change leaves at least this; the power of what is left that counts.
LEAST_LEFT, POWER_OF_LEFT = 0.1, 0.5
# τ over the mean size of the original's centred outputs.
SOFTNESS = 0.3
# The power by which answers change with the share of a width that is cut.
POWER_OF_CUT = 2.0
# Rows of plans that are forecast at a time.
ROWS_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class ProbedOutputs:
    """Answers on the samples that single changes were judged on.

    `truth` [n] or [n, heads]. `original` float32 [n, k]. `changed`: change → float32 [n, k], as far as it was
    probed. `heads`: how many outputs each of several tasks has.
    """

    metric: Metric
    truth: NDArray[np.generic]
    original: Outputs
    changed: Mapping[Change, Outputs]
    heads: tuple[int, ...] = ()

    def with_changes(self, more: Mapping[Change, Outputs]) -> ProbedOutputs:
        """These, and the answers that further changes gave."""
        return replace(self, changed={**self.changed, **more})


def samples_kept(samples: int, outputs: int) -> NDArray[np.int64]:
    """Which of the samples' answers are kept, spread evenly: all, or as many as are few enough to keep."""
    wanted = min(samples, max(1, MOST_NUMBERS // max(1, outputs)))
    return np.linspace(0, samples - 1, wanted).round().astype(np.int64)


@dataclass(frozen=True, eq=False)
class OutputForecast:
    """Forecasts what plans know from the answers that single changes gave."""

    codec: PlanCodec
    context: PolicyContext
    outputs: ProbedOutputs

    @classmethod
    def of(cls, context: PolicyContext, codec: PlanCodec) -> OutputForecast | None:
        """The forecast of a context; None where no answers are known."""
        known = context.outputs
        return None if known is None or not known.changed else cls(codec, context, known)

    def damage(self, rows: Options, active: NDArray[np.bool_]) -> Vector:
        """−ln of what plans [n, positions] are forecast to know, float64 [n]; NaN where nothing is known.

        Args:
            active: which positions of the rows change something, same shape.
        """
        places = np.arange(rows.shape[1])
        index = np.asarray(rows, dtype=np.int64)
        mixed = (self._mixes[places, index] * active[..., None]).sum(axis=1)
        known = np.all(self._known[places, index] | ~active, axis=1)
        found = np.full(len(index), np.nan)
        for start in range(0, len(index), ROWS_AT_ONCE):
            some = np.flatnonzero(known[start : start + ROWS_AT_ONCE]) + start
            if len(some):
                answers = self._centred[None] + np.tensordot(mixed[some], self._shifts, 1)
                found[some] = [self._damage(one) for one in answers]
        return found

    def _damage(self, answers: Outputs) -> float:
        worth = self._worth(answers)
        gain = self.context.gain(self.context.float_accuracy + worth - self._whole)
        if self._decides:
            span = self._whole - self.context.chance
            gain = (worth - self.context.chance) / span if span > 0 else 1.0
        return float(-np.log(np.clip(gain, 1e-3, 1.0))) if isfinite(gain) else float("nan")

    @property
    def _decides(self) -> bool:
        return self.outputs.metric is Metric.ACCURACY

    def _worth(self, answers: Outputs) -> float:
        """The metric of answers [n, k]; accuracy is counted softly."""
        if not self._decides:
            return score(self.outputs.metric, answers, self.outputs.truth, self.outputs.heads)
        soft = self._softness
        heads = by_head(answers, self.outputs.truth, self.outputs.heads)
        return 100.0 * float(np.mean([_soft_accuracy(given, true, soft) for given, true in heads]))

    @cached_property
    def _whole(self) -> float:
        return self._worth(self._centred)

    @cached_property
    def _softness(self) -> float:
        return max(1e-6, SOFTNESS * float(np.abs(self._centred).mean()))

    @cached_property
    def _centred(self) -> Outputs:
        return self._without_means(self.outputs.original)

    def _without_means(self, answers: Outputs) -> Outputs:
        if not self._decides:
            return answers.astype(np.float32)
        parts = [given - given.mean(axis=1, keepdims=True) for given, _ in self._split(answers)]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def _split(self, answers: Outputs) -> list[tuple[np.ndarray, np.ndarray]]:
        return list(by_head(answers, self.outputs.truth, self.outputs.heads))

    @cached_property
    def _changes(self) -> list[Change]:
        return [one for one, answers in self.outputs.changed.items() if np.isfinite(answers).all()]

    @cached_property
    def _shifts(self) -> Outputs:
        """d of each change, [changes, n, k]."""
        original = self._centred
        size = max(1e-12, float((original**2).sum()))
        found = []
        for change in self._changes:
            answers = self._without_means(self.outputs.changed[change])
            left = max(LEAST_LEFT, float((answers * original).sum()) / size) if self._decides else 1.0
            found.append(answers / np.float32(left**POWER_OF_LEFT) - original)
        return np.stack(found) if found else np.zeros((0, *original.shape), np.float32)

    @cached_property
    def _mixes(self) -> NDArray[np.float32]:
        """How much of each change's shift an option takes, [positions, options, changes]."""
        found = np.zeros((*self.codec.keeps.shape, len(self._changes)), np.float32)
        for place, position in enumerate(self.codec.positions):
            probed = self._probed(position)
            for option in range(1, len(position.keeps)):
                for change, part in _mix(probed, 1.0 - position.keeps[option]):
                    found[place, option, change] = part
        return found

    @cached_property
    def _known(self) -> NDArray[np.bool_]:
        known = np.asarray(np.any(self._mixes, axis=2))
        known[:, 0] = True
        return known

    def _probed(self, position: Position) -> list[tuple[float, int]]:
        """What probed changes of a position cut, ascending, and their places in `_changes`."""
        found = []
        for place, change in enumerate(self._changes):
            if position.is_block and change.block == position.name:
                found.append((1.0, place))
            elif not position.is_block and change.unit == position.name:
                found.append((1.0 - (change.keep_ratio or 1.0), place))
        return sorted(found)


def _mix(probed: list[tuple[float, int]], cut: float) -> list[tuple[int, float]]:
    """Which probed changes make up the one that cuts this much, and their parts."""
    if not probed:
        return []
    wider = [one for one in probed if one[0] >= cut - 1e-9]
    narrower = [one for one in probed if one[0] < cut - 1e-9]
    if not wider:
        return [(narrower[-1][1], (cut / narrower[-1][0]) ** POWER_OF_CUT)]
    most, change = wider[0]
    if not narrower:
        return [(change, (cut / most) ** POWER_OF_CUT)]
    least, other = narrower[-1]
    powers = [value**POWER_OF_CUT for value in (least, cut, most)]
    part = (powers[1] - powers[0]) / (powers[2] - powers[0])
    return [(other, 1.0 - part), (change, part)]


def _soft_accuracy(answers: Outputs, truth: NDArray[np.generic], softness: float) -> float:
    """The mean over samples of 1 / (1 + exp(−margin / softness))."""
    index = truth.astype(np.int64).reshape(-1, 1)
    own = np.take_along_axis(answers, index, axis=1)[:, 0]
    others = answers.copy()
    np.put_along_axis(others, index, -np.inf, axis=1)
    margin = np.clip((own - others.max(axis=1)) / softness, -60.0, 60.0)
    return float(np.mean(1.0 / (1.0 + np.exp(-margin))))
