"""One station of the loop after another: probe single changes, try whole plans, recover the best.

Nothing here knows how a file is made or timed: a `CandidateBench` is passed in.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Protocol

import torch
from torch import nn

from device_bench.protocol import Failure, FailureKind, Measurement, Profile
from pipeline.cuts import Cutter
from pipeline.data.base import Dataset, Split
from pipeline.evaluation import evaluate, predict, score
from pipeline.experience import Trial
from pipeline.graph import ModelGraph
from pipeline.methods.batch_norm import reestimate_
from pipeline.methods.distillation import task_loss
from pipeline.methods.importance import BatchLoss
from pipeline.methods.layer_methods import apply_, factorise_layers_, layer_choices, settled_plan
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Change, Effect, PolicyContext
from pipeline.policy.outputs import Outputs, ProbedOutputs, samples_kept
from pipeline.reward import Baseline, reward
from pipeline.space import PlanSpace
from pipeline.task import Task

# Enough samples to rank by: the standard error of an accuracy near 80 % is 0.9 points on 2,000.
PROBE_SAMPLES = 2000
REESTIMATION_SAMPLES = 1000
# Channels ranked by the loss: on so many samples, so many at a time.
RANKING_SAMPLES, RANKING_BATCH = 512, 128
# A unit is probed at half its width and at its narrowest; what lies between is interpolated.
PROBED_KEEP = 0.5
# Powers by which a drop rises with what is cut: of units of CNN and VGG at three to fourteen widths 2 to 6,
# mostly near 3. A drop below the least one is noise of some hundred samples.
POWERS, USUAL_POWER = (1.0, 6.0), 3.0
LEAST_DROP = 0.05


def ranking_losses(dataset: Dataset) -> list[BatchLoss]:
    """The task's loss over batches of training samples, by which channels may be ranked."""
    sample = dataset.train.spread(RANKING_SAMPLES)

    def loss(start: int, module: nn.Module) -> torch.Tensor:
        part = slice(start, start + RANKING_BATCH)
        inputs = torch.from_numpy(dataset.preprocessing.apply(sample.x[part]))
        return task_loss(module(inputs), torch.from_numpy(sample.y[part]), dataset.metric, dataset.heads)

    return [partial(loss, start) for start in range(0, len(sample), RANKING_BATCH)]


class CandidateBench(Protocol):
    """Builds a candidate for every target and measures it there."""

    def measure(self, module: nn.Module, plan: CompressionPlan) -> Mapping[str, Measurement | Failure]:
        """Latency and memory of `module`, which `plan` made, on each target by name that is not gone."""
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
        return Cutter(self.module, self.graph, ranking_losses(self.dataset))

    @property
    def probe_split(self) -> Split:
        """What probes are judged on: a part of the search split."""
        return self.dataset.search.spread(PROBE_SAMPLES)

    def build(self, plan: CompressionPlan) -> nn.Module:
        """The compressed module with batch norms re-estimated, not yet recovered.

        Raises:
            PlanError: the plan does not fit; names the unit, block or layer.
        """
        module = self._cutter.cut(plan)
        choices = layer_choices(plan, self.graph)
        factorise_layers_(module, choices)
        apply_(module, choices)
        sample = self.dataset.train.spread(self.reestimation_samples).x
        reestimate_(module, sample, self.dataset.preprocessing)
        return module

    def settled(self, plan: CompressionPlan) -> CompressionPlan:
        """The plan with nothing left open that only the weights tell.

        Raises:
            PlanError: the plan does not fit; names the unit, block or layer.
        """
        plan = self._cutter.by_contribution(plan)
        return settled_plan(plan, self.graph, self._cutter.cut(plan))

    def judge(self, module: nn.Module, split: Split) -> float:
        """The task's metric of `module` on `split`."""
        return evaluate(module, split, self.dataset.metric, self.dataset.preprocessing, self.dataset.heads)

    def answered(self, module: nn.Module, split: Split) -> tuple[float, Outputs]:
        """The task's metric of `module` on `split`, and as many of its answers as are kept [n, k]."""
        answers = predict(module, split.x, self.dataset.preprocessing)
        accuracy = score(self.dataset.metric, answers, split.y, self.dataset.heads)
        return accuracy, answers[samples_kept(*answers.shape)]

    def probed_outputs(self, changed: Mapping[Change, Outputs]) -> ProbedOutputs:
        """What the original answers on the probe split, beside what changes of it do."""
        split = self.probe_split
        _, original = self.answered(self.module, split)
        truth = split.y[samples_kept(len(split), original.shape[1])]
        return ProbedOutputs(self.dataset.metric, truth, original, changed, self.dataset.heads)


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


