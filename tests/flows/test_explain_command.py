"""`edgeloop policy explain` on folders of runs: finished, unfinished, of earlier versions."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from known_tasks import residual_task
from small_graphs import measurement

from flows.cli import app
from pipeline.experience import ExperienceStore, TrialLog
from pipeline.policy import load_policy
from pipeline.result import Entry, RunResult, TargetResult
from pipeline.search import changes_to_probe
from pipeline.task import Budget, ModelSpec, Task
from pipeline.task_record import TaskRecord

TARGET = "local-litert"


def explain(*arguments: object, code: int = 0) -> str:
    """What the command prints."""
    # Imported here, after flows.cli, which silences a warning of typer's own first import.
    from typer.testing import CliRunner

    result: Result = CliRunner().invoke(app, ["policy", "explain", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def entry() -> Entry:
    return Entry(
        accuracy=88.0,
        p50_ms=0.2,
        p90_ms=0.3,
        peak_memory_bytes=1,
        artifact_bytes=1,
        artifact="model.tflite",
        p50_low_ms=0.2,
        p50_high_ms=0.2,
        settled=True,
        conditions=measurement(0.2).conditions,
    )


def finished_run(folder: Path, policy: str) -> Path:
    """A folder with all that a run of this policy leaves that is needed here."""
    known = residual_task(TARGET)
    context = known.context
    task = Task(
        model=ModelSpec(source="resnet20", input_shape=(3, 32, 32), outputs=10),
        data="digits",
        targets=context.targets,
        budget=Budget(),
    )
    wanted = changes_to_probe(context.graph, context.space) if policy == "knapsack" else []
    record = TaskRecord.of(task, context, {change: context.effects[change] for change in wanted})
    run = folder / "20260105-100000-resnet20-digits"
    run.mkdir()
    (run / "job.json").write_text("{}")
    (run / "task.json").write_text(record.model_dump_json())
    log = TrialLog(run / "trials.jsonl")
    plans = load_policy(policy).propose(context, [], 3)
    for number, plan in enumerate(plans, start=1):
        log.append(known.run(plan, number, policy))
    found = TargetResult(
        float=entry(), chosen=entry(), plan=plans[1], plan_id=plans[1].plan_id, budget_met=True
    )
    result = RunResult(
        run_id=run.name, model="resnet20", data="digits", metric="accuracy", budget=Budget(),
        budget_met=True, trials=3, seconds=1.0, targets={TARGET: found},
    )  # fmt: skip
    (run / "result.json").write_text(result.model_dump_json())
    return run


def test_a_table_and_json_of_the_chosen_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "220")
    run = finished_run(tmp_path, "knapsack")
    shown = explain(run)
    assert "trial 2 by knapsack" in shown
    assert "block layer1.1" in shown
    assert "layer3.0.conv2" in shown
    told = json.loads(explain(run, "--json"))
    assert told["schema_version"] == 1
    reasons = {reason["name"]: reason for reason in told["targets"][TARGET]["reasons"]}
    changed = [reason for reason in reasons.values() if reason["undone"] is not None]
    assert changed
    # Of units that force each other one may have been given the whole drop: the other's undoing regains none.
    assert all(reason["undone"]["latency_ms"] > 0 >= reason["undone"]["drop"] for reason in changed)
    assert any(reason["undone"]["drop"] < 0 for reason in changed)


def test_a_narrow_terminal_still_shows_every_unit_by_name_and_every_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run = finished_run(tmp_path, "knapsack")
    lines = explain(run).splitlines()
    reasons = json.loads(explain(run, "--json"))["targets"][TARGET]["reasons"]
    assert max(map(len, lines)) <= 80
    for reason in reasons:
        name = f"block {reason['name']}" if reason["is_block"] else reason["name"]
        assert any(line.startswith(f" {name} ") for line in lines)
        assert any(line.startswith(f"{name}: ") for line in lines)
        for shift in (reason["alone"], reason["undone"], reason["further"]):
            assert shift is None or any(f"{shift['drop']:+.2f}" in line for line in lines)


def test_a_run_without_probes_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    shown = explain(finished_run(tmp_path, "random"))
    assert "Not known: what single changes do was not measured" in shown
    assert "--policy greedy, knapsack or meta" in shown


@pytest.mark.parametrize(
    ("name", "message"),
    [("result.json", "the run is not finished"), ("task.json", "an earlier version made the run")],
)
def test_what_is_missing_or_damaged_is_an_error_that_says_how_to_go_on(
    name: str, message: str, tmp_path: Path
) -> None:
    run = finished_run(tmp_path, "random")
    content = (run / name).read_text()
    (run / name).unlink()
    shown = explain(run, code=2)
    assert message in shown
    assert f"--resume {run}" in shown
    (run / name).write_text(content[: len(content) // 2])
    assert f"{name} cannot be read" in explain(run, code=2)


def test_no_run_is_an_error(tmp_path: Path) -> None:
    assert "error: " in explain(tmp_path, code=2)


def test_a_real_run_is_explained_kept_and_reported(
    tmp_path: Path,
    edgeloop: Callable[..., subprocess.CompletedProcess[str]],
    only_run: Callable[[Path], Path],
    weights: Callable[[str], Path],
    home: Path,
) -> None:
    done = edgeloop(
        *("compress", "--model", "cnn", "--data", "digits", "--weights", weights("cnn"), "--out", "runs"),
        *("--target", "local-onnxruntime", "--policy", "random", "--trials", 1, "--recovery-epochs", 0),
        cwd=tmp_path,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    run = only_run(tmp_path / "runs")
    told = json.loads(explain(run, "--json"))["targets"]["local-onnxruntime"]
    assert any("this is the original" in line for line in told["missing"])
    assert all(reason["latency_share"] is not None for reason in told["reasons"])
    assert 'id="why-title"' in (run / "report.html").read_text(encoding="utf-8")
    record = TaskRecord.model_validate_json((run / "task.json").read_text())
    with ExperienceStore(home / "cache" / "experience.sqlite") as store:
        assert store.tasks()[record.fingerprint] == record
