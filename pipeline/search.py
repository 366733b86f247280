"""One station of the loop after another: probe single changes, try whole plans, recover the best.

Nothing here knows how a file is made or timed: a `CandidateBench` is passed in.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from torch import nn

from device_bench.protocol import Failure, FailureKind, Measurement, Profile
from pipeline.cuts import Cutter
from pipeline.data.base import Dataset, Split
from pipeline.evaluation import evaluate
from pipeline.experience import Trial
from pipeline.graph import ModelGraph, Unit
from pipeline.methods.batch_norm import reestimate_
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Change, Effect, PolicyContext
from pipeline.reward import Baseline, reward
from pipeline.space import PlanSpace
from pipeline.task import Task

# Enough samples to rank by: the standard error of an accuracy near 80 % is 0.9 points on 2,000.
PROBE_SAMPLES = 2000
REESTIMATION_SAMPLES = 1000
# A unit is probed at half its width and at its narrowest; what lies between is interpolated.
PROBED_KEEP = 0.5


class CandidateBench(Protocol):
    """Builds a candidate for every target and measures it there."""

    def measure(self, module: nn.Module, plan: CompressionPlan) -> Mapping[str, Measurement | Failure]:
        """Latency and memory of `module`, which `plan` made, on each target by name."""
        ...

    def profile(self, module: nn.Module, plan: CompressionPlan) -> Mapping[str, Profile | Failure]:
        """Where the latency of `module`, which `plan` made, goes on each target by name."""
        ...


@dataclass(frozen=True)
class Workbench:
    """A task with everything loaded: what all stations share."""

    task: Task
    dataset: Dataset
    module: nn.Module
    graph: ModelGraph
    space: PlanSpace
    bench: CandidateBench
    seed: int = 0
    reestimation_samples: int = REESTIMATION_SAMPLES

    @cached_property
    def _cutter(self) -> Cutter:
        return Cutter(self.module, self.graph)

    @property
    def probe_split(self) -> Split:
        """What probes are judged on: a part of the search split."""
        return self.dataset.search.spread(PROBE_SAMPLES)

    def build(self, plan: CompressionPlan) -> nn.Module:
        """The compressed module with batch norms re-estimated, not yet recovered."""
        module = self._cutter.cut(plan)
        sample = self.dataset.train.spread(self.reestimation_samples).x
        reestimate_(module, sample, self.dataset.preprocessing)
        return module

    def judge(self, module: nn.Module, split: Split) -> float:
        """The task's metric of `module` on `split`."""
        return evaluate(module, split, self.dataset.metric, self.dataset.preprocessing)


def changes_to_probe(graph: ModelGraph, space: PlanSpace) -> list[Change]:
    """Every block that may go, and every unit at half and at its least width."""
    changes = [Change(block=block) for block in space.removable]
    for unit in graph.units:
        narrower = [keep for keep in space.choices.get(unit.name, ()) if keep < 1.0]
        if narrower:
            # Of two that are as near, the narrower: where it is the least one too, a probe is saved.
            half = min(narrower, key=lambda keep: (round(abs(keep - PROBED_KEEP), 6), keep))
            changes += [Change(unit=unit.name, keep_ratio=keep) for keep in sorted({half, min(narrower)})]
    return changes


def probe(workbench: Workbench, change: Change) -> Effect:
    """What one single change to the original costs in the metric and gives in latency, measured."""
    plan = plan_of(workbench.space, change)
    module = workbench.build(plan)
    accuracy = workbench.judge(module, workbench.probe_split)
    outcomes = workbench.bench.measure(module, plan)
    return Effect(accuracy=accuracy, latency_ms=latencies(outcomes))


def label_of(change: Change) -> str:
    """The change in words: "without layer1.0", "layer1.0.conv1 at 50 %"."""
    if change.block is not None:
        return f"without {change.block}"
    return f"{change.unit} at {100 * (change.keep_ratio or 1.0):.0f} %"


def plan_of(space: PlanSpace, change: Change) -> CompressionPlan:
    """The plan that makes this one change (and what it forces on linked units)."""
    keep = {change.unit: change.keep_ratio} if change.unit and change.keep_ratio else {}
    return space.plan(keep, [change.block] if change.block else [])


