"""Experience goes out to a file and comes back into another store, whole and once."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from click.testing import Result
from known_tasks import residual_task

from flows.cli import app
from pipeline.experience import ExperienceStore, StoredTrial, Trial
from pipeline.plan import RecoveryChoice
from pipeline.policy import load_policy
from pipeline.task import Budget, ModelSpec, Task
from pipeline.task_record import TaskRecord

TARGET = "local-litert"


def run(*arguments: object, code: int = 0) -> str:
    """What the command prints, without the line breaks of a narrow terminal."""
    # Imported here, after flows.cli, which silences a warning of typer's own first import.
    from typer.testing import CliRunner

    result: Result = CliRunner().invoke(app, ["experience", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def record_of(data: str = "digits") -> TaskRecord:
    context = residual_task(TARGET).context
    task = Task(
        model=ModelSpec(source="resnet20", input_shape=(3, 32, 32), outputs=10),
        data=data,
        data_root="/somewhere/of/mine",
        targets=context.targets,
        budget=Budget(max_drop=2.0),
    )
    return TaskRecord.of(task, context, {})


def trials_of(policy: str, count: int) -> list[Trial]:
    known = residual_task(TARGET)
    plans = load_policy(policy).propose(known.context, [], count)
    return [known.run(plan, number, policy) for number, plan in enumerate(plans, start=1)]


def recovered(trial: Trial, accuracy: float) -> Trial:
    plan = trial.plan.model_copy(update={"recovery": RecoveryChoice(epochs=4.0)})
    return trial.model_copy(update={"plan": plan, "accuracy_recovered": accuracy})


def fill(path: Path, run_id: str, trials: list[Trial], record: TaskRecord | None = None) -> None:
    record = record or record_of()
    with ExperienceStore(path) as store:
        store.add_task(record)
        for trial in trials:
            store.add(run_id, record.fingerprint, trial)


def entries(path: Path) -> tuple[StoredTrial, ...]:
    with ExperienceStore(path) as store:
        return store.entries()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two runs of one task: five trials by knapsack, three at random of which one was recovered."""
    path = tmp_path / "mine.sqlite"
    drawn = trials_of("random", 3)
    fill(path, "run-a", trials_of("knapsack", 5))
    fill(path, "run-b", [recovered(drawn[0], 89.5), *drawn[1:]])
    return path


