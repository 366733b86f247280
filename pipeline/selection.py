"""Which trial is worth a recovery, given that a recovery is the dearest part of a run.

A trial's accuracy before recovery says little of what recovery brings back: a removed block comes back more
easily than a narrow end. So some trials are rehearsed: recovered for a short while, as on the first rung of
successive halving (Jamieson and Talwalkar, "Non-stochastic best arm identification", 2016). What recovery
leaves of a loss is forecast as drop = c * loss^2 where there was no rehearsal (small losses come back wholly,
large ones do not) and as drop = c * loss where there was one. c is learned from the recoveries made so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import median

from pipeline.data.base import Metric
from pipeline.experience import Trial

# c before any recovery: what is lost for good is a point where 70 were lost before recovery.
FIRST_FORECAST = 1.0 / 70.0**2
# A rehearsal's share of a recovery's epochs, and its fewest steps: in fewer the rate of learning does more
# harm than the samples do good. A CNN on digits went from 92 to 66 % in five; all 56 brought such plans back.
REHEARSAL_SHARE, FEWEST_STEPS = 1.0 / 12.0, 100
# The share of a loss after such a rehearsal that recovery leaves: three plans of ResNet-20 on CIFAR-10 that
# lost 7.5, 11.9 and 23.2 points after one epoch lost 0.6, 2.5 and 5.5 after seven or eight.
FIRST_REHEARSED_SHARE = 0.22
# The share of a drop on samples that both have seen which shows on unseen ones. See ADR 0003.
SEEN_DROP_COUNTS = 1.0 / 3.0
# A candidate that is less than this much faster is not worth a recovery of its own.
WORTHWHILE = 1.04


@dataclass(frozen=True)
class Yardstick:
    """What a candidate is held against.

    `float_score` is the original's on the search split, which unrecovered candidates are ranked by.
    `fair_score` is the original's on the split that recovered candidates are judged on, and `counts` the
    share of a drop there that an unseen split shows. Both scores are the same, and all of a drop counts,
    unless the original was trained on the search split: see ADR 0003. `rehearsed` is the share of a recovery
    that rehearsals were; after a whole one nothing more comes back.
    """

    metric: Metric
    float_score: float
    fair_score: float
    counts: float = 1.0
    rehearsed: float = REHEARSAL_SHARE

    def drop(self, score: float) -> float:
        """Points that a recovered candidate is held to lose on unseen samples; negative is a gain."""
        return self.counts * self.metric.drop(self.fair_score, score)

    def loss_before_recovery(self, trial: Trial) -> float:
        """Points lost before recovery, never below zero: after the rehearsal, if there was one."""
        if trial.accuracy_rehearsed is not None:
            return max(0.0, self.drop(trial.accuracy_rehearsed))
        return self.loss_unrehearsed(trial)

    def loss_unrehearsed(self, trial: Trial) -> float:
        """Points that the trial lost before anything was brought back, never below zero."""
        return max(0.0, self.metric.drop(self.float_score, trial.accuracy or 0.0))


@dataclass(frozen=True)
class Forecast:
    """drop = factor * loss^power of a trial that was not recovered yet."""

    factor: float
    power: int

    @classmethod
    def of(cls, yardstick: Yardstick, trials: Sequence[Trial], *, rehearsed: bool) -> Forecast:
        """The median over the recovered ones of `trials`, no less than a tenth of what it is before any.

        Args:
            rehearsed: whether the trials to forecast were rehearsed: only recovered ones that were too tell.
        """
        ahead = (1.0 - yardstick.rehearsed) / (1.0 - REHEARSAL_SHARE)
        first, power = (FIRST_REHEARSED_SHARE**ahead, 1) if rehearsed else (FIRST_FORECAST, 2)
        factors = [
            yardstick.drop(trial.accuracy_recovered) / yardstick.loss_before_recovery(trial) ** power
            for trial in trials
            if trial.accuracy_recovered is not None
            and (trial.accuracy_rehearsed is not None) == rehearsed
            and yardstick.loss_before_recovery(trial) > 0
        ]
        return cls(max(first / 10, median(factors)) if factors else first, power)

    def drop(self, loss: float) -> float:
        """Points that are forecast to be lost for good."""
        return self.factor * loss**self.power


def rehearsal_share(recovery_epochs: float, steps_an_epoch: int) -> float:
    """The share of a recovery that a rehearsal is: all of it where that has few steps."""
    fewest = FEWEST_STEPS / max(1.0, recovery_epochs * steps_an_epoch)
    return min(1.0, max(REHEARSAL_SHARE, fewest))


def to_rehearse(
    trials: Sequence[Trial], targets: Sequence[str], yardstick: Yardstick, max_drop: float, count: int
) -> list[Trial]:
    """Up to `count` trials to rehearse, taken in turn for each target.

    For a target they are those that no other one beats in both latency and loss, first where the forecast is
    nearest to `max_drop`: there it decides. What was rehearsed or recovered before makes no difference, so a
    resumed run takes the same ones.
    """
    lines = [_rehearsal_line(trials, target, yardstick, max_drop) for target in targets]
    found: list[Trial] = []
    for turn in range(max(map(len, lines), default=0)):
        for line in lines:
            if turn < len(line) and line[turn] not in found and len(found) < count:
                found.append(line[turn])
    return found


def _rehearsal_line(
    trials: Sequence[Trial], target: str, yardstick: Yardstick, max_drop: float
) -> list[Trial]:
    usable = [trial for trial in trials if trial.failure is None and target in trial.latency_ms]
    figures = {t.number: (t.latency_ms[target], yardstick.loss_unrehearsed(t)) for t in usable}

    def beaten(number: int) -> bool:
        latency, loss = figures[number]
        return any(
            ms <= latency and lost <= loss and (ms, lost) != (latency, loss) for ms, lost in figures.values()
        )

    front = [trial for trial in usable if not beaten(trial.number)]
    decisive = sqrt(max_drop / FIRST_FORECAST)
    return sorted(front, key=lambda t: (abs(figures[t.number][1] - decisive), figures[t.number][0]))


def next_to_recover(
    trials: Sequence[Trial], target: str, yardstick: Yardstick, max_drop: float
) -> Trial | None:
    """The trial that `target` should see recovered next, or None if none promises more than what there is.

    It is the fastest trial that the forecast puts within `max_drop`, if it is faster than every recovered
    trial that is within it; if the forecast puts none within, the one with the least loss. Where trials were
    rehearsed, it is one of those.
    """
    usable = [trial for trial in trials if trial.failure is None and target in trial.latency_ms]
    rehearsed = [trial for trial in usable if trial.accuracy_rehearsed is not None]
    usable = rehearsed or usable
    good = [
        t
        for t in usable
        if t.accuracy_recovered is not None and yardstick.drop(t.accuracy_recovered) <= max_drop
    ]
    bad = [t for t in usable if t.accuracy_recovered is not None and t not in good]
    ceiling = min((trial.latency_ms[target] for trial in good), default=float("inf")) / WORTHWHILE
    hopeless = min((yardstick.loss_before_recovery(trial) for trial in bad), default=float("inf"))
    open_trials = [
        trial
        for trial in usable
        if trial.accuracy_recovered is None
        and trial.latency_ms[target] < ceiling
        and yardstick.loss_before_recovery(trial) < hopeless
    ]
    if not open_trials:
        return None
    forecast = Forecast.of(yardstick, trials, rehearsed=bool(rehearsed))
    promising = [t for t in open_trials if forecast.drop(yardstick.loss_before_recovery(t)) <= max_drop]
    if promising:
        return min(promising, key=lambda trial: trial.latency_ms[target])
    return None if good else min(open_trials, key=yardstick.loss_before_recovery)


def best_recovered(
    trials: Sequence[Trial], target: str, yardstick: Yardstick, max_drop: float
) -> Trial | None:
    """The fastest recovered trial within `max_drop` on `target`; without one, the one that loses least."""
    there = [t for t in trials if t.accuracy_recovered is not None and target in t.latency_ms]
    if not there:
        return None
    within = [t for t in there if yardstick.drop(t.accuracy_recovered or 0.0) <= max_drop]
    if within:
        return min(within, key=lambda trial: trial.latency_ms[target])
    return min(there, key=lambda trial: yardstick.drop(trial.accuracy_recovered or 0.0))
