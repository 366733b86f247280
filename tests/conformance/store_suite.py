"""What every experience store must do; a test class inherits it and gives a `store` fixture."""

from __future__ import annotations

import pytest
from small_graphs import chain_graph, context_of

from device_bench.errors import BadInputError
from pipeline.experience import ExperienceStore, Trial
from pipeline.plan import CompressionPlan, UnitChoice
from pipeline.task import Budget, ModelSpec, Task
from pipeline.task_record import TaskRecord


def some_trial(number: int, accuracy: float = 80.0) -> Trial:
    return Trial(
        number=number,
        plan=CompressionPlan(units={"conv1": UnitChoice(keep_ratio=0.5)}, removed=("layer1.0",)),
        origin="greedy",
        accuracy=accuracy,
        latency_ms={"local-litert": 0.1 + 0.2},
        peak_memory_bytes={"local-litert": 1 << 40},
    )


def some_task(data: str = "digits") -> TaskRecord:
    context = context_of(chain_graph())
    task = Task(
        model=ModelSpec(source="mlp", input_shape=(1, 8, 8), outputs=10),
        data=data,
        targets=context.targets,
        budget=Budget(max_drop=2.0),
    )
    return TaskRecord.of(task, context, {})


class StoreSuite:
    """Inherit it beside a `store` fixture that gives an empty store."""

    def test_is_empty_at_first(self, store: ExperienceStore) -> None:
        assert store.trials() == ()

    def test_gives_back_what_was_added_in_order(self, store: ExperienceStore) -> None:
        trials = tuple(some_trial(number, 80.0 + number / 3) for number in (2, 0, 1))
        for trial in trials:
            store.add("run", "task", trial)
        assert store.trials() == trials

    def test_finds_trials_by_run_and_by_task(self, store: ExperienceStore) -> None:
        store.add("run-1", "task-a", some_trial(0, 1.0))
        store.add("run-2", "task-a", some_trial(0, 2.0))
        store.add("run-3", "task-b", some_trial(0, 3.0))
        assert [t.accuracy for t in store.trials(run_id="run-2")] == [2.0]
        assert [t.accuracy for t in store.trials(task_fingerprint="task-a")] == [1.0, 2.0]
        assert store.trials(run_id="run-3", task_fingerprint="task-a") == ()

    def test_adding_the_same_again_changes_nothing(self, store: ExperienceStore) -> None:
        store.add("run", "task", some_trial(0))
        store.add("run", "task", some_trial(0))
        assert store.trials() == (some_trial(0),)

    def test_a_later_record_of_a_trial_takes_its_place(self, store: ExperienceStore) -> None:
        for number in range(3):
            store.add("run", "task", some_trial(number))
        recovered = some_trial(1).model_copy(update={"accuracy_recovered": 86.0})
        store.add("run", "task", recovered)
        assert store.trials() == (some_trial(0), recovered, some_trial(2))

    def test_a_run_of_another_task_is_not_overwritten(self, store: ExperienceStore) -> None:
        store.add("run", "task-a", some_trial(0, 80.0))
        with pytest.raises(BadInputError, match=r"run run .* is of task task-a"):
            store.add("run", "task-b", some_trial(0, 81.0))
        assert store.trials() == (some_trial(0, 80.0),)

    def test_keeps_infinite_and_absent_figures(self, store: ExperienceStore) -> None:
        trial = some_trial(0).model_copy(update={"latency_ms": {"a": float("inf")}})
        store.add("run", "task", trial)
        assert store.trials() == (trial,)

    def test_tasks_are_kept_by_fingerprint_the_last_record_of_each(self, store: ExperienceStore) -> None:
        assert store.tasks() == {}
        first, other = some_task(), some_task("fashion-mnist")
        later = first.model_copy(update={"float_accuracy": 12.5})
        for record in (first, other, other, later):
            store.add_task(record)
        assert store.tasks() == {later.fingerprint: later, other.fingerprint: other}

    def test_tells_the_run_and_the_task_of_each_trial(self, store: ExperienceStore) -> None:
        store.add("run-1", "task-a", some_trial(0))
        store.add("run-2", "task-b", some_trial(0))
        found = [(entry.run_id, entry.task_fingerprint) for entry in store.entries()]
        assert found == [("run-1", "task-a"), ("run-2", "task-b")]
