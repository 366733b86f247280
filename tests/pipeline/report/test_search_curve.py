"""What each trial added to what the search found."""

from __future__ import annotations

import re

import pytest

from pipeline.report import render_report
from pipeline.report.search_curve import search_plot, shares
from pipeline.result import RunResult, TrialPoint

HERE = "local-litert"


def point(number: int, accuracy: float, ms: float | None, failure: str | None = None) -> TrialPoint:
    latency = {} if ms is None else {HERE: ms}
    return TrialPoint(
        number=number, plan_id=str(number), accuracy=accuracy, latency_ms=latency, failure=failure
    )


def with_points(result: RunResult, *points: TrialPoint) -> RunResult:
    return result.model_copy(update={"points": points})


def test_shares_grow_to_one_and_what_adds_nothing_is_flat(run_result: RunResult) -> None:
    found = shares(
        with_points(
            run_result, point(1, 60.0, 2.0), point(2, 50.0, 2.0), point(3, 90.0, None), point(4, 80.0, 1.0)
        ),
        HERE,
    )
    assert len(found) == 4
    assert found[0] == found[1] == found[2] < found[3] == 1.0
    assert shares(with_points(run_result, point(1, 60.0, None)), HERE) == []


def test_an_error_that_falls_is_a_gain(run_result: RunResult) -> None:
    result = with_points(run_result, point(1, 3.0, 2.0), point(2, 1.0, 2.0))
    assert shares(result.model_copy(update={"higher_is_better": False}), HERE)[0] < 0.5
    assert shares(result, HERE)[0] == 1.0


def test_the_plot_has_a_line_for_each_target_and_says_what_it_shows(run_result: RunResult) -> None:
    plot = search_plot(run_result)
    assert plot is not None
    assert [line.target for line in plot.lines] == list(run_result.targets)
    assert len({line.dashes for line in plot.lines}) == len(plot.lines)
    heights = [float(y) for y in re.findall(r"V([0-9.]+)", plot.lines[0].path)]
    assert heights == sorted(heights, reverse=True)
    assert re.search(r"half of it was found by trial \d+", plot.summary)
    text = render_report(run_result)
    assert "How the search went" in text and plot.summary.replace("'", "&#39;") in text


@pytest.mark.parametrize("points", [(), (point(1, 60.0, 2.0),)])
def test_without_two_trials_there_is_no_curve(run_result: RunResult, points: tuple[TrialPoint, ...]) -> None:
    result = with_points(run_result, *points)
    assert search_plot(result) is None
    assert "How the search went" not in render_report(result)
