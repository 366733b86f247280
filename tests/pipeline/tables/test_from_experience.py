from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from known_tasks import KnownTask, residual_task

from device_bench.protocol import Failure, FailureKind
from pipeline.experience import StoredTrial, Trial
from pipeline.plan import CompressionPlan
from pipeline.tables.from_experience import HeldBack, tables_of
from pipeline.task import Budget, ModelSpec, Task
from pipeline.task_record import TaskRecord

TARGET = "local-litert"
SETTING = f"{TARGET}@1"
CONTEXT = residual_task(TARGET).context


def record_of(max_drop: float = 1.0, slower: float = 1.0) -> TaskRecord:
    task = Task(
        model=ModelSpec(source="mine:net", input_shape=(3, 32, 32), outputs=10),
        data="made-up",
        targets=CONTEXT.targets,
        budget=Budget(max_drop=max_drop),
    )
    base = {TARGET: slower * CONTEXT.base_latency_ms[TARGET]}
    return TaskRecord.of(task, replace(CONTEXT, base_latency_ms=base), dict(CONTEXT.effects))


def entries_of(record: TaskRecord, count: int, seed: int, slower: float = 1.0) -> list[StoredTrial]:
    task: KnownTask = residual_task(TARGET)
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        trial = task.run(task.context.space.sample(rng), number, "random")
        trial = trial.model_copy(update={"latency_ms": {TARGET: slower * trial.latency_ms[TARGET]}})
        found.append(StoredTrial(run_id=f"r{seed}", task_fingerprint=record.fingerprint, trial=trial))
    return found


def test_runs_of_one_model_make_one_table() -> None:
    first, second = record_of(1.0), record_of(2.0)
    entries = entries_of(first, 20, 0) + entries_of(second, 20, 1)
    found = tables_of(entries, {one.fingerprint: one for one in (first, second)})
    (table,) = found.tables
    assert found.left_out == {}
    assert len(table.accuracy) == 40 + 2 * len(first.probes)
    assert set(table.latency_ms) == {SETTING}
    assert table.header.name == "mine:net/made-up"


def test_latencies_of_a_slower_day_are_put_in_proportion() -> None:
    first, second = (
        record.model_copy(update={"probes": ()}) for record in (record_of(1.0), record_of(2.0, slower=2.0))
    )
    tasks = {one.fingerprint: one for one in (first, second)}
    quick = tables_of(entries_of(first, 30, 0), tasks).tables[0]
    slow = tables_of(entries_of(second, 30, 0, slower=2.0), tasks).tables[0]
    assert slow.header == quick.header
    assert slow.latency_ms[SETTING] == pytest.approx(quick.latency_ms[SETTING], rel=1e-5)


def test_failed_trials_and_foreign_plans_are_no_rows() -> None:
    record = record_of()
    failure = Failure(kind=FailureKind.UNREACHABLE, message="gone")
    foreign = CompressionPlan(removed=("elsewhere",))
    odd = [
        Trial(number=90, plan=CompressionPlan(), origin="x", failure=failure),
        Trial(number=91, plan=foreign, origin="x", accuracy=80.0, latency_ms={TARGET: 1.0}),
        Trial(number=92, plan=CompressionPlan(), origin="x", accuracy=float("nan")),
    ]
    entries = entries_of(record, 30, 0)
    more = [StoredTrial(run_id="r", task_fingerprint=record.fingerprint, trial=trial) for trial in odd]
    plain, mixed = (tables_of(es, {record.fingerprint: record}).tables[0] for es in (entries, entries + more))
    assert np.array_equal(plain.accuracy, mixed.accuracy)


@pytest.mark.parametrize(
    ("held", "count", "told"),
    [
        (HeldBack(models=frozenset({"mine:net"})), 30, "it is held out"),
        (HeldBack(data=frozenset({"made-up"})), 30, "it is held out"),
        (HeldBack(settings=frozenset({SETTING})), 30, "it is held out"),
        (HeldBack(), 5, "whole plans were tried, fewer than 24"),
    ],
)
def test_what_is_held_out_or_too_little_is_left_out_and_said(held: HeldBack, count: int, told: str) -> None:
    record = record_of()
    found = tables_of(entries_of(record, count, 0), {record.fingerprint: record}, held)
    assert found.tables == ()
    assert told in found.left_out["mine:net/made-up"]


def test_trials_of_unknown_tasks_and_an_empty_store_make_no_tables() -> None:
    record = record_of()
    assert tables_of(entries_of(record, 30, 0), {}).tables == ()
    assert tables_of([], {}).tables == ()
