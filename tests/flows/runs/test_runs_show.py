"""`edgeloop runs show`, and how a run is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from pipeline.experience import Trial
from pipeline.result import RunResult

Ask = Callable[..., Result]
Make = Callable[..., Path]


def test_a_finished_run_is_shown_whole(ask: Ask, finished: Make) -> None:
    run = finished()
    shown = ask("runs", "show", run.name).stdout
    assert f"{run.name}: finished" in shown
    assert "max_drop 1.0; policy greedy, 5 trials" in shown
    rows = [line.split() for line in shown.splitlines() if " greedy " in line]
    assert [row[:5] for row in rows] == [
        ["1", "greedy", "71.00", "0.1000", "2"],
        ["2", "greedy", "72.00", "88.00", "0.2000"],
    ]
    assert "2.00× (1.96–2.04)" in shown
    assert "note: the weights are others'" in shown
    assert "result.json" in shown


def test_an_unfinished_run_shows_its_trials_and_how_to_go_on(ask: Ask, unfinished: Make) -> None:
    run = unfinished()
    shown = ask("runs", "show", run.name).stdout
    assert f"{run.name}: unfinished" in shown
    assert "88.00" in shown, "the last record of a trial counts"
    assert f"go on with: edgeloop compress --resume runs/{run.name}" in shown


def test_json_has_every_record_in_its_own_form(ask: Ask, finished: Make) -> None:
    run = finished()
    told = json.loads(ask("runs", "show", run.name, "--json").stdout)
    assert told["schema_version"] == 1
    trials = [Trial.model_validate(one) for one in told["trials"]]
    assert [one.accuracy_recovered for one in trials] == [None, 88.0]
    assert RunResult.model_validate(told["result"]).run_id == run.name
    assert told["run"]["outcomes"]["local-litert"]["lost"] == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["20260105", "20260105-100000-resnet20-digits", "0105", "resnet"])
def test_a_run_is_found_by_any_piece_of_its_name(
    name: str, ask: Ask, finished: Make, unfinished: Make
) -> None:
    run = finished()
    unfinished()
    assert json.loads(ask("runs", "show", name, "--json").stdout)["run"]["run_id"] == run.name


def test_a_run_is_found_by_its_folder_wherever_that_is(ask: Ask, finished: Make, tmp_path: Path) -> None:
    moved = finished().rename(tmp_path / "elsewhere")
    told = json.loads(ask("runs", "show", moved, "--json").stdout)["run"]
    assert told["folder"] == str(moved)


def test_the_beginning_of_a_name_goes_before_its_middle(ask: Ask, unfinished: Make) -> None:
    unfinished("20260105-100000-cnn-digits")
    unfinished("20260107-202601-cnn-digits")
    unfinished("net-20260105")
    found = json.loads(ask("runs", "show", "20260105", "--json").stdout)["run"]["run_id"]
    assert found == "20260105-100000-cnn-digits"


def test_a_piece_of_several_names_says_which(ask: Ask, unfinished: Make) -> None:
    names = ["20260105-100000-cnn-digits", "20260107-202601-cnn-digits"]
    for name in names:
        unfinished(name)
    said = ask("runs", "show", "cnn", code=2).stderr
    assert "'cnn' is a part of 2 runs' names" in said
    assert all(name in said for name in names)


def test_a_name_of_no_run_says_which_are_near(ask: Ask, unfinished: Make) -> None:
    run = unfinished()
    said = ask("runs", "show", "20260107-080000-cnn-digit5", code=2).stderr
    assert f"unknown run '20260107-080000-cnn-digit5'; did you mean {run.name}?" in said


def test_an_empty_name_is_none(ask: Ask, unfinished: Make) -> None:
    unfinished()
    unfinished("20260108-080000-cnn-digits")
    assert "part of 2 runs' names" in ask("runs", "show", "", code=2).stderr