def probe(workbench: Workbench, change: Change) -> tuple[Effect, Outputs]:
    """What one single change to the original costs in the metric and gives in latency, and its answers."""
    plan = plan_of(workbench.space, change)
    module = workbench.build(plan)
    accuracy, answers = workbench.answered(module, workbench.probe_split)
    outcomes = workbench.bench.measure(module, plan)
    return Effect(accuracy=accuracy, latency_ms=latencies(outcomes)), answers


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
    """`probed`, and the effects of all widths between probed ones.

    Latency lies on the straight line. The drop rises as a power of what was cut, through the probed widths on
    either side: most of what a channel is worth is only lost with the last ones.
    """
    effects = dict(probed)
    whole = Effect(accuracy=context.float_accuracy, latency_ms=context.base_latency_ms)
    for unit in context.graph.units:
        known = {
            change.keep_ratio: effect
            for change, effect in probed.items()
            if change.unit == unit.name and change.keep_ratio is not None
        }
        if known:
            drops = {1.0 - keep: context.drop(effect.accuracy) for keep, effect in known.items()}
            for keep in context.space.choices.get(unit.name, ()):
                if min(known) < keep < 1.0 and keep not in known:
                    drop = _power_law(drops, 1.0 - keep)
                    accuracy = (
                        context.float_accuracy - drop
                        if context.metric.higher_is_better
                        else context.float_accuracy + drop
                    )
                    latency = _straight({1.0: whole, **known}, keep)
                    effects[Change(unit=unit.name, keep_ratio=keep)] = Effect(
                        accuracy=accuracy, latency_ms=latency
                    )
    return effects


def _power_law(drops: Mapping[float, float], cut: float) -> float:
    """The drop when the share `cut` leaves, from drops at other shares; towards 0 below the least."""
    known = sorted((share, max(LEAST_DROP, drop)) for share, drop in drops.items())
    if len(known) == 1:
        (share, drop), power = known[0], USUAL_POWER
    else:
        places = range(len(known) - 1)
        place = next((i for i in places if cut <= known[i + 1][0]), len(known) - 2)
        (share, drop), (wider, more) = known[place : place + 2]
        power = math.log(more / drop) / math.log(wider / share)
    found: float = drop * (cut / share) ** min(max(power, POWERS[0]), POWERS[1])
    return found


def _straight(known: Mapping[float, Effect], keep: float) -> dict[str, float]:
    """Latency on each target on the line between the probed widths on either side."""
    below, above = max(k for k in known if k <= keep), min(k for k in known if k >= keep)
    low, high = known[below].latency_ms, known[above].latency_ms
    share = (keep - below) / (above - below)
    return {name: low[name] + share * (high[name] - low[name]) for name in low if name in high}


@dataclass(frozen=True)
class TrialRequest:
    """A plan to try, its number, and which policy asked for it."""

    number: int
    plan: CompressionPlan
    origin: str


def run_trial(workbench: Workbench, request: TrialRequest, baselines: Sequence[Baseline]) -> Trial:
    """Build, judge and measure one plan without recovery. A failed measurement is part of the outcome."""
    return run_answered_trial(workbench, request, baselines)[0]


def run_answered_trial(
    workbench: Workbench, request: TrialRequest, baselines: Sequence[Baseline]
) -> tuple[Trial, Outputs]:
    """As `run_trial`, with those of the plan's answers on the search split that are kept."""
    clock = time.monotonic()
    module = workbench.build(request.plan)
    built = time.monotonic()
    accuracy, answers = workbench.answered(module, workbench.dataset.search)
    judged = time.monotonic()
    outcomes = workbench.bench.measure(module, request.plan)
    measured = time.monotonic()
    seconds = {"build": built - clock, "accuracy": judged - built, "measure": measured - judged}
    found = finished_trial(workbench, request, accuracy, outcomes, baselines)
    return found.model_copy(update={"seconds": seconds}), answers


def finished_trial(
    workbench: Workbench,
    request: TrialRequest,
    accuracy: float,
    outcomes: Mapping[str, Measurement | Failure],
    baselines: Sequence[Baseline],
) -> Trial:
    """The record of a trial from what was found.

    A target without an outcome is gone: the plan is not to blame, and is judged by the others.
    """
    baselines = [baseline for baseline in baselines if baseline.target in outcomes]
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


def with_effects(
    context: PolicyContext, probed: Mapping[Change, Effect], outputs: ProbedOutputs | None = None
) -> PolicyContext:
    """The context a policy sees once single changes were probed, with their answers where those were kept."""
    return replace(context, effects=interpolated(probed, context), outputs=outputs)
