"""What came of a contest: shares of the best known hypervolume by policy, task, seed and trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from device_bench.errors import unknown_name
from pipeline.tables.comparison import Interval, Verdict, compare, interval_of
from pipeline.tables.curve import CHECKPOINTS, Curve, normalised

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Standings:
    """All curves of a contest, the best known area of each task by its name, and how many trials all had."""

    curves: tuple[Curve, ...]
    best: Mapping[str, float]
    trials: int

    @cached_property
    def policies(self) -> tuple[str, ...]:
        """In the order of the curves."""
        return tuple(dict.fromkeys(curve.policy for curve in self.curves))

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """By name."""
        return tuple(sorted({curve.task for curve in self.curves}))

    @cached_property
    def _by_key(self) -> dict[tuple[str, str], list[Curve]]:
        found: dict[tuple[str, str], list[Curve]] = {}
        for curve in sorted(self.curves, key=lambda curve: curve.seed):
            found.setdefault((curve.policy, curve.task), []).append(curve)
        return found

    def shares(self, policy: str, task: str, trials: int) -> list[float]:
        """Normalised hypervolume after so many trials, one a seed.

        Raises:
            BadInputError: no such policy or task in this contest.
        """
        if policy not in self.policies:
            raise unknown_name("policy", policy, self.policies)
        if task not in self.tasks:
            raise unknown_name("task", task, self.tasks)
        areas = [curve.area_after(trials) for curve in self._by_key[policy, task]]
        return normalised(areas, self.best[task])

    def mean(self, policy: str, trials: int, tasks: Sequence[str] | None = None) -> Interval:
        """Over tasks; the interval is over seeds, each of which has its own mean over tasks."""
        table = [self.shares(policy, task, trials) for task in tasks or self.tasks]
        return interval_of([float(value) for value in np.mean(table, axis=0)])

    def verdict(self, ours: str, theirs: str, trials: Sequence[int]) -> Verdict:
        """Whether one policy's mean over these numbers of trials is above the other's."""
        return compare(*(self._averaged(policy, trials) for policy in (ours, theirs)))

    def _averaged(self, policy: str, trials: Sequence[int]) -> dict[str, list[float]]:
        return {
            task: [
                float(value)
                for value in np.mean([self.shares(policy, task, count) for count in trials], axis=0)
            ]
            for task in self.tasks
        }

    def checkpoints(self) -> tuple[int, ...]:
        """Those numbers of trials that the contest reached, and its last."""
        return tuple(sorted({*(count for count in CHECKPOINTS if count <= self.trials), self.trials}))

    def to_json(self) -> dict[str, Any]:
        """JSON values: every seed's curve, and `mean_hypervolume` by policy and trials."""
        checkpoints = self.checkpoints()
        return {
            "schema_version": SCHEMA_VERSION,
            "mean_hypervolume": {
                policy: {str(count): self.mean(policy, count).mean for count in checkpoints}
                for policy in self.policies
            },
            "interval": {
                policy: {str(count): [found.low, found.high] for count, found in self._intervals(policy)}
                for policy in self.policies
            },
            "trials": self.trials,
            "best_known_area": dict(self.best),
            "curves": [
                {
                    "policy": curve.policy,
                    "task": curve.task,
                    "seed": curve.seed,
                    "hypervolume": normalised(curve.areas, self.best[curve.task]),
                }
                for curve in self.curves
            ],
        }

    def _intervals(self, policy: str) -> list[tuple[int, Interval]]:
        return [(count, self.mean(policy, count)) for count in self.checkpoints()]
