"""The Pareto plot of one target: every trial, the front, and where float, plain INT8 and chosen stand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.report import wording
from pipeline.report.labels import Label, place_labels
from pipeline.report.scale import LogScale, Scale, Tick, log_ticks, padded, ticks
from pipeline.result import Entry, RunResult, TrialPoint

WIDTH, HEIGHT = 560, 380
LEFT, RIGHT, TOP, BOTTOM = 58, 546, 14, 332


@dataclass(frozen=True)
class Mark:
    """One trial as drawn. `off_scale`: its score lies beyond the plot, at whose edge it stands."""

    number: int
    x: float
    y: float
    recovered: bool
    on_front: bool
    chosen: bool
    off_scale: bool
    title: str


@dataclass(frozen=True)
class Reference:
    """Float, plain INT8 or chosen: a diamond with its name beside it."""

    kind: str
    x: float
    y: float
    label: Label
    title: str


@dataclass(frozen=True)
class ParetoPlot:
    """All that the template draws for one target, in drawing units of a WIDTH × HEIGHT frame.

    `front_before` is the front among trials without recovery, which those with recovery would hide. `seen`
    says that final files stand at their scores on the test split, where the original had seen the search
    split.
    """

    target: str
    marks: tuple[Mark, ...]
    references: tuple[Reference, ...]
    front: str
    front_before: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    budget_y: float | None
    budget_x: float | None
    missing: int
    off_scale: int
    test_scored: tuple[str, ...]
    seen: str
    summary: str


@dataclass(frozen=True)
class _Spot:
    """A reference before it is drawn: latency in ms, score, and whether that score is of the test split."""

    kind: str
    latency_ms: float
    score: float
    of_test: bool


def is_drawable(point: TrialPoint, target: str) -> bool:
    """True where the trial has a finite score and a latency on the target."""
    latency = point.latency_ms.get(target, math.nan)
    measured = math.isfinite(latency) and latency > 0
    return point.failure is None and math.isfinite(point.accuracy) and measured


def pareto_front(points: Sequence[TrialPoint], target: str, higher_is_better: bool) -> tuple[TrialPoint, ...]:
    """The trials that no other beats in both latency and score, by rising latency."""
    sign = 1.0 if higher_is_better else -1.0
    front: list[TrialPoint] = []
    best = -math.inf
    for point in sorted(points, key=lambda p: (p.latency_ms[target], -sign * p.accuracy)):
        if sign * point.accuracy > best:
            best = sign * point.accuracy
            front.append(point)
    return tuple(front)


def pareto_plot(result: RunResult, target: str) -> ParetoPlot:
    """The drawing of one target's trials: score on the search split against p50 latency."""
    drawn = [point for point in result.points if is_drawable(point, target)]
    spots = _spots(result, target)
    x_scale, y_scale = _scales(result, target, drawn, spots)
    front = pareto_front(drawn, target, result.higher_is_better)
    marks = _marks(result, target, drawn, front, (x_scale, y_scale))
    before = pareto_front([p for p in drawn if not p.recovered], target, result.higher_is_better)
    budget = result.budget
    floating = spots[0]
    limit = floating.score - (budget.max_drop if result.higher_is_better else -budget.max_drop)
    return ParetoPlot(
        target=target,
        marks=marks,
        references=_references(result, spots, (x_scale, y_scale), marks),
        front=_step_path(marks, front),
        front_before="" if before == front else _step_path(marks, before),
        x_ticks=log_ticks(x_scale, 4),
        y_ticks=ticks(y_scale, 5),
        budget_y=None if floating.of_test and not result.search_was_seen else _inside(y_scale, limit),
        budget_x=None if budget.max_latency_ms is None else _inside(x_scale, budget.max_latency_ms),
        missing=len(result.points) - len(drawn),
        off_scale=sum(mark.off_scale for mark in marks),
        test_scored=()
        if result.search_was_seen
        else tuple(wording.FORM_NAMES[spot.kind] for spot in spots if spot.of_test),
        seen=wording.SEEN if result.search_was_seen else "",
        summary=_summary(result, target, marks, spots),
    )


def _spots(result: RunResult, target: str) -> list[_Spot]:
    forms = wording.forms(result.targets[target])
    return [_spot(kind, entry, result.search_was_seen) for kind, entry in forms.items()]


def _spot(kind: str, entry: Entry, seen: bool) -> _Spot:
    """The score is that of the parity check, which is on the search split like the trials' scores.

    Unless the original had seen that split: then only the test split tells how final files compare.
    """
    if entry.parity is None or seen:
        return _Spot(kind, entry.p50_ms, entry.accuracy, of_test=True)
    return _Spot(kind, entry.p50_ms, entry.parity.metric_artifact, of_test=False)


