"""The damage of single changes as the shipped policy sees it: measured, or guessed by what was learned.

Damage is −ln of what is left of what the original knows above chance. Where a change was not probed, a line
in the option's features corrects the guess that `guessed_effects` makes from sizes:

    ln a = ln a₀ + β·x

with β from a ridge regression over the probed changes of all training tasks. How far off it was there, as a
standard deviation of ln a, is how uncertain a guess is taken to be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.policy.base import Change, Effect, PolicyContext
from pipeline.policy.effect_table import EffectTable, effect_table
from pipeline.policy.outputs import OutputForecast
from pipeline.policy.plan_features import MOST_DAMAGE, NAMES, PlanFeatures
from pipeline.tables.codec import Options

Vector = NDArray[np.float64]

# A change that seems to do nothing does this: 2,000 samples cannot tell less.
LEAST_DAMAGE = 0.002
# Features of an option that say something where nothing was measured; see `plan_features.NAMES`.
STATIC = (
    "block",
    "macs share",
    "parameters share",
    "depth",
    "width",
    "kernel",
    "stride",
    "depthwise",
    "linear",
    "heads",
    "layers",
    "pixels",
    "positions",
)
RIDGE = 3.0
# One mapping for all: tables of effects are remembered by the identity of their parts.
NOTHING_PROBED: Mapping[Change, Effect] = {}


@dataclass(frozen=True)
class ChangeDamage:
    """What single changes of one model do.

    `damage` float64 [positions, options]; `doubt` [positions], standard deviations of ln damage, 0 where it
    was measured; `stages` float64 [positions, stages], 1 where a position works at a stage's resolution;
    `forecast` by the answers that changes give, None where they are not known.
    """

    features: PlanFeatures
    damage: Vector
    doubt: Vector
    stages: Vector
    forecast: OutputForecast | None = None

    @classmethod
    def of(cls, features: PlanFeatures, guess: Guess) -> ChangeDamage:
        """Measured damages, and guesses where there are none."""
        table = features.effects
        measured = np.isfinite(features.damage)
        guessed = guess.damage(features)
        legal = np.isfinite(features.codec.keeps)
        doubt = np.where((~measured & legal).any(axis=1), guess.spread, 0.0)
        stages = np.eye(int(table.stages.max(initial=0)) + 1)[table.stages]
        damage = np.where(measured, np.maximum(features.damage, 0.0), guessed)
        forecast = OutputForecast.of(table.context, features.codec)
        return cls(features, damage, doubt, stages, forecast)

    def alone(self, rows: Options) -> tuple[Vector, NDArray[np.bool_]]:
        """Damage of each change of plans [n, positions] alone, and which changes count; same shape."""
        active = self.features.active(rows)
        index = np.asarray(rows, dtype=np.int64)
        return (self.damage[np.arange(index.shape[1]), index] + LEAST_DAMAGE) * active, active

    def together(self, rows: Options) -> Vector:
        """ln of the damage of plans [n, positions] by their changes' answers, NaN where not known; [n]."""
        active = self.features.active(rows)
        if self.forecast is None:
            return np.full(len(rows), np.nan)
        least = LEAST_DAMAGE * active.sum(axis=1)
        return np.asarray(np.log(np.maximum(self.forecast.damage(rows, active) + least, LEAST_DAMAGE)))


@dataclass(frozen=True)
class Guess:
    """The line: `slopes` β float64 [1 + features], and `spread`, how far off it was."""

    slopes: Vector
    spread: float

    @classmethod
    def fit(cls, tasks: Sequence[PlanFeatures]) -> Guess:
        """The line through the probed changes of all tasks."""
        inputs, errors = [], []
        for features in tasks:
            known = np.isfinite(features.damage)
            known[:, 0] = False
            inputs.append(_inputs(features)[known])
            errors.append(
                np.log(np.maximum(features.damage[known], 0.0) + LEAST_DAMAGE) - _plain(features)[known]
            )
        x, y = np.concatenate(inputs), np.concatenate(errors)
        slopes = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y)
        return cls(np.asarray(slopes, np.float64), float(np.sqrt(np.mean((y - x @ slopes) ** 2))))

    def damage(self, features: PlanFeatures) -> Vector:
        """Guessed damage of options, float64 [positions, options]; 0 for the first, which changes nothing."""
        found = np.exp(_plain(features) + _inputs(features) @ self.slopes)
        found[:, 0] = 0.0
        return np.asarray(np.minimum(found, -np.log1p(-MOST_DAMAGE)))


def _inputs(features: PlanFeatures) -> Vector:
    """1, what is known of options, whether a shortcut goes around them; [positions, options, features]."""
    known = features.options[..., [NAMES.index(name) for name in STATIC]].astype(np.float64)
    inside = np.broadcast_to((features.codec.inside >= 0)[:, None, None], (*known.shape[:2], 1))
    left = features.options[..., [NAMES.index("leaves")]].astype(np.float64)
    return np.concatenate([np.ones_like(left), known, inside, left], axis=-1)


def _plain(features: PlanFeatures) -> Vector:
    """ln of the damage that sizes alone suggest, [positions, options]."""
    lost = np.clip(_unprobed(features.effects.context).drops / features.span, 0.0, MOST_DAMAGE)
    return np.asarray(np.log(-np.log1p(-lost) + LEAST_DAMAGE))


def _unprobed(context: PolicyContext) -> EffectTable:
    return effect_table(context if not context.effects else replace(context, effects=NOTHING_PROBED))
