"""What is known of one task before anything is tried, as arrays: the sheet that episodes are played on.

Of single options the damage d (the share of the gain that is lost) and the saving s (of plain INT8's latency)
come from `pipeline.policy.effect_table`, measured or else guessed. Over a plan they add up as

    D = (Σ d_i^p)^(1/p),   gain ≈ exp(−D),   latency / plain INT8's ≈ 1 − Σ s_i

The ladder of rules of thumb is the knapsack's: for each of many savings the plan that costs least.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_bench.errors import BadInputError
from pipeline.environment.links import LinkedWidths
from pipeline.policy.base import PolicyContext
from pipeline.policy.effect_model import STAGE_EXPONENT
from pipeline.policy.effect_table import effect_table
from pipeline.policy.knapsack_solver import best_rows
from pipeline.policy.plan_features import NAMES, PlanFeatures
from pipeline.tables.codec import Options, PlanCodec
from pipeline.tables.trial_task import area

Vector = NDArray[np.float64]

# Growth is measured in the area that the ladder is predicted to reach, but never in less than this.
LEAST_AREA = 0.1
LEAST_SPAN = 1e-9
# Latency goals of a task: so many, evenly spaced between little saved and all that can be.
GOALS = 12
SLOWEST_GOAL = 0.96
FASTEST_GOAL = 0.08
EXPONENT = STAGE_EXPONENT
# Plans of the ladder, from the original to the fastest.
RUNGS = 48
# Sensitivities are told at these keep ratios, of units; a block is told at 0.
TOLD_KEEPS = (0.75, 0.5, 0.25)
# Of the features of options those that are the same for all options of a position.
FIXED = tuple(
    name
    for name in NAMES
    if name not in ("kept", "leaves", "probed", "damage alone", "saving alone", "saving known")
)
POSITION_FEATURES = len(FIXED) + 3 * len(TOLD_KEEPS)


@dataclass(frozen=True, eq=False)
class TaskSheet:
    """One model on one target; P positions of up to A options.

    `position` float32 [P, features], `option` float32 [P, A, features], `mask` bool [P, A]; `damage` and
    `saving` [P, A] of single options, 0 where there is none. `most` [P]: what a position can add to the
    saving at most, for a block beyond what its units can; `most_inside` [P]: what leaves with a block.
    `ladder` int16 [RUNGS, P] by rising saving; `ladder_gain` [RUNGS]: what its plans are predicted to keep.
    `goals` [GOALS]: latency over plain INT8's, descending. `limit`: the budget's, in the same unit, or inf.
    `unit`: the area that the ladder is predicted to reach; growth is measured in it.
    """

    context: PolicyContext
    target: str
    codec: PlanCodec
    links: LinkedWidths
    position: NDArray[np.float32]
    option: NDArray[np.float32]
    mask: NDArray[np.bool_]
    damage: Vector
    saving: Vector
    most: Vector
    most_inside: Vector
    ladder: Options
    ladder_gain: Vector
    goals: Vector
    limit: float
    unit: float

    @classmethod
    def of(cls, context: PolicyContext, target: str, codec: PlanCodec) -> TaskSheet:
        """The sheet of a context on one of its targets.

        Raises:
            BadInputError: the model has nothing that may be changed.
        """
        if not codec.positions:
            raise BadInputError(
                "a plan of this model has nothing to decide: no unit may be narrowed and no block removed; "
                "give a model with at least one hidden layer, or a smaller width step"
            )
        features = PlanFeatures.of(context, target, context.chance, codec)
        table = effect_table(context)
        mask, base = np.isfinite(codec.keeps), context.base_latency_ms[target]
        span = max(context.drop(context.chance), LEAST_SPAN)
        damage = np.where(mask, table.drops / span, 0.0)
        saving = np.where(mask, table.savings(target) / base, 0.0)
        most_own = saving.max(1)
        most_inside = np.zeros(len(mask))
        for place, home in enumerate(codec.inside):
            if home >= 0:
                most_inside[home] += most_own[place]
        blocks = np.array([position.is_block for position in codec.positions])
        most = np.where(blocks, np.maximum(most_own - most_inside, 0.0), most_own)
        ladder = _ladder(best_rows(context, target), saving)
        saved = saving[np.arange(len(mask)), ladder].sum(1)
        ladder_gain = np.maximum(0.0, 1.0 - table.drop(ladder) / span)
        fastest = max(FASTEST_GOAL, 1.0 - float(saved[-1]))
        return cls(
            context=context,
            target=target,
            codec=codec,
            links=LinkedWidths(codec),
            position=_position_features(codec, features, damage, saving),
            option=np.where(mask[..., None], features.options, 0.0).astype(np.float32),
            mask=mask,
            damage=damage,
            saving=saving,
            most=most,
            most_inside=most_inside,
            ladder=ladder,
            ladder_gain=ladder_gain,
            goals=np.linspace(SLOWEST_GOAL, min(fastest, SLOWEST_GOAL - 0.01), GOALS),
            limit=_limit(context, target),
            unit=_predicted_area(saved, ladder_gain),
        )

    def ratio(self, latency_ms: Vector) -> Vector:
        """Latencies over plain INT8's."""
        found: Vector = np.asarray(latency_ms, dtype=np.float64) / self.context.base_latency_ms[self.target]
        return found

    def predicted(self, row: Options) -> tuple[float, float]:
        """Of a plan in normal form the saving as a share of the original's latency, and the loss of gain."""
        options = np.asarray(row, dtype=np.int64)
        span = max(self.context.drop(self.context.chance), LEAST_SPAN)
        loss = float(effect_table(self.context).drop(np.asarray(row, dtype=np.int16)[None])[0]) / span
        return float(self.saving[np.arange(len(options)), options].sum()), loss


