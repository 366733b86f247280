"""How steady the raw latency samples are: one histogram a form, in percent off the form's own median."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from device_bench.errors import BadInputError
from pipeline.report import wording
from pipeline.report.scale import Scale, Tick, ticks
from pipeline.result import RunResult

WIDTH = 560
LEFT, RIGHT = 96, 546
ROW_HEIGHT, TOP = 58, 10
BINS = 90


@dataclass(frozen=True)
class Ridge:
    """One form's histogram. `median` is where zero stands; `beyond` samples lie right of the plot."""

    kind: str
    name: str
    path: str
    base: float
    p50: str
    median: float
    beyond: int
    title: str


@dataclass(frozen=True)
class SamplePlot:
    """All that the template draws for one target."""

    target: str
    height: float
    ridges: tuple[Ridge, ...]
    x_ticks: tuple[Tick, ...]
    summary: str


def sample_plots(result: RunResult, measurements: Mapping[str, Sequence[int]]) -> tuple[SamplePlot, ...]:
    """One plot for each target that has samples.

    Args:
        measurements: raw samples in ns by "<target>/<form>", form being float, plain_int8 or chosen.

    Raises:
        BadInputError: a key names no target or form of this run, or has no samples.
    """
    known = [f"{target}/{kind}" for target in result.targets for kind in wording.FORM_NAMES]
    for key, samples in measurements.items():
        if key not in known:
            raise BadInputError(f"samples are given for {key!r}; this run has: {', '.join(known)}")
        if len(samples) == 0:
            raise BadInputError(f"samples for {key!r} are empty; leave the key out instead")
    plots = []
    for target in result.targets:
        kinds = [kind for kind in wording.FORM_NAMES if f"{target}/{kind}" in measurements]
        if kinds:
            plots.append(_plot(target, {kind: measurements[f"{target}/{kind}"] for kind in kinds}))
    return tuple(plots)


def _plot(target: str, samples_ns: Mapping[str, Sequence[int]]) -> SamplePlot:
    """The axis ends at the largest 98th percentile, so that one stray sample does not squeeze the rest."""
    milliseconds = {kind: np.asarray(ns, np.float64) / 1e6 for kind, ns in samples_ns.items()}
    spreads = [_percent_off(values) for values in milliseconds.values()]
    high = max(2.0, *(float(np.percentile(spread, 98)) for spread in spreads)) * 1.04
    low = min(-1.0, *(float(spread.min()) for spread in spreads)) * 1.04
    scale = Scale(low, high, LEFT, RIGHT)
    ridges = tuple(
        _ridge(kind, values, scale, TOP + ROW_HEIGHT * (row + 1))
        for row, (kind, values) in enumerate(milliseconds.items())
    )
    said = [ridge.title for ridge in ridges]
    return SamplePlot(
        target=target,
        height=TOP + ROW_HEIGHT * len(ridges) + 44,
        ridges=ridges,
        x_ticks=ticks(scale, 6),
        summary=f"Latency samples on {target}. {'; '.join(said)}.",
    )


def _percent_off(values: np.ndarray) -> np.ndarray:
    """Each sample's distance from the median, in percent of the median."""
    median = np.median(values)
    return np.asarray(100 * (values / median - 1)) if median > 0 else np.zeros_like(values)


def _ridge(kind: str, values: np.ndarray, scale: Scale, base: float) -> Ridge:
    spread = _percent_off(values)
    counts, edges = np.histogram(spread, bins=BINS, range=(scale.low, scale.high))
    tall = (ROW_HEIGHT - 12) / max(1, int(counts.max()))
    steps = [f"M{scale(float(edges[0]))} {base}"]
    for count, right in zip(counts, edges[1:], strict=True):
        steps.append(f"V{base - float(count) * tall:.1f}H{scale(float(right))}")
    name = wording.FORM_NAMES[kind]
    median = float(np.median(values))
    title = (
        f"{name}: {wording.counted(len(values), 'sample')}, p50 {wording.milliseconds(median)}, from "
        f"{wording.significant(float(values.min()))} to {wording.milliseconds(float(values.max()))}"
    )
    return Ridge(
        kind=kind,
        name=name,
        path="".join(steps) + f"V{base}Z",
        base=base,
        p50=wording.milliseconds(median),
        median=scale(0.0),
        beyond=int((spread > scale.high).sum()),
        title=title,
    )
