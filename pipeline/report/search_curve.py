"""How a search went: the share of what it found in the end that it had found after each trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.pareto import hypervolume
from pipeline.report.pareto import is_drawable
from pipeline.report.scale import Scale, Tick, ticks
from pipeline.result import RunResult

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 500, 16, 206
# Lines end at one height, so their names stand below each other and their strokes tell them apart.
DASHES = ("", "7 4", "2 4", "10 3 2 3")
NAME_GAP = 16.0


@dataclass(frozen=True)
class SearchLine:
    """One target: `path` is its staircase, `end` where its name stands, `dashes` what tells it apart."""

    target: str
    path: str
    end: float
    dashes: str


@dataclass(frozen=True)
class SearchPlot:
    """The curves of all targets over the trials; `summary` says in words what they show."""

    lines: tuple[SearchLine, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    summary: str


def search_plot(result: RunResult) -> SearchPlot | None:
    """The share of the final front's hypervolume after each trial; None with fewer than two trials.

    The reference is the slowest and worst of what was tried there (Zitzler and Thiele, 1998): its own value
    says nothing, its growth does.
    """
    curves = {target: shares(result, target) for target in result.targets}
    curves = {target: found for target, found in curves.items() if len(found) > 1}
    if not curves:
        return None
    longest = max(map(len, curves.values()))
    across, up = Scale(1.0, float(longest), LEFT, RIGHT), Scale(0.0, 1.0, BOTTOM, TOP)
    lines = tuple(
        SearchLine(
            target, _stairs(found, across, up), up(1.0) + 4 + NAME_GAP * place, DASHES[place % len(DASHES)]
        )
        for place, (target, found) in enumerate(curves.items())
    )
    halves = {name: 1 + next(i for i, s in enumerate(found) if s >= 0.5) for name, found in curves.items()}
    told = "; ".join(f"on {name} half of it was found by trial {number}" for name, number in halves.items())
    whole = [tick for tick in ticks(across, min(8, longest - 1)) if "." not in tick.label]
    return SearchPlot(lines, tuple(whole), ticks(up, 4), f"Share of the final Pareto front's area: {told}")


def shares(result: RunResult, target: str) -> list[float]:
    """Of the final hypervolume, after each trial; empty where no trial was measured there."""
    sign = 1.0 if result.higher_is_better else -1.0
    tried = sorted(result.points, key=lambda point: point.number)
    known = [point for point in tried if is_drawable(point, target)]
    if not known:
        return []
    slowest = 1.01 * max(point.latency_ms[target] for point in known)
    scores = [sign * point.accuracy for point in known]
    worst = min(scores) - 0.01 * max(1e-9, max(scores) - min(scores), abs(min(scores)))
    found, grown = [], []
    for point in tried:
        if is_drawable(point, target):
            found.append((point.latency_ms[target], sign * point.accuracy))
        grown.append(hypervolume(found, (slowest, worst)))
    return [area / grown[-1] for area in grown] if grown[-1] > 0 else []


def _stairs(found: Sequence[float], across: Scale, up: Scale) -> str:
    path = f"M{across(1.0)} {up(found[0])}"
    for number, share in enumerate(found[1:], start=2):
        path += f"H{across(float(number))}V{up(share)}"
    return path