def _ladder(rows: Options, saving: Vector) -> Options:
    """`RUNGS` of the rows by rising saving, the original first; the last stands in for what is missing."""
    places = np.arange(saving.shape[0])
    rows = rows[np.argsort(saving[places, rows].sum(1), kind="stable")]
    rows = np.concatenate([np.zeros((1, len(places)), np.int16), rows])
    if len(rows) > RUNGS:
        rows = rows[np.linspace(0, len(rows) - 1, RUNGS).round().astype(int)]
    return np.concatenate([rows, np.repeat(rows[-1:], RUNGS - len(rows), axis=0)]).astype(np.int16)


def _predicted_area(saved: Vector, gain: Vector) -> float:
    return max(LEAST_AREA, area([(1.0 - float(s), float(g)) for s, g in zip(saved, gain, strict=True)]))


def _position_features(
    codec: PlanCodec, features: PlanFeatures, damage: Vector, saving: Vector
) -> NDArray[np.float32]:
    """What is the same for all options, and damage, saving and whether probed at `TOLD_KEEPS`."""
    columns = [NAMES.index(name) for name in FIXED]
    probed = np.isfinite(features.damage)
    told = []
    for place, position in enumerate(codec.positions):
        row: list[float] = []
        for keep in TOLD_KEEPS:
            option = int(np.argmin([abs(one - keep) for one in position.keeps]))
            option = 1 if position.is_block else option
            known = float(probed[place, option])
            row += [known * float(np.exp(-damage[place, option])), float(saving[place, option]), known]
        told.append(row)
    return np.concatenate([features.options[:, 0, columns], np.array(told)], axis=1).astype(np.float32)


def _limit(context: PolicyContext, target: str) -> float:
    """The most that latency over plain INT8's may be."""
    budget, base = context.budget, context.base_latency_ms[target]
    limits = [np.inf]
    if budget.max_latency_ms is not None:
        limits.append(budget.max_latency_ms / base)
    if budget.min_speedup is not None:
        limits.append(1.0 / budget.min_speedup)
    return float(min(limits))
