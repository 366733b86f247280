"""How well surrogates rank plans that they have not seen: rank correlation by cross-validation (Spearman)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from device_bench.protocol import Record
from pipeline.tables.table_task import Surrogate
from pipeline.tables.task_table import TaskTable

FOLDS = 5


class Fidelity(Record):
    """Rank correlations on unseen whole plans; `latency` by setting. `plans`: how many were ranked."""

    name: str
    plans: int
    accuracy: float
    latency: dict[str, float]


def fidelity_of(table: TaskTable, seed: int = 0) -> Fidelity:
    """Each whole plan predicted by surrogates that were fitted without its fold; single changes are in all.

    Raises:
        BadInputError: the table has too few rows.
    """
    from scipy.stats import spearmanr

    whole = (table.options != 0).sum(1) > 1
    fold = np.where(whole, np.random.default_rng(seed).integers(0, FOLDS, len(whole)), -1)
    settings = list(table.header.settings)
    predicted = {name: np.full(len(whole), np.nan) for name in ["accuracy", *settings]}
    for number in range(FOLDS):
        left_out = fold == number
        if not left_out.any():
            continue
        surrogate = Surrogate(_rows(table, ~left_out))
        predicted["accuracy"][left_out] = surrogate.accuracy(table.options[left_out])
        for name in settings:
            predicted[name][left_out] = surrogate.latency_ms(table.options[left_out], name)
    found = {}
    for name, values in predicted.items():
        truth = table.accuracy if name == "accuracy" else table.latency_ms[name]
        known = whole & np.isfinite(truth) & np.isfinite(values)
        found[name] = float(spearmanr(values[known], truth[known]).statistic)
    return Fidelity(
        name=table.header.name,
        plans=int(whole.sum()),
        accuracy=found["accuracy"],
        latency={name: found[name] for name in settings},
    )


def _rows(table: TaskTable, chosen: np.ndarray) -> TaskTable:
    columns = {name: column[chosen] for name, column in table.latency_ms.items()}
    return replace(table, options=table.options[chosen], accuracy=table.accuracy[chosen], latency_ms=columns)