def latencies(outcomes: Mapping[str, Measurement | Failure]) -> dict[str, float]:
    """p50 in milliseconds on each target where there is a measurement."""
    return {name: found.latency.p50_ms for name, found in outcomes.items() if isinstance(found, Measurement)}


def interpolated(probed: Mapping[Change, Effect], context: PolicyContext) -> dict[Change, Effect]:
    """`probed`, and for every width between probed ones the effect on the straight line between them."""
    effects = dict(probed)
    whole = Effect(accuracy=context.float_accuracy, latency_ms=context.base_latency_ms)
    for unit in context.graph.units:
        known = {1.0: whole} | {
            change.keep_ratio: effect
            for change, effect in probed.items()
            if change.unit == unit.name and change.keep_ratio is not None
        }
        if len(known) > 1:
            effects |= _between(unit, known, context.space.choices.get(unit.name, ()))
    return effects


def _between(unit: Unit, known: Mapping[float, Effect], choices: Iterable[float]) -> dict[Change, Effect]:
    found = {}
    for keep in choices:
        below = max((k for k in known if k <= keep), default=None)
        above = min((k for k in known if k >= keep), default=None)
        if keep >= 1.0 or below is None or above is None:
            continue
        share = 0.0 if above == below else (keep - below) / (above - below)
        low, high = known[below], known[above]
        found[Change(unit=unit.name, keep_ratio=keep)] = Effect(
            accuracy=low.accuracy + share * (high.accuracy - low.accuracy),
            latency_ms={
                name: low.latency_ms[name] + share * (high.latency_ms[name] - low.latency_ms[name])
                for name in low.latency_ms
                if name in high.latency_ms
            },
        )
    return found


@dataclass(frozen=True)
class TrialRequest:
    """A plan to try, its number, and which policy asked for it."""

    number: int
    plan: CompressionPlan
    origin: str


def run_trial(workbench: Workbench, request: TrialRequest, baselines: Sequence[Baseline]) -> Trial:
    """Build, judge and measure one plan without recovery. A failed measurement is part of the outcome."""
    clock = time.monotonic()
    module = workbench.build(request.plan)
    built = time.monotonic()
    accuracy = workbench.judge(module, workbench.dataset.search)
    judged = time.monotonic()
    outcomes = workbench.bench.measure(module, request.plan)
    measured = time.monotonic()
    seconds = {"build": built - clock, "accuracy": judged - built, "measure": measured - judged}
    return finished_trial(workbench, request, accuracy, outcomes, baselines).model_copy(
        update={"seconds": seconds}
    )


def finished_trial(
    workbench: Workbench,
    request: TrialRequest,
    accuracy: float,
    outcomes: Mapping[str, Measurement | Failure],
    baselines: Sequence[Baseline],
) -> Trial:
    """The record of a trial from what was found."""
    found = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Measurement)}
    failures = [outcome for outcome in outcomes.values() if isinstance(outcome, Failure)]
    if not math.isfinite(accuracy):
        # A cut can leave a network whose numbers overflow: that plan failed, and the search goes on.
        metric = workbench.dataset.metric
        message = f"the {metric} of the compressed model is {accuracy}; its outputs are not finite"
        failures.append(Failure(kind=FailureKind.RUNTIME_ERROR, message=message))
    parts = None if failures else reward(accuracy, found, workbench.task.budget, baselines)
    return Trial(
        number=request.number,
        plan=request.plan,
        origin=request.origin,
        accuracy=accuracy if math.isfinite(accuracy) else None,
        latency_ms=latencies(outcomes),
        peak_memory_bytes={name: outcome.memory.peak_bytes for name, outcome in found.items()},
        artifact_bytes={name: outcome.memory.file_bytes for name, outcome in found.items()},
        reward=parts,
        failure=failures[0] if failures else None,
    )


def with_effects(context: PolicyContext, probed: Mapping[Change, Effect]) -> PolicyContext:
    """The context a policy sees once single changes were probed."""
    return replace(context, effects=interpolated(probed, context))
