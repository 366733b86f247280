"""The table of trials: one row a trial, the same in a terminal and in Prefect's pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.experience import Trial

Row = dict[str, str]


def trial_rows(trials: Iterable[Trial], targets: Sequence[str]) -> list[Row]:
    """A row for each trial by its number, the last record of it; every row has the same keys.

    Scores are on the search split: before recovery, after a rehearsal, after recovery. Latency is p50 in ms.
    `changes`: units and blocks that the plan treats otherwise than the original.
    """
    latest = {trial.number: trial for trial in trials}
    return [_row(latest[number], targets) for number in sorted(latest)]


def _row(trial: Trial, targets: Sequence[str]) -> Row:
    cut = len(trial.plan.units) + len(trial.plan.removed)
    return {
        "trial": str(trial.number),
        "by": trial.origin,
        "before": _score(trial.accuracy),
        "rehearsed": _score(trial.accuracy_rehearsed),
        "recovered": _score(trial.accuracy_recovered),
        **{f"ms on {name}": _latency(trial, name) for name in targets},
        "changes": str(cut),
        "plan": trial.plan.plan_id,
        "failure": "" if trial.failure is None else f"{trial.failure.kind}: {trial.failure.message}",
    }


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _latency(trial: Trial, target: str) -> str:
    value = trial.latency_ms.get(target)
    return "" if value is None else f"{value:.4f}"
