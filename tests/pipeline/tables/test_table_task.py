from __future__ import annotations

from pathlib import Path

import pytest

from device_bench.errors import BadInputError
from pipeline.plan import CompressionPlan
from pipeline.tables.table_task import TableTask
from pipeline.tables.task_table import TaskTable
from pipeline.tables.trial_task import point

RECORDED = Path(__file__).parents[3] / "policies" / "tables" / "mlp-digits.safetensors"


@pytest.fixture(scope="module")
def table() -> TaskTable:
    return TaskTable.load(RECORDED)


@pytest.fixture(scope="module")
def task(table: TaskTable) -> TableTask:
    return TableTask.of(table, next(iter(table.header.settings)))


def test_equal_plans_have_equal_outcomes(task: TableTask) -> None:
    plan = task.context.space.uniform(0.5)
    assert task.run(plan, 0, "here") == task.run(plan, 0, "here")


def test_the_original_lies_near_one_and_one(task: TableTask) -> None:
    found = point(task, task.run(CompressionPlan(), 0, "original"))
    assert found == pytest.approx((1.0, 1.0), abs=0.15)


def test_narrow_plans_are_faster_and_worse(task: TableTask) -> None:
    narrow, wide = (point(task, task.run(task.context.space.uniform(k), 0, "")) for k in (0.25, 0.9))
    assert narrow is not None and wide is not None
    assert narrow[0] < wide[0] and narrow[1] < wide[1]


def test_effects_are_told_only_where_probed(table: TaskTable, task: TableTask) -> None:
    assert task.context.effects
    assert TableTask.of(table, task.setting, probed=False).context.effects == {}


def test_an_unknown_setting_is_refused_by_name(table: TaskTable) -> None:
    with pytest.raises(BadInputError, match="nowhere@7"):
        TableTask.of(table, "nowhere@7")
