"""A board that goes away in the middle of a search: the run ends without it, and `--resume` adds it later."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from restartable_board import Board

from pipeline.experience import TrialLog
from pipeline.result import RunResult

TRIALS = 10
PATIENCE_SECONDS = 300.0
BOARD = "board-onnxruntime"

Command = Callable[..., subprocess.CompletedProcess[str]]


def first_trial(process: subprocess.Popen[str], runs: Path) -> Path:
    """The run's folder, once a trial is in its log."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        for log in runs.glob("*/trials.jsonl"):
            if log.read_bytes().count(b"\n") >= 1:
                return log.parent
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError(f"no trial after {PATIENCE_SECONDS} s")


def test_the_run_goes_on_and_the_board_is_added_later(
    tmp_path: Path,
    start: Callable[..., subprocess.Popen[str]],
    edgeloop: Command,
    weights: Callable[[str], Path],
) -> None:
    board, runs = Board(tmp_path / "agent"), tmp_path / "runs"
    with board.serving() as agent:
        added = edgeloop("targets", "add", "board", agent.url, "--pair", board.line, cwd=tmp_path)
        assert added.returncode == 0, added.stderr
        process = start(
            *("compress", "--model", "cnn", "--data", "digits", "--weights", weights("cnn"), "--out", runs),
            *("--target", "local-onnxruntime", "--target", BOARD, "--policy", "random", "--trials", TRIALS),
            *("--recoveries", 0, "--max-drop", 100),
            cwd=tmp_path,
        )
        try:
            run = first_trial(process, runs)
        except BaseException:
            process.kill()
            raise
    # The agent has ended; the run has not.
    try:
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 1, out + err
    result = RunResult.model_validate_json((run / "result.json").read_text())
    assert list(result.lost) == [BOARD]
    assert list(result.targets) == ["local-onnxruntime"]
    assert not result.budget_met
    assert result.trials == TRIALS
    assert "board-onnxruntime went away" in out
    trials = TrialLog(run / "trials.jsonl").read()
    assert all(trial.failure is None and "local-onnxruntime" in trial.latency_ms for trial in trials)
    assert BOARD in trials[0].latency_ms
    assert BOARD not in trials[-1].latency_ms

    with board.serving():
        again = edgeloop("compress", "--resume", run, cwd=tmp_path)

    assert again.returncode in (0, 1), again.stdout + again.stderr
    result = RunResult.model_validate_json((run / "result.json").read_text())
    assert result.lost == {}
    assert set(result.targets) == {"local-onnxruntime", BOARD}
    latest = {trial.number: trial for trial in TrialLog(run / "trials.jsonl").read()}
    assert sorted(latest) == list(range(1, TRIALS + 1))
    assert all(BOARD in trial.latency_ms for trial in latest.values())
    before = {trial.number: trial for trial in trials}
    for number, trial in latest.items():
        assert trial.latency_ms["local-onnxruntime"] == before[number].latency_ms["local-onnxruntime"]