def _scales(
    result: RunResult, target: str, drawn: Sequence[TrialPoint], spots: Sequence[_Spot]
) -> tuple[LogScale, Scale]:
    """Axes that hold all references and every trial but far outliers in score.

    Latency is logarithmic: equal distances are equal speed-ups, and float, often far off, leaves room.
    A trial beyond Tukey's fence on the bad side (Q1 − 1.5 IQR) would squeeze all others into a line; it is
    drawn at the edge instead.
    """
    latencies = [p.latency_ms[target] for p in drawn] + [spot.latency_ms for spot in spots]
    scores = [p.accuracy for p in drawn]
    if len(scores) >= 4:
        low, high = np.percentile(scores, [25, 75])
        fence = 1.5 * (high - low)
        scores = [s for s in scores if (s >= low - fence if result.higher_is_better else s <= high + fence)]
    scores += [spot.score for spot in spots]
    wide = max(1.02, (max(latencies) / min(latencies)) ** 0.08)
    y_low, y_high = padded(scores, 0.08)
    return LogScale(min(latencies) / wide, max(latencies) * wide, LEFT, RIGHT), Scale(
        y_low, y_high, BOTTOM, TOP
    )


def _marks(
    result: RunResult,
    target: str,
    drawn: Sequence[TrialPoint],
    front: Sequence[TrialPoint],
    scales: tuple[LogScale, Scale],
) -> tuple[Mark, ...]:
    x_scale, y_scale = scales
    best = {point.number for point in front}
    chosen = result.targets[target].plan_id
    marks = []
    for point in sorted(drawn, key=lambda p: p.latency_ms[target]):
        outside = not y_scale.low <= point.accuracy <= y_scale.high
        edge = BOTTOM - 6 if point.accuracy < y_scale.low else TOP + 6
        marks.append(
            Mark(
                number=point.number,
                x=x_scale(point.latency_ms[target]),
                y=edge if outside else y_scale(point.accuracy),
                recovered=point.recovered,
                on_front=point.number in best,
                chosen=point.plan_id == chosen,
                off_scale=outside,
                title=trial_title(result, point, target),
            )
        )
    return tuple(marks)


def trial_title(result: RunResult, point: TrialPoint, target: str) -> str:
    """What a mark says when it is pointed at."""
    parts = [
        f"Trial {point.number}",
        f"plan {point.plan_id}",
        point.origin,
        wording.score(point.accuracy, result),
        wording.milliseconds(point.latency_ms[target]),
        "recovered" if point.recovered else "before recovery",
    ]
    return " · ".join(part for part in parts if part)


def _references(
    result: RunResult, spots: Sequence[_Spot], scales: tuple[LogScale, Scale], marks: Sequence[Mark]
) -> tuple[Reference, ...]:
    x_scale, y_scale = scales
    places = [(x_scale(spot.latency_ms), y_scale(spot.score)) for spot in spots]
    names = [wording.FORM_NAMES[spot.kind] for spot in spots]
    labels = place_labels(places, names, [(m.x, m.y) for m in marks], (LEFT, TOP, RIGHT, BOTTOM))
    return tuple(
        Reference(
            kind=spot.kind,
            x=x,
            y=y,
            label=label,
            title=" · ".join(
                [
                    name[0].upper() + name[1:],
                    f"{wording.score(spot.score, result)} ({'test' if spot.of_test else 'search'} split)",
                    wording.milliseconds(spot.latency_ms),
                ]
            ),
        )
        for spot, (x, y), name, label in zip(spots, places, names, labels, strict=True)
    )


def _step_path(marks: Sequence[Mark], front: Sequence[TrialPoint]) -> str:
    """An SVG path through the front: a staircase, since nothing between two trials was measured."""
    numbers = {point.number for point in front}
    stairs = [mark for mark in marks if mark.number in numbers and not mark.off_scale]
    if len(stairs) < 2:
        return ""
    steps = [f"M{stairs[0].x} {stairs[0].y}"]
    steps += [f"H{mark.x}V{mark.y}" for mark in stairs[1:]]
    return "".join(steps)


def _inside(scale: Scale | LogScale, value: float) -> float | None:
    return scale(value) if scale.low <= value <= scale.high else None


def _summary(result: RunResult, target: str, marks: Sequence[Mark], spots: Sequence[_Spot]) -> str:
    """The plot in one sentence, for those who do not see it."""
    said = [
        f"{wording.FORM_NAMES[spot.kind]} at {wording.milliseconds(spot.latency_ms)} and "
        f"{wording.score(spot.score, result)}"
        for spot in spots
    ]
    front = sum(mark.on_front for mark in marks)
    seen = f"{wording.SEEN} " if result.search_was_seen else ""
    return (
        f"{wording.metric_name(result)} on the search split against p50 latency on {target}: "
        f"{wording.counted(len(marks), 'trial')}, {front} of them on the Pareto front; "
        f"{wording.listing(said)}. {seen}The table of trials below has the same figures."
    )
