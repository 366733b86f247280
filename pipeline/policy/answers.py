"""What a recorded task answers of plans, in the form in which policies predict it."""

from __future__ import annotations

import numpy as np

from pipeline.policy.plan_search import Outlook
from pipeline.tables.codec import Options
from pipeline.tables.table_task import TableTask


def answers(task: TableTask, least_gain: float, rows: Options) -> Outlook:
    """The outcomes of plans [n, positions] by the task's surrogates, without doubt.

    Args:
        least_gain: what knows less counts as this, so that its damage has an end.
    """
    context = task.context
    gains = np.array([context.gain(float(accuracy)) for accuracy in task.accuracy(rows)])
    cost = task.latency_ms(rows) / context.base_latency_ms[task.setting]
    sure = np.zeros(len(rows))
    return Outlook(-np.log(np.clip(gains, least_gain, 1.0)), sure, cost, sure)
