"""A run that was killed or stopped goes on where it was, and nothing of it is lost or made twice."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from flows.deployments.ending import outlive
from pipeline.experience import TrialLog
from pipeline.result import RunResult

TRIALS = 4
PATIENCE_SECONDS = 300.0

Start = Callable[..., subprocess.Popen[str]]


def compress(runs: Path, weights: Path) -> list[object]:
    """A small job of a few trials on one target."""
    return [
        *("compress", "--model", "cnn", "--data", "digits", "--weights", weights, "--out", runs),
        *("--target", "local-onnxruntime", "--policy", "random", "--trials", TRIALS),
        *("--recoveries", 1, "--recovery-epochs", 1, "--max-drop", 100),
    ]


def wait_for_lines(process: subprocess.Popen[str], runs: Path, lines: int) -> Path:
    """The run's folder, once `trials.jsonl` in it has that many lines."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        for log in runs.glob("*/trials.jsonl"):
            if log.read_bytes().count(b"\n") >= lines:
                return log.parent
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError(f"no {lines} trials after {PATIENCE_SECONDS} s")


@pytest.mark.parametrize("lines", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_kill_and_resume(
    lines: int,
    tmp_path: Path,
    start: Start,
    edgeloop: Callable[..., subprocess.CompletedProcess[str]],
    weights: Callable[[str], Path],
) -> None:
    runs = tmp_path / "runs"
    process = start(*compress(runs, weights("cnn")), cwd=tmp_path)
    try:
        run = wait_for_lines(process, runs, lines)
        children = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.communicate()
    assert outlive(children, seconds=60) == [], "what the run started must end with it"
    before = (run / "trials.jsonl").read_bytes()
    if lines == 3:
        # What a kill in the middle of a line leaves.
        (run / "trials.jsonl").write_bytes(before + before[: len(before) // (2 * lines)])

    done = edgeloop("compress", "--resume", run, cwd=tmp_path)

    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert (run / "trials.jsonl").read_bytes().startswith(before)
    records = TrialLog(run / "trials.jsonl").read()
    untouched = [t for t in records if t.accuracy_rehearsed is None and t.accuracy_recovered is None]
    assert Counter(trial.number for trial in untouched) == dict.fromkeys(range(1, TRIALS + 1), 1)
    rehearsed = Counter(t.number for t in records if t.accuracy_rehearsed and t.accuracy_recovered is None)
    assert set(rehearsed.values()) <= {1}
    recovered = Counter(trial.number for trial in records if trial.accuracy_recovered is not None)
    assert list(recovered.values()) == [1]
    result = RunResult.model_validate_json((run / "result.json").read_text())
    assert result.trials == TRIALS
    assert done.returncode == (0 if result.budget_met else 1)
    assert list(runs.iterdir()) == [run]


def test_ctrl_c(tmp_path: Path, start: Start, weights: Callable[[str], Path]) -> None:
    runs = tmp_path / "runs"
    process = start(*compress(runs, weights("cnn")), cwd=tmp_path)
    try:
        run = wait_for_lines(process, runs, 1)
        # A terminal tells every process of the group at once.
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, out + err
    assert err.splitlines()[0] == "stopped"
    assert f"edgeloop compress --resume {run}" in err
    assert len(err.splitlines()) == 2
    assert "Traceback" not in out
    assert TrialLog(run / "trials.jsonl").read()
