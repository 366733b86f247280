from __future__ import annotations

from pathlib import Path

from pipeline.tables.fidelity import fidelity_of
from pipeline.tables.task_table import TaskTable

RECORDED = Path(__file__).parents[3] / "policies" / "tables" / "cnn-fashion-mnist.safetensors"


def test_surrogates_rank_recorded_plans_that_they_have_not_seen() -> None:
    table = TaskTable.load(RECORDED)
    found = fidelity_of(table)
    assert found.name == table.header.name
    assert found.plans == ((table.options != 0).sum(1) > 1).sum()
    assert found.accuracy > 0.9
    assert set(found.latency) == set(table.header.settings)