def test_what_is_exported_comes_back_whole(store: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "out.jsonl", tmp_path / "theirs.sqlite"
    assert "8 trials" in run("export", file, "--store", store)
    assert "8 trials added" in run("import", file, "--store", other)
    assert entries(other) == entries(store)
    with ExperienceStore(other) as opened:
        assert opened.tasks() == {record_of().fingerprint: record_of()}
    lines = file.read_text().splitlines()
    assert len(lines) == 9
    assert {json.loads(line)["schema_version"] for line in lines} == {1}
    assert "/somewhere/of/mine" not in file.read_text()


def test_importing_again_doubles_nothing(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    run("export", file, "--store", store)
    before = entries(store)
    assert "0 trials added, 0 completed by their recovery, 8 known before" in run(
        "import", file, "--store", store
    )
    assert entries(store) == before


def test_of_two_records_of_one_trial_the_recovered_one_stays(store: Path, tmp_path: Path) -> None:
    early, late = tmp_path / "early.sqlite", tmp_path / "late.jsonl"
    drawn = trials_of("random", 3)
    fill(early, "run-b", drawn)
    run("export", late, "--store", store)
    assert "5 trials added, 1 completed by their recovery, 2 known before" in run(
        "import", late, "--store", early
    )
    back = tmp_path / "early.jsonl"
    fill(tmp_path / "only-early.sqlite", "run-b", drawn)
    run("export", back, "--store", tmp_path / "only-early.sqlite")
    run("import", back, "--store", early)
    (first,) = [e.trial for e in entries(early) if e.run_id == "run-b" and e.trial.number == 1]
    assert first.accuracy_recovered == 89.5


@pytest.mark.parametrize("case", ["other plans", "other task"])
def test_another_run_of_the_same_name_is_kept_beside(case: str, store: Path, tmp_path: Path) -> None:
    theirs, file = tmp_path / "theirs.sqlite", tmp_path / "theirs.jsonl"
    if case == "other plans":
        fill(theirs, "run-a", trials_of("uniform", 4))
    else:
        fill(theirs, "run-a", trials_of("knapsack", 4), record_of("spoken-digits"))
    run("export", file, "--store", theirs)
    for _ in range(2):
        run("import", file, "--store", store)
    runs = [entry.run_id for entry in entries(store)]
    (name,) = {name for name in runs if name.startswith("run-a~")}
    assert (runs.count("run-a"), runs.count(name), len(runs)) == (5, 4, 12)


def test_stats_tell_by_policy_and_target(store: Path) -> None:
    found = json.loads(run("stats", "--json", "--store", store))["experience"]
    by_policy = {line["policy"]: line for line in found}
    assert set(by_policy) == {"knapsack", "random"}
    assert (by_policy["knapsack"]["runs"], by_policy["knapsack"]["trials"]) == (1, 5)
    base = record_of().base_latency_ms[TARGET]
    trials = [entry.trial for entry in entries(store)]
    fastest = max(base / t.latency_ms[TARGET] for t in trials if t.origin == "knapsack")
    assert by_policy["knapsack"]["best_speedup"] == pytest.approx(fastest)
    assert by_policy["knapsack"]["best_within_budget"] is None
    (kept,) = [t for t in trials if t.accuracy_recovered is not None]
    assert by_policy["random"]["best_within_budget"] == pytest.approx(base / kept.latency_ms[TARGET])


def test_stats_as_a_table(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    shown = run("stats", "--store", store)
    assert "knapsack" in shown
    assert "resnet20" in shown


def test_an_empty_store_says_so(tmp_path: Path) -> None:
    empty = tmp_path / "new.sqlite"
    assert "is empty" in run("stats", "--store", empty)
    assert json.loads(run("stats", "--json", "--store", empty))["experience"] == []
    assert "is empty" in run("export", tmp_path / "out.jsonl", "--store", empty, code=2)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda lines: [*lines[:3], "{}", *lines[3:]], 4),
        (lambda lines: [*lines[:-1], lines[-1][: len(lines[-1]) // 2]], 9),
        (lambda lines: [lines[0].replace('"schema_version":1', '"schema_version":7', 1), *lines[1:]], 1),
        (lambda lines: ["name,price", "pear,3"], 1),
    ],
    ids=["a line of nothing", "torn", "of another version", "something else"],
)
def test_a_damaged_file_is_refused_and_changes_nothing(
    spoil: object, line: int, store: Path, tmp_path: Path
) -> None:
    file, other = tmp_path / "out.jsonl", tmp_path / "theirs.sqlite"
    run("export", file, "--store", store)
    file.write_text("\n".join(spoil(file.read_text().splitlines())) + "\n")  # type: ignore[operator]
    assert f"line {line} is no experience" in run("import", file, "--store", other, code=2)
    assert entries(other) == ()


def test_a_file_that_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    assert "holds no trials" in run("import", tmp_path / "empty.jsonl", "--store", tmp_path / "s", code=2)
    assert "cannot read" in run("import", tmp_path / "none.jsonl", "--store", tmp_path / "s", code=2)


def test_a_store_of_an_earlier_version_gets_its_table_of_tasks(store: Path) -> None:
    with sqlite3.connect(store) as connection:
        # As an edgeloop left it that knew of no revisions.
        for name in ("alembic_version", "fleet_visits", "fleet_acceptances", "tasks"):
            connection.execute(f"drop table {name}")
    connection.close()
    shown = json.loads(run("stats", "--json", "--store", store))["experience"]
    assert sum(line["trials"] for line in shown) == 8
    assert {line["best_speedup"] for line in shown} == {None}
    fill(store, "run-a", [])
    assert json.loads(run("stats", "--json", "--store", store))["experience"][0]["best_speedup"] > 1.0


def test_a_table_of_tasks_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.sqlite"
    fill(path, "run", trials_of("random", 1))
    with sqlite3.connect(path) as connection:
        # As an edgeloop left it that knew of no revisions.
        for name in ("alembic_version", "fleet_visits", "fleet_acceptances", "tasks"):
            connection.execute(f"drop table {name}")
        connection.execute("create table tasks (id integer primary key, title text)")
    connection.close()
    assert "'tasks' that is not ours" in run("stats", "--store", path, code=2)


def test_a_record_gives_policies_their_context_back() -> None:
    known = residual_task(TARGET)
    changes = list(known.context.effects)[:9]
    task = record_of().task
    record = TaskRecord.of(task, known.context, {change: known.context.effects[change] for change in changes})
    context = TaskRecord.model_validate_json(record.model_dump_json()).context(seed=3)
    assert (context.graph, context.base_latency_ms, context.seed) == (
        known.context.graph,
        known.context.base_latency_ms,
        3,
    )
    assert {change: context.effects[change] for change in changes} == {
        change: known.context.effects[change] for change in changes
    }
