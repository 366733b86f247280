"""Outcome tasks in the make-believe world, for environments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from known_tasks import KnownTask
from small_graphs import accuracy_of, chain_graph, graph_of, latency_of, layer, residual_graph, unit

from pipeline.policy.base import PolicyContext
from pipeline.tables.codec import Options, PlanCodec
from pipeline.task import Budget

FREE = Budget()


@dataclass(frozen=True)
class KnownOutcomes:
    """A known task's outcomes by rows. Plans that narrow the position `broken` have none."""

    known: KnownTask
    budget: Budget = FREE
    broken: int | None = None

    @property
    def name(self) -> str:
        return self.known.name

    @cached_property
    def context(self) -> PolicyContext:
        return replace(self.known.context, budget=self.budget, chance=self.known.chance)

    @cached_property
    def codec(self) -> PlanCodec:
        return PlanCodec(self.context.space)

    def accuracy(self, rows: Options) -> np.ndarray:
        found = np.array([self._outcome(row)[0] for row in rows])
        return found if self.broken is None else np.where(rows[:, self.broken] > 0, np.nan, found)

    def latency_ms(self, rows: Options) -> np.ndarray:
        return np.array([self._outcome(row)[1] for row in rows])

    def _outcome(self, row: Options) -> tuple[float, float]:
        key = row.tobytes()
        if key not in self._found:
            graph, plan = self.known.graph, self.codec.decode(row)
            self._found[key] = accuracy_of(graph, plan), latency_of(graph, plan, self.known.target)
        return self._found[key]

    @cached_property
    def _found(self) -> dict[bytes, tuple[float, float]]:
        return {}


@dataclass(frozen=True)
class SizedOutcomes(KnownOutcomes):
    """The same with sizes: a file's bytes follow what plans keep, memory is always the same."""

    def artifact_bytes(self, rows: Options) -> np.ndarray:
        return 1000.0 * self.codec.keep_of(rows).mean(1)

    def peak_memory_bytes(self, rows: Options) -> np.ndarray:
        return np.full(len(rows), 5000.0)


def residual_outcomes(
    target: str = "local-onnxruntime",
    budget: Budget = FREE,
    broken: int | None = None,
    probed: bool = True,
) -> KnownOutcomes:
    """Nineteen decisions, linked widths and blocks."""
    return KnownOutcomes(KnownTask(residual_graph(), target, probed), budget, broken)


def chain_outcomes(target: str = "local-litert", budget: Budget = FREE) -> KnownOutcomes:
    """Two decisions."""
    return KnownOutcomes(KnownTask(chain_graph(), target), budget)


def one_unit_outcomes() -> KnownOutcomes:
    """One hidden layer of 16."""
    layers = [layer("hidden", 8, 16, 1), layer("classes", 16, 3, 1)]
    units = [unit("hidden", layers[:1]), unit("classes", layers[1:], prunable=False)]
    return KnownOutcomes(KnownTask(graph_of(layers, units, []), "local-litert"))


def no_unit_outcomes() -> KnownOutcomes:
    """Nothing to decide."""
    layers = [layer("classes", 16, 3, 1)]
    return KnownOutcomes(
        KnownTask(graph_of(layers, [unit("classes", layers, prunable=False)], []), "local-litert")
    )
