"""Whether a figure that was measured again and again got worse, and since when.

A visit's figure enters as y = ln(figure): a slowdown by a factor is a shift, whatever the level was. A level
is what the visits since its beginning agree on. The last m visits, m = 2 or 3, have left it where each of
them is off by LEAST_SHIFT or more to the same side, and

    |mean(last m) - mean(level)| > t(1 - alpha, nu) * s * sqrt(1/m + 1/n),

the prediction interval for the mean of m further observations (Hahn and Meeker, "Statistical Intervals",
1991, section 4.7), n being the level's visits. One visit alone never decides: on a shared machine any may be
off.

The spread s between visits is learned from the level, and from what is known of such figures before: with a
scaled inverse chi-squared prior of nu0 = PRIOR_VISITS visits of spread s0, s^2 = (nu0 s0^2 + (n - 1) v) / nu
with nu = nu0 + n - 1 (Gelman et al., "Bayesian Data Analysis", 3rd ed., section 2.6), v being the level's
variance about its mean. A few visits so say neither too much nor nothing.

A machine that is now and then busy makes single visits far off, and s so large that nothing is off enough.
Three visits in a row are therefore also held against the level with its outliers brought in: values further
than OUTLIER spreads from the median count as that far (winsorised, Tukey, "The future of data analysis",
1962), with the larger of s0 and 1.4826 times the median absolute deviation as the spread. Two visits that
are far off one after another may both be busy ones; three to the same side seldom are.

History is read from its start. A worse level is told until it goes back or somebody accepts it; a better one
is the new level from its first visit on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import cache
from math import copysign, exp, log, sqrt
from statistics import fmean, median

from device_bench.protocol import Record
from pipeline.fleet.history import FleetMeasurement, Watched
from pipeline.run_comparison import differing_conditions

# A level of fewer visits judges nothing.
LEAST_LEVEL = 3
# More visits make no test sharper; old ones are of another season.
MOST_LEVEL = 30
WINDOWS = (2, 3)
# One-sided. A year of daily visits asks 730 times.
ALPHA = 1e-4
# What nobody would mend is no alarm, however sure.
LEAST_SHIFT = log(1.05)
PRIOR_VISITS = 8
# Of a normal variable, its spread over its median absolute deviation.
MAD_TO_SPREAD = 1.4826
# Spreads from the median beyond which a visit is taken for one of a busy machine.
OUTLIER = 3.0
# Allocators and page sizes make small differences of no meaning.
MEMORY_GRAIN_BYTES = 1 << 20


class Figure(StrEnum):
    """What is judged: `LATENCY` beside the reference's, `MEMORY` as the peak while running."""

    LATENCY = "latency"
    MEMORY = "peak memory"


# Spread between visits, as a share, before any was made.
PRIOR_SPREAD = {Figure.LATENCY: 0.02, Figure.MEMORY: 0.01}


class State(StrEnum):
    """Of one figure now."""

    TOO_FEW = "too few visits"
    STEADY = "steady"
    WORSE = "worse"
    BETTER = "better"


class Finding(Record):
    """One figure of one watched artifact.

    `latest`: the last visit's own figure, p50 in ms or bytes.
    `ratio`, `low`, `high`: the last visits over the level they are held against, with the interval at
    `ALPHA`. `level`, `now`: in the figure's own unit (a multiple of the reference's latency, or bytes).
    `since`: the first visit at the new level. `visits`: that the level rests on. `changed`: what differs in
    the conditions between the level's last visit and the last one, as "what: before → now".
    """

    watched: Watched
    figure: Figure
    state: State
    visits: int
    latest: float
    level: float | None = None
    now: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    since: datetime | None = None
    changed: tuple[str, ...] = ()


def judge(
    visits: Sequence[FleetMeasurement], figure: Figure, accepted_at: datetime | None = None
) -> Finding | None:
    """What the history of one watched artifact says of one figure; None without a visit.

    Latency is judged from the visits beside the last one's reference.

    Args:
        visits: of one watched artifact, the oldest first.
        accepted_at: visits up to then do not count.
    """
    counted = [visit for visit in visits if accepted_at is None or visit.measured_at > accepted_at]
    if not counted:
        return None
    if figure is Figure.LATENCY:
        # A multiple of another reference's latency is another figure.
        counted = [one for one in counted if one.reference_sha256 == counted[-1].reference_sha256]
    values = [_value(visit, figure) for visit in counted]
    shift = last_shift(values, PRIOR_SPREAD[figure])
    watched, latest = counted[-1].watched, _latest(counted[-1], figure)
    if shift is None:
        state = State.STEADY if len(values) >= LEAST_LEVEL + min(WINDOWS) else State.TOO_FEW
        return Finding(watched=watched, figure=figure, state=state, visits=len(values), latest=latest)
    before, last = counted[shift.begin - 1], counted[-1]
    return Finding(
        watched=watched,
        figure=figure,
        state=State.WORSE if shift.mean > 0 else State.BETTER,
        visits=shift.visits,
        latest=latest,
        level=exp(shift.level) - _grain(figure),
        now=exp(shift.level + shift.mean) - _grain(figure),
        ratio=exp(shift.mean),
        low=exp(shift.mean - shift.allowed),
        high=exp(shift.mean + shift.allowed),
        since=counted[shift.begin].measured_at,
        changed=changed_conditions(before, last),
    )


