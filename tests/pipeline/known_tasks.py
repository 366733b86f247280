"""Trial tasks in the make-believe world: every plan's outcome is known and costs nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from small_graphs import accuracy_of, chain_graph, context_of, latency_of, residual_graph

from pipeline.experience import Trial
from pipeline.graph import ModelGraph
from pipeline.plan import CompressionPlan
from pipeline.policy.base import PolicyContext
from pipeline.target import LOCAL_TARGETS


@dataclass(frozen=True)
class KnownTask:
    """One graph on one target of the make-believe world; `probed` tells the effects of single changes."""

    graph: ModelGraph
    target: str = "local-onnxruntime"
    probed: bool = True
    seed: int = 0
    chance: float = 10.0

    @property
    def name(self) -> str:
        return f"known/{len(self.graph.units)} units/{self.target}@1"

    @cached_property
    def context(self) -> PolicyContext:
        whole = context_of(self.graph, self.seed)
        target = LOCAL_TARGETS[self.target]
        effects = {
            change: effect.model_copy(update={"latency_ms": {self.target: effect.latency_ms[self.target]}})
            for change, effect in whole.effects.items()
        }
        return replace(
            whole,
            targets=(target,),
            base_latency_ms={self.target: whole.base_latency_ms[self.target]},
            effects=effects if self.probed else {},
        )

    def run(self, plan: CompressionPlan, number: int, origin: str) -> Trial:
        return Trial(
            number=number,
            plan=plan,
            origin=origin,
            accuracy=accuracy_of(self.graph, plan),
            latency_ms={self.target: latency_of(self.graph, plan, self.target)},
        )


def residual_task(target: str = "local-onnxruntime", *, probed: bool = True) -> KnownTask:
    """Millions of plans."""
    return KnownTask(residual_graph(), target, probed)


def chain_task(target: str = "local-onnxruntime", *, probed: bool = True) -> KnownTask:
    """Fifteen plans and nothing to remove."""
    return KnownTask(chain_graph(), target, probed)
