"""What was found, in words for the screen and the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.experience import Trial
from pipeline.policy.base import PolicyContext
from pipeline.selection import Yardstick, best_recovered


def best_trial_in_words(trials: Sequence[Trial], context: PolicyContext) -> str:
    """The trial with the highest reward, its speed-up on each target and its loss; empty without one."""
    judged = [(trial.reward.total, trial) for trial in trials if trial.reward is not None]
    if not judged:
        return ""
    best = max(judged, key=lambda pair: pair[0])[1]
    ratios = {target.name: context.speedup(best, target.name) for target in context.targets}
    speeds = [f"{ratio:.2f}× on {name}" for name, ratio in ratios.items() if ratio is not None]
    lost = _points(context.drop(best.accuracy or 0.0))
    return f"trial {best.number}: {', '.join(speeds)}, {lost} before recovery"


def best_recovered_in_words(
    trials: Sequence[Trial], target: str, yardstick: Yardstick, max_drop: float
) -> str:
    """The recovered trial that the target would get now; empty without one."""
    best = best_recovered(trials, target, yardstick, max_drop)
    if best is None:
        return ""
    lost = _points(yardstick.drop(best.accuracy_recovered or 0.0))
    return f"trial {best.number}: {best.latency_ms[target]:.3f} ms on {target}, {lost} after recovery"


def latency_in_words(latency_ms: Mapping[str, float]) -> str:
    """ "0.014 ms on local-onnxruntime, 0.003 ms on local-litert"."""
    return ", ".join(f"{value:.3f} ms on {name}" for name, value in latency_ms.items())


def _points(drop: float) -> str:
    return f"{abs(drop):.2f} points {'lost' if drop >= 0 else 'gained'}"