@dataclass(frozen=True)
class Shift:
    """Where values left their level: `begin` is the first index at the new one.

    `mean`: by how much, on the logarithmic scale; `allowed`: how much is still by chance. `level`: the mean
    of the `visits` values before.
    """

    begin: int
    visits: int
    level: float
    mean: float
    allowed: float


def last_shift(values: Sequence[float], prior_spread: float) -> Shift | None:
    """The shift that values stand at after all were read, or None where they are at their level.

    Args:
        values: logarithms of the figure, the oldest first.
        prior_spread: between visits, before any was made.
    """
    # Indices of the values that make the level, and of those that are worse than it.
    level: list[int] = []
    worse: list[int] = []
    told: Shift | None = None

    def shift(
        before: list[int], latest: list[int], seen: Callable[[list[float], float], list[float]] = _as_it_is
    ) -> Shift | None:
        known = seen([values[index] for index in before[-MOST_LEVEL:]], prior_spread)
        found = _shift(known, [values[index] for index in latest], prior_spread)
        return None if found is None else replace(found, begin=latest[0])

    def left(window: int) -> Shift | None:
        found = shift(level[:-window], level[-window:])
        if found is None and window == max(WINDOWS):
            found = shift(level[:-window], level[-window:], winsorised)
        if found is None:
            return None
        off = [copysign(1.0, found.mean) * (values[index] - found.level) for index in level[-window:]]
        return found if min(off) >= LEAST_SHIFT else None

    for index in range(len(values)):
        if worse:
            worse.append(index)
            latest = worse[-min(WINDOWS) :]
            still = shift(level, latest) or shift(level, latest, winsorised)
            if still is not None and still.mean > 0:
                told = shift(level, worse) or told
                continue
            # It went back: what was worse is no part of the level.
            level, worse, told = level + worse[-min(WINDOWS) :], [], None
            continue
        level.append(index)
        told = max(map(left, WINDOWS), key=lambda one: abs(one.mean) - one.allowed if one else 0.0)
        if told is not None:
            cut = level.index(told.begin)
            level, worse = (level[:cut], level[cut:]) if told.mean > 0 else (level[cut:], [])
    return told


def winsorised(level: list[float], prior_spread: float) -> list[float]:
    """The level's values, those far from the median no further than `OUTLIER` spreads."""
    if not level:
        return level
    centre = median(level)
    most = OUTLIER * max(prior_spread, MAD_TO_SPREAD * median(abs(value - centre) for value in level))
    return [min(max(value, centre - most), centre + most) for value in level]


def _as_it_is(level: list[float], prior_spread: float) -> list[float]:
    return level


def _shift(level: Sequence[float], latest: Sequence[float], prior_spread: float) -> Shift | None:
    """The formula at the head of this page; None where chance explains the difference or nobody minds it."""
    if len(level) < LEAST_LEVEL:
        return None
    centre = fmean(level)
    freedom = PRIOR_VISITS + len(level) - 1
    squares = PRIOR_VISITS * prior_spread**2 + sum((value - centre) ** 2 for value in level)
    spread = sqrt(squares / freedom) * sqrt(1.0 / len(latest) + 1.0 / len(level))
    mean, allowed = fmean(latest) - centre, _quantile(freedom) * spread
    if abs(mean) <= allowed or abs(mean) < LEAST_SHIFT:
        return None
    return Shift(begin=0, visits=len(level), level=centre, mean=mean, allowed=allowed)


@cache
def _quantile(freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf(1.0 - ALPHA, freedom))


def _value(visit: FleetMeasurement, figure: Figure) -> float:
    if figure is Figure.LATENCY:
        return log(visit.cost)
    return log(max(0, visit.measurement.memory.peak_bytes) + MEMORY_GRAIN_BYTES)


def _latest(visit: FleetMeasurement, figure: Figure) -> float:
    measured = visit.measurement
    return measured.latency.p50_ms if figure is Figure.LATENCY else float(measured.memory.peak_bytes)


def _grain(figure: Figure) -> float:
    return float(MEMORY_GRAIN_BYTES) if figure is Figure.MEMORY else 0.0


def changed_conditions(before: FleetMeasurement, now: FleetMeasurement) -> tuple[str, ...]:
    """What differs in how two visits were made, each as "what: before → now"."""
    pairs = differing_conditions(before.measurement.conditions, now.measurement.conditions)
    return tuple(f"{name}: {pair.a or 'untold'} → {pair.b or 'untold'}" for name, pair in pairs.items())
