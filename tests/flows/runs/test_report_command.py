"""`edgeloop report`: a run's report, written anew from its files."""

from __future__ import annotations

import webbrowser
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Ask = Callable[..., Result]
Make = Callable[..., Path]


def test_the_newest_finished_run_is_taken(ask: Ask, finished: Make, unfinished: Make) -> None:
    finished("20260105-100000-resnet20-digits")
    newest = finished("20260106-100000-resnet20-digits")
    unfinished("20260107-100000-cnn-digits")
    done = ask("report")
    assert done.stdout == f"runs/{newest.name}/report.html\n"
    assert done.stderr == "20260107-100000-cnn-digits is unfinished and left out\n"
    page = (newest / "report.html").read_text(encoding="utf-8")
    assert "resnet20 on digits" in page
    assert "local-litert" in page


def test_it_is_written_anew(ask: Ask, finished: Make) -> None:
    run = finished()
    (run / "report.html").write_text("old")
    ask("report", "resnet20")
    first = (run / "report.html").read_text(encoding="utf-8")
    assert first.startswith("<!doctype html>") or first.startswith("<!DOCTYPE html>")
    ask("report", run)
    assert (run / "report.html").read_text(encoding="utf-8") == first


def test_samples_are_in_it_where_the_run_kept_them(ask: Ask, finished: Make) -> None:
    run = finished()
    ask("report", run)
    whole = len((run / "report.html").read_text(encoding="utf-8"))
    for path in run.glob("targets/*/*.json"):
        path.unlink()
    ask("report", run)
    assert len((run / "report.html").read_text(encoding="utf-8")) < whole


@pytest.mark.parametrize(("found", "told"), [(True, ""), (False, "no browser was found here")])
def test_open_hands_it_to_the_browser(
    found: bool, told: str, ask: Ask, finished: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked = finished(), []

    def open_page(address: str) -> bool:
        asked.append(address)
        return found

    monkeypatch.setattr(webbrowser, "open", open_page)
    done = ask("report", "--open")
    assert asked == [(run / "report.html").as_uri()]
    assert done.stderr.startswith(told)
    assert bool(done.stderr) is bool(told)
    ask("report")
    assert len(asked) == 1, "nothing opens unasked"


def test_a_run_without_result_says_how_to_go_on(ask: Ask, unfinished: Make) -> None:
    run = unfinished()
    said = ask("report", "cnn", code=2).stderr
    assert f"run {run.name} is not finished, and has no result yet" in said
    assert f"edgeloop compress --resume runs/{run.name}" in said
    assert "no run in runs is finished" in ask("report", code=2).stderr


@pytest.mark.parametrize("name", ["result.json", "targets/local-litert/chosen.measurement.json"])
def test_a_damaged_file_is_named(name: str, ask: Ask, finished: Make) -> None:
    run = finished()
    (run / name).write_text('{"schema_version": 1}')
    assert f"{name} cannot be read" in ask("report", run, code=2).stderr


def test_no_runs_say_what_makes_one(ask: Ask, runs: Path) -> None:
    assert runs.is_dir()
    assert "there are no runs in runs yet" in ask("report", code=2).stderr
