"""Prune, train and test, again and again, until the accuracy would break: how much to prune, by halving.

The lighter half of what is left to try is entered where a trained plan stays within the budget, the heavier
one where it does not; the last good plan is the result. A run trains every plan of this policy at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Novelty, PolicyContext, shape_of
from pipeline.policy.uniform import ladder


class BisectionPolicy:
    """Halves the ladder of uniform plans between the last that was good and the first that was not.

    Once nothing is left between the two, the rungs around them follow, since accuracy does not fall evenly.
    """

    name = "bisection"

    def propose(self, context: PolicyContext, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        """The middle of what is left; of several, the middles of its halves as well."""
        rungs = ladder(context.space)
        good, bad = last_good(context, history, rungs)
        around = sorted(range(len(rungs)), key=lambda i: (abs(i - good), i))
        novelty = Novelty(history)
        found: list[CompressionPlan] = []
        for place in (*middles(good + 1, bad), *around):
            if len(found) == count:
                break
            if novelty.admits(rungs[place]):
                found.append(rungs[place])
        return found


def last_good(
    context: PolicyContext, history: Sequence[Trial], rungs: Sequence[CompressionPlan]
) -> tuple[int, int]:
    """Of the rungs that were tried, the last within the budget and the first that is not.

    The original, rung 0, is within it; one behind the last rung is not. Accuracy is what training has left,
    or where nothing was trained what the cut has.
    """
    places = {shape_of(plan): place for place, plan in enumerate(rungs)}
    tried = {}
    for trial in history:
        place = places.get(shape_of(trial.plan))
        known = (trial.accuracy_recovered, trial.accuracy_rehearsed, trial.accuracy)
        accuracy = next((each for each in known if each is not None), None)
        if place is not None and accuracy is not None:
            # What diverged is no number, and not within any budget.
            tried[place] = context.drop(accuracy) <= context.budget.max_drop
    bad = min((place for place, kept in tried.items() if not kept), default=len(rungs))
    return max((place for place, kept in tried.items() if kept and place < bad), default=0), bad


def middles(first: int, end: int) -> Iterator[int]:
    """All places from `first` to before `end`: the middle, the middles of both halves, and so on."""
    parts = [(first, end)]
    while parts:
        following = []
        for low, high in parts:
            if low < high:
                middle = (low + high) // 2
                yield middle
                following += [(low, middle), (middle + 1, high)]
        parts = following
