"""Which trial is worth a recovery, given that a recovery is the dearest part of a run.

A trial's accuracy before recovery ranks it; how much of its loss recovery brings back must be forecast. The
forecast is one number, the share of the loss that stays, learned from the recoveries made so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from pipeline.data.base import Metric
from pipeline.experience import Trial

# Seen on ResNet-20 with CIFAR-10: of 34 points lost before recovery, 0.3 to 1 stayed after 24 epochs.
SHARE_THAT_STAYS = 0.02
# A candidate that is less than this much faster is not worth a recovery of its own.
WORTHWHILE = 1.04


@dataclass(frozen=True)
class Yardstick:
    """What a candidate is held against.

    `float_score` is the original's on the search split, which unrecovered candidates are ranked by.
    `fair_score` is the original's on the split that recovered candidates are judged on. Both are the same
    unless the original was trained on the search split; see ADR 0003.
    """

    metric: Metric
    float_score: float
    fair_score: float

    def drop(self, score: float) -> float:
        """Points that a recovered candidate loses against the fair score; negative is a gain."""
        return self.metric.drop(self.fair_score, score)

    def loss_before_recovery(self, trial: Trial) -> float:
        """Points that the trial lost before recovery, never below zero."""
        return max(0.0, self.metric.drop(self.float_score, trial.accuracy or 0.0))


def share_that_stays(yardstick: Yardstick, recovered: Sequence[Trial]) -> float:
    """Median over recovered trials of (points lost after recovery) / (points lost before), at least 0.1 %."""
    shares = [
        max(0.0, yardstick.drop(trial.accuracy_recovered)) / yardstick.loss_before_recovery(trial)
        for trial in recovered
        if trial.accuracy_recovered is not None and yardstick.loss_before_recovery(trial) > 0
    ]
    return max(1e-3, median(shares)) if shares else SHARE_THAT_STAYS


def next_to_recover(
    trials: Sequence[Trial], target: str, yardstick: Yardstick, max_drop: float
) -> Trial | None:
    """The trial that `target` should see recovered next, or None if none promises more than what there is.

    It is the fastest trial that the forecast puts within `max_drop`, if it is faster than every recovered
    trial that is within it; if the forecast puts none within, the one with the least loss.
    """
    recovered = [trial for trial in trials if trial.accuracy_recovered is not None]
    usable = [trial for trial in trials if trial.failure is None and target in trial.latency_ms]
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
    stays = share_that_stays(yardstick, recovered)
    promising = [t for t in open_trials if stays * yardstick.loss_before_recovery(t) <= max_drop]
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
