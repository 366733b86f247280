"""How much to prune when: ratios as a function of the step, and a ratio found by trying."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from device_bench.errors import BadInputError
from pipeline.layer_choice import Schedule

Made = TypeVar("Made")


def ratio_at(schedule: Schedule, step: int, steps: int, final: float) -> float:
    """The ratio to prune by after `step` of `steps`; `final` at the end.

    - constant: all of it at once.
    - linear: final · t.
    - cubic: final · (1 − (1 − t)³), fast while much is redundant (Zhu and Gupta, "To prune, or not to
      prune", 2017).
    - one_cycle: final · (1 + e^(−a + b)) / (1 + e^(−a t + b)) with a = 14, b = 5: late and then at once
      (Hubens et al., "One-Cycle Pruning", ICIP 2022).

    Raises:
        BadInputError: a step or the final ratio is out of range.
    """
    if steps < 1 or not 0 <= step <= steps:
        raise BadInputError(f"a schedule has steps from 0 to {max(steps, 1)}; got step {step} of {steps}")
    if not 0.0 <= final < 1.0:
        raise BadInputError(f"the final ratio must be from 0 to below 1; got {final}")
    t = step / steps
    if schedule == "constant":
        return final
    if schedule == "linear":
        return final * t
    if schedule == "cubic":
        return final * (1.0 - (1.0 - t) ** 3)
    return final * (1.0 + math.exp(-14.0 + 5.0)) / (1.0 + math.exp(-14.0 * t + 5.0))


@dataclass(frozen=True)
class Tried(Generic[Made]):
    """The last good one of a search for a ratio.

    Args:
        ratio: what was pruned by.
        accuracy: what was left.
        made: what the attempt made.
        attempts: ratio and accuracy of each, in order.
    """

    ratio: float
    accuracy: float
    made: Made
    attempts: tuple[tuple[float, float], ...]


def prune_until(
    attempt: Callable[[float], tuple[Made, float]], least_accuracy: float, most: float, tries: int
) -> Tried[Made] | None:
    """Prune, train and test at ratios that halve the interval in question; the last good one, if any was.

    Args:
        attempt: prunes the original by a ratio and trains it; gives what it made and its accuracy.
        least_accuracy: what must be left.
        most: the largest ratio to try, which is tried first.
        tries: attempts at most.

    Raises:
        BadInputError: `most` or `tries` is out of range.
    """
    if not 0.0 < most < 1.0 or tries < 1:
        raise BadInputError(
            f"the largest ratio must be between 0 and 1 and tries at least 1; got {most} and {tries}"
        )
    good: Tried[Made] | None = None
    attempts: list[tuple[float, float]] = []
    low, high, ratio = 0.0, most, most
    for _ in range(tries):
        made, accuracy = attempt(ratio)
        attempts.append((ratio, accuracy))
        if accuracy >= least_accuracy:
            good, low = Tried(ratio, accuracy, made, ()), ratio
            if ratio == most:
                break
        else:
            high = ratio
        ratio = (low + high) / 2
    return None if good is None else Tried(good.ratio, good.accuracy, good.made, tuple(attempts))


def keep_by_contribution(contributions: torch.Tensor, threshold: float, keep: float, epoch: int) -> float:
    """The keep ratio after an epoch: channels above the threshold stay, room for others shrinks by a step.

    keep ← min(keep, max(share above the threshold, keep · (1 − α))) with α = min(1, 1 / (epoch + 1)), the
    share that shrinks.

    Args:
        contributions: C_j of each channel, [width].
        keep: the ratio before.
        epoch: from 1.

    Raises:
        BadInputError: the epoch is below 1.
    """
    if epoch < 1:
        raise BadInputError(f"epochs count from 1; got {epoch}")
    above = float((contributions > threshold).float().mean())
    step = min(1.0, 1.0 / (epoch + 1))
    return min(keep, max(above, keep * (1.0 - step)))
