"""A recorded task that answers at once: surrogates fitted to a table stand for building and measuring.

Both surrogates are Gaussian processes over what a plan keeps. The one for accuracy also sees the damage that
each single change does alone, and its sum over the plan; the one for latency predicts its logarithm.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np

from device_bench.errors import unknown_name
from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Change, PolicyContext
from pipeline.search import interpolated
from pipeline.space import PlanSpace
from pipeline.tables.codec import Options, PlanCodec
from pipeline.tables.gaussian_process import GaussianProcess, Vector
from pipeline.tables.task_table import TaskTable, effects_of
from pipeline.task import Budget

# Damages of one plan add up to less than their sum's p-norm; see `pipeline.policy.effect_model`.
EXPONENT = 0.65
LEAST_DAMAGE = 1e-3
# A surrogate may say a little more than what was ever seen, and not much more.
STRETCH = 0.02


@dataclass(frozen=True, eq=False)
class Surrogate:
    """What plans of a table's model do, predicted from its rows."""

    table: TaskTable

    @cached_property
    def codec(self) -> PlanCodec:
        """Translates between rows and plans."""
        return self.table.codec

    def accuracy(self, rows: Options) -> Vector:
        """The metric before recovery of plans [n, positions], float64 [n]."""
        found = self._accuracy.predict(self._damage_features(rows))
        low, high = float(np.nanmin(self.table.accuracy)), float(np.nanmax(self.table.accuracy))
        low, high = min(low, self.table.header.float_accuracy), max(high, self.table.header.float_accuracy)
        clipped: Vector = np.clip(found, low, high + STRETCH * (high - low))
        return clipped

    def latency_ms(self, rows: Options, setting: str) -> Vector:
        """p50 in `setting` of plans [n, positions], float64 [n] in ms."""
        found = self._latency(setting).predict(self._width_features(rows))
        seen = np.log(self.table.latency_ms[setting][np.isfinite(self.table.latency_ms[setting])])
        clipped: Vector = np.exp(np.clip(found, seen.min() - STRETCH, seen.max() + STRETCH))
        return clipped

    @cached_property
    def _accuracy(self) -> GaussianProcess:
        known = np.isfinite(self.table.accuracy)
        rows = self._damage_features(self.table.options[known])
        return GaussianProcess.fit(rows, self.table.accuracy[known].astype(np.float64), self._damage_blocks)

    @lru_cache  # noqa: B019 (a surrogate lives as long as its table)
    def _latency(self, setting: str) -> GaussianProcess:
        column = self.table.latency_ms[setting]
        known = np.isfinite(column)
        rows = self._width_features(self.table.options[known])
        every = slice(0, rows.shape[1])
        return GaussianProcess.fit(rows, np.log(column[known].astype(np.float64)), [every], every)

    @property
    def _damage_blocks(self) -> list[slice]:
        count = len(self.codec.positions)
        return [slice(0, count), slice(count, count + 2), slice(count + 2, 2 * count + 2)]

    def _width_features(self, rows: Options) -> Vector:
        """What leaves of each position, and what is still there at all, [n, 2 positions]."""
        kept = self.codec.keep_of(rows)
        return np.concatenate([1.0 - kept, kept > 0.0], axis=1)

    def _damage_features(self, rows: Options) -> Vector:
        """Roots of single damages, two logarithms of their sum, and what leaves, [n, 2 positions + 2]."""
        kept = self.codec.keep_of(rows)
        single = self._damages[np.arange(len(self.codec.positions)), np.asarray(rows, dtype=np.int64)]
        for place, home in enumerate(self.codec.inside):
            if home >= 0:
                single[:, place] = np.where(kept[:, home] == 0.0, 0.0, single[:, place])
        sums = np.stack(
            [single.sum(1), (single**EXPONENT).sum(1) ** (1.0 / EXPONENT)],
            axis=1,
        )
        return np.concatenate([np.sqrt(single), np.log(LEAST_DAMAGE + sums), 1.0 - kept], axis=1)

    @cached_property
    def _damages(self) -> Vector:
        """The drop of each option alone as a share of what the original knows above chance."""
        context = context_of(self.table, next(iter(self.table.header.settings)), Budget())
        span = context.drop(self.table.header.chance)
        found = np.zeros(self.codec.keeps.shape)
        for place, position in enumerate(self.codec.positions):
            for option, keep in enumerate(position.keeps):
                change = Change(block=position.name) if position.is_block else _narrowed(position.name, keep)
                effect = context.effects.get(change) if option and change is not None else None
                if effect is not None:
                    found[place, option] = max(0.0, context.drop(effect.accuracy)) / span
        return found


@lru_cache(maxsize=64)
def surrogate_of(table: TaskTable) -> Surrogate:
    """The surrogate of a table; one serves all of its settings."""
    return Surrogate(table)


@dataclass(frozen=True, eq=False)
class TableTask:
    """A `TrialTask` on a table: one setting, and a budget.

    Args:
        probed: whether policies are told the effects of single changes.
    """

    table: TaskTable
    setting: str
    budget: Budget = field(default_factory=Budget)
    probed: bool = True

    @classmethod
    def of(
        cls, table: TaskTable, setting: str, budget: Budget = Budget(), *, probed: bool = True
    ) -> TableTask:
        """The task of a table in one of its settings.

        Raises:
            BadInputError: the table has no such setting.
        """
        if setting not in table.header.settings:
            raise unknown_name("setting", setting, table.header.settings)
        return cls(table, setting, budget, probed)

    @property
    def name(self) -> str:
        """Model, data and setting."""
        return f"{self.table.header.name}/{self.setting}"

    @property
    def chance(self) -> float:
        """The metric of answers that know nothing."""
        return self.table.header.chance

    @property
    def codec(self) -> PlanCodec:
        """Translates between rows and plans."""
        return self.table.codec

    @cached_property
    def context(self) -> PolicyContext:
        """What a policy may know."""
        whole = context_of(self.table, self.setting, self.budget)
        return whole if self.probed else replace(whole, effects={}, outputs=None)

    def accuracy(self, rows: Options) -> Vector:
        """The metric before recovery of plans [n, positions], float64 [n]."""
        return surrogate_of(self.table).accuracy(rows)

    def latency_ms(self, rows: Options) -> Vector:
        """p50 of plans [n, positions], float64 [n] in ms."""
        return surrogate_of(self.table).latency_ms(rows, self.setting)

    def run(self, plan: CompressionPlan, number: int, origin: str) -> Trial:
        """The trial of a plan, as the surrogates see it."""
        row = self.codec.encode(plan)[None]
        return Trial(
            number=number,
            plan=plan,
            origin=origin,
            accuracy=float(self.accuracy(row)[0]),
            latency_ms={self.setting: float(self.latency_ms(row)[0])},
        )


def context_of(table: TaskTable, setting: str, budget: Budget) -> PolicyContext:
    """What a policy may know of a table's model in one setting; the target bears the setting's name."""
    header = table.header
    entry = header.settings[setting]
    space: PlanSpace = table.codec.space
    context = PolicyContext(
        graph=header.graph,
        space=space,
        budget=budget,
        targets=(entry.target.model_copy(update={"name": setting}),),
        float_accuracy=header.float_accuracy,
        base_latency_ms={setting: entry.base_latency_ms},
        metric=header.metric,
        shares={setting: entry.shares} if entry.shares else {},
        chance=header.chance,
        outputs=table.outputs,
    )
    return replace(context, effects=interpolated(effects_of(table, [setting]), context))


def _narrowed(unit: str, keep: float) -> Change | None:
    return Change(unit=unit, keep_ratio=keep) if 0.0 < keep < 1.0 else None
