"""Greedy by sensitivity: for each target, the changes that save most time for what they cost in accuracy.

After NetAdapt (Yang et al., ECCV 2018): from the whole model, take the single change with the best latency
saved per accuracy lost, again and again, until a wanted speed-up is reached. `effect_model` says how the
effects of single changes combine. Each target has a ladder of speed-ups (rungs); once they are tried, the
search goes on between those that the accuracy budget separates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from math import isfinite, log, sqrt
from statistics import median
from typing import TypeVar

from pipeline.experience import Trial
from pipeline.pareto import pareto_front
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Change, Novelty, PolicyContext
from pipeline.policy.effect_model import EffectModel, State

SLOWEST_RUNG = 1.2
FASTEST_RUNG = 3.0
# Where on the ladder (as logarithms) the rungs are, in the order they are tried: the first few tell most.
RUNG_ORDER = (0.5, 0.8, 0.2, 0.65, 0.35, 1.0, 0.0)
# Points of accuracy that a probe cannot tell from nothing; keeps free changes from looking infinitely good.
LEAST_DROP = 0.1
# The share of a drop that recovery wins back, until trials of the task tell (ResNet-20: 0.9 and more).
RECOVERED_SHARE = 0.9
# Speed-ups closer than this are not worth another trial between them.
NARROWEST_GAP = 1.03
# How much faster than the fastest that was tried it may get.
BEYOND = 1.3

T = TypeVar("T")


class GreedyPolicy:
    """One path of best changes for each target; trials are the places where it passes the rungs."""

    name = "greedy"

    def propose(self, context: PolicyContext, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        """The next rungs of every target in turn; nothing where no effect was probed."""
        model = EffectModel(context, history)
        paths = {target.name: _path(context, model, target.name) for target in context.targets}
        novelty = Novelty(history)
        done = sum(trial.origin == self.name for trial in history)
        plans: list[CompressionPlan] = []
        for plan in _candidates(context, history, model, paths, done):
            if len(plans) == count:
                break
            if novelty.admits(plan):
                plans.append(plan)
        return plans


def _candidates(
    context: PolicyContext,
    history: Sequence[Trial],
    model: EffectModel,
    paths: dict[str, list[State]],
    done: int,
) -> Iterator[CompressionPlan]:
    """Plans, the most wanted first: rungs left, between tried ones, every step of the paths."""
    rungs = _in_turn(_ladders(context, model, paths))
    between = _in_turn([[(t.name, r) for r in _refined(context, history, t.name)] for t in context.targets])
    for name, rung in [*rungs[done:], *between, *rungs[:done]]:
        state = _reaching(context, model, paths[name], name, context.base_latency_ms[name] / rung)
        if state is not None:
            yield context.space.plan(state.keep, state.removed)
    for state in _in_turn(list(paths.values())):
        yield context.space.plan(state.keep, state.removed)


def _path(context: PolicyContext, model: EffectModel, target: str) -> list[State]:
    """States from the first change to the last that still saves time, each one change further."""
    state = State({}, frozenset())
    path: list[State] = []
    while True:
        latency, drop = model.saving_ms(state, target), model.drop(state)
        best: tuple[float, State] | None = None
        for change in model.changes:
            after = _after(context, state, change)
            if after is None:
                continue
            saved = model.saving_ms(after, target) - latency
            if saved > 0.0:
                value = saved / max(model.drop(after) - drop, LEAST_DROP)
                if best is None or value > best[0]:
                    best = value, after
        if best is None:
            return path
        state = best[1]
        path.append(state)


def _after(context: PolicyContext, state: State, change: Change) -> State | None:
    """`state` with one more change, linked units moved along; None where that changes nothing."""
    if change.block is not None:
        if change.block in state.removed:
            return None
        removed = state.removed | {change.block}
        inside = context.space.inside(removed)
        return State({name: keep for name, keep in state.keep.items() if name not in inside}, removed)
    unit, keep = str(change.unit), float(change.keep_ratio or 1.0)
    if keep >= state.keep.get(unit, 1.0) or unit in context.space.inside(state.removed):
        return None
    after = {**state.keep, unit: keep}
    if context.space.is_linked(unit):
        after = dict(State.of(context.space.plan(after, state.removed)).keep)
    return None if after == state.keep else State(after, state.removed)


def _reaching(
    context: PolicyContext, model: EffectModel, path: Sequence[State], target: str, latency_ms: float
) -> State | None:
    """The first state of the path within `latency_ms`, less every change that it does not need."""
    state = next((state for state in path if model.latency_ms(state, target) <= latency_ms), None)
    while state is not None:
        drop = model.drop(state)
        lighter = [
            (drop - model.drop(other), other)
            for other in _lighter(context, state)
            if model.latency_ms(other, target) <= latency_ms
        ]
        best = max(lighter, key=lambda pair: pair[0], default=(0.0, state))
        if best[0] <= 0.0:
            return state
        state = best[1]
    return None


def _lighter(context: PolicyContext, state: State) -> Iterator[State]:
    """`state` with one block put back or one unit one step wider."""
    for block in sorted(state.removed):
        yield State(state.keep, state.removed - {block})
    for unit, keep in sorted(state.keep.items()):
        wider = min(ratio for ratio in context.space.choices[unit] if ratio > keep)
        asked = {name: ratio for name, ratio in {**state.keep, unit: wider}.items() if ratio < 1.0}
        if context.space.is_linked(unit):
            asked = dict(State.of(context.space.plan(asked, state.removed)).keep)
        if asked != state.keep:
            yield State(asked, state.removed)


def _ladders(
    context: PolicyContext, model: EffectModel, paths: dict[str, list[State]]
) -> list[list[tuple[str, float]]]:
    """For each target its rungs, as speed-ups over plain INT8, in the order they are tried."""
    ladders = []
    for name, path in paths.items():
        base = context.base_latency_ms[name]
        wanted = max(context.budget.min_speedup or 1.0, base / (context.budget.max_latency_ms or base))
        reach = base / min((model.latency_ms(state, name) for state in path), default=base)
        fastest = min(max(FASTEST_RUNG, 1.5 * wanted), reach)
        slowest = min(max(SLOWEST_RUNG, wanted), fastest)
        ladders.append([(name, slowest * (fastest / slowest) ** place) for place in RUNG_ORDER])
    return ladders


def _refined(context: PolicyContext, history: Sequence[Trial], target: str) -> list[float]:
    """Speed-ups half-way between neighbours of the tried front, those near the accuracy budget first."""
    points = [(1.0, 0.0)]
    share = _recovered_share(context, history)
    for trial in history:
        speedup, drop = context.speedup(trial, target), _final_drop(context, trial, share)
        if speedup is not None and drop is not None:
            points.append((speedup, drop))
    # Cost is the drop, gain the speed-up: so the front goes from the gentlest plan to the fastest.
    front = [points[i] for i in pareto_front([(drop, speedup) for speedup, drop in points])]
    front.append((front[-1][0] * BEYOND, float("inf")))
    gaps = list(pairwise(front))
    crossing = next(sqrt(slow * fast) for (slow, _), (fast, drop) in gaps if drop > context.budget.max_drop)
    middles = [sqrt(slow * fast) for (slow, _), (fast, _) in gaps if fast / slow > NARROWEST_GAP]
    return sorted(middles, key=lambda rung: abs(log(rung / crossing)))


def _recovered_share(context: PolicyContext, history: Sequence[Trial]) -> float:
    """What share of a drop recovery won back in this task; `RECOVERED_SHARE` before it is known."""
    shares = [
        1.0 - max(0.0, context.drop(trial.accuracy_recovered)) / context.drop(trial.accuracy)
        for trial in history
        if trial.accuracy is not None
        and trial.accuracy_recovered is not None
        and isfinite(trial.accuracy_recovered)
        and context.drop(trial.accuracy) > LEAST_DROP
    ]
    return median(shares) if shares else RECOVERED_SHARE


def _final_drop(context: PolicyContext, trial: Trial, recovered_share: float) -> float | None:
    """The drop after recovery, expected where it was not tried; None for a failed trial."""
    if trial.accuracy_recovered is not None and isfinite(trial.accuracy_recovered):
        return context.drop(trial.accuracy_recovered)
    if trial.accuracy is None or trial.failure is not None or not isfinite(trial.accuracy):
        return None
    return context.drop(trial.accuracy) * (1.0 - recovered_share)


def _in_turn(lists: Iterable[Sequence[T]]) -> list[T]:
    """The first of each, then the second of each, and so on."""
    columns = list(lists)
    longest = max(map(len, columns), default=0)
    return [column[i] for i in range(longest) for column in columns if i < len(column)]
