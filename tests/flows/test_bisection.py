"""`edgeloop compress --policy bisection`: prune, train and test until the accuracy would break."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.experience import TrialLog
from pipeline.policy.uniform import macs_share
from pipeline.result import RunResult
from pipeline.task_record import TaskRecord
from pipeline.tracing import trace
from pipeline.zoo import build

TRIALS, MAX_DROP = 5, 3.0


@pytest.mark.slow
def test_the_last_good_plan_of_those_that_were_trained_is_chosen(
    tmp_path: Path, edgeloop: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = edgeloop(
        *("compress", "--model", "cnn", "--policy", "bisection", "--trials", TRIALS, "--max-drop", MAX_DROP),
        *("--recovery-epochs", 2, "--target", "local-onnxruntime", "--out", "runs", "--exactness"),
        cwd=tmp_path,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    trials = {trial.number: trial for trial in TrialLog(run / "trials.jsonl").read()}
    made = [trials[number] for number in sorted(trials)]
    assert len(made) == TRIALS
    record = TaskRecord.model_validate_json((run / "task.json").read_text())
    lost = [record.float_accuracy - (trial.accuracy_recovered or 0.0) for trial in made]
    graph = trace(build("cnn", (1, 8, 8), 10), (1, 8, 8))
    left = [macs_share(graph, trial.plan) for trial in made]
    steps = zip(left, left[1:], lost, strict=False)
    assert [after < before for before, after, _ in steps] == [drop <= MAX_DROP for drop in lost[:-1]]
    good = [trial for trial, drop in zip(made, lost, strict=True) if drop <= MAX_DROP]
    target = "local-onnxruntime"
    proved = RunResult.model_validate_json((run / "result.json").read_text()).targets[target]
    fastest = min(good, key=lambda trial: trial.latency_ms[target])
    assert proved.plan.plan_id == fastest.plan.plan_id
    assert proved.float.exactness is None
    for entry in (proved.plain_int8, proved.chosen):
        assert entry is not None and entry.exactness is not None
        assert entry.exactness.least_alone >= 99.9
    assert "How exactly the files compute" in (run / "report.html").read_text()
