"""`edgeloop runs list`: every run at whatever stage, and how to go on with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from pipeline.run_folder import RunFolder

Ask = Callable[..., Result]
Make = Callable[..., Path]


def test_the_newest_run_comes_first_with_what_it_found(ask: Ask, finished: Make) -> None:
    finished("20260105-100000-resnet20-digits", speedup=2.0)
    finished("20260106-090000-resnet20-digits", speedup=3.0)
    lines = ask("runs", "list").stdout.splitlines()
    first, second = (line for line in lines if line.startswith("2026"))
    assert first.startswith("20260106-090000-resnet20-digits")
    assert "budget met" in first
    assert "3.00×" in first
    assert "+0.50" in first, "points lost"
    assert "2.00×" in second
    assert "go on with" not in "".join(lines)


def test_an_unfinished_run_says_how_far_it_came_and_how_to_go_on(ask: Ask, unfinished: Make) -> None:
    run = unfinished()
    shown = ask("runs", "list").stdout
    assert "unfinished" in shown
    assert "2 of 5" in shown
    assert f"{run.name} is not finished; go on with: edgeloop compress --resume runs/{run.name}" in shown


def test_a_folder_name_with_a_blank_is_quoted(ask: Ask, unfinished: Make, runs: Path) -> None:
    unfinished("20260107-080000-my net")
    assert "--resume 'runs/20260107-080000-my net'" in ask("runs", "list").stdout


def test_a_run_at_work_is_running_and_nothing_is_to_be_done(
    ask: Ask, unfinished: Make, finished: Make
) -> None:
    for make in (unfinished, finished):
        run = make()
        with RunFolder(run).locked():
            told = json.loads(ask("runs", "list", "--json").stdout)["runs"]
        state = {one["run_id"]: (one["state"], one["resume"]) for one in told}
        assert state[run.name] == ("running", "")


def test_a_run_whose_board_went_away_can_be_completed(ask: Ask, finished: Make) -> None:
    run = finished()
    stored = json.loads((run / "result.json").read_text())
    stored |= {"lost": {"pi4": "it does not answer"}, "budget_met": False}
    (run / "result.json").write_text(json.dumps(stored))
    shown = ask("runs", "list").stdout
    assert "budget missed" in shown
    assert f"once pi4 can be reached, go on with: edgeloop compress --resume runs/{run.name}" in shown


@pytest.mark.parametrize("name", ["job.json", "result.json", "trials.jsonl"])
def test_a_damaged_run_is_told_and_hides_no_other(name: str, ask: Ask, finished: Make) -> None:
    good, bad = finished("20260105-100000-good"), finished("20260106-100000-bad")
    (bad / name).write_text("{}\n{}\n")
    told = {run["run_id"]: run for run in json.loads(ask("runs", "list", "--json").stdout)["runs"]}
    assert told[good.name]["state"] == "finished"
    assert told[bad.name]["state"] == "unreadable"
    assert name in told[bad.name]["problem"]
    assert f"{bad.name}: " in ask("runs", "list").stdout


def test_a_limit_says_how_many_are_left_out(ask: Ask, unfinished: Make) -> None:
    for day in range(1, 5):
        unfinished(f"2026010{day}-100000-cnn-digits")
    shown = ask("runs", "list", "--limit", 3).stdout
    assert "20260101-100000-cnn-digits" not in shown
    assert "1 older ones are not shown; --limit 0 shows all" in shown
    assert "20260101-100000-cnn-digits" in ask("runs", "list", "--limit", 0).stdout


def test_a_narrow_terminal_leaves_nothing_out(
    ask: Ask, finished: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished("20260105-100000-resnet20-digits")
    monkeypatch.setenv("COLUMNS", "80")
    lines = ask("runs", "list").stdout.splitlines()
    shown = "".join(lines)
    assert max(map(len, lines)) <= 80
    for piece in ("20260105-100000", "budget met", "local-lite", "+0.50", "0.200", "2.00×", "1 min"):
        assert piece in shown


def test_no_runs_and_no_folder_say_what_to_do(ask: Ask, runs: Path) -> None:
    assert "there are no runs in runs yet; `edgeloop compress` makes one" in ask("runs", "list").stdout
    runs.rmdir()
    assert "there is no folder runs" in ask("runs", "list", code=2).stderr
