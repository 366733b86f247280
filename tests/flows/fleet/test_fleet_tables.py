"""A round on the screen: a row for each artifact on each device, and what got worse in words."""

from __future__ import annotations

from fleet_visits import BEGAN, WATCHED, visit
from rich.console import Console

from flows.fleet.tables import show_round
from flows.fleet.wording import markdown_of, regressions_in_words
from pipeline.fleet.regression import Figure, judge
from pipeline.fleet.rounds import DeviceRound, FleetRound


def some_round(days: int, cost: float) -> FleetRound:
    """Six visits at their level, and some at another."""
    visits = [visit(day, 2.0) for day in range(6)]
    visits += [visit(day, cost, runtime_version="2.4.0") for day in range(6, 6 + days)]
    findings = [judge(visits, figure) for figure in Figure]
    return FleetRound(
        round_id="20260101",
        started_at=BEGAN,
        devices=(
            DeviceRound(device="board-07", measured=1, failed={"other": "not_a_model: cut short"}),
            DeviceRound(device="board-08", skipped="it does not answer"),
        ),
        findings=tuple(finding for finding in findings if finding is not None),
    )


def screen(result: FleetRound) -> str:
    console = Console(width=80)
    with console.capture() as captured:
        show_round(console, result)
    return captured.get()


def test_one_row_for_both_figures() -> None:
    told = screen(some_round(0, 2.0))
    (row,) = [line for line in told.splitlines() if WATCHED.release in line and "board-07" in line]
    assert "2.000 ms" in row and "5.0 MiB" in row and row.count("steady") == 2
    assert all(len(line) <= 80 for line in told.splitlines() if "│" in line)
    assert "nothing got worse" in told


def test_what_got_worse_was_skipped_and_failed() -> None:
    result = some_round(2, 2.4)
    told = screen(result)
    assert "worse net on board-07: latency +20.0 %" in told
    assert "since 2026-01-07 00:00 UTC" in told
    assert "changed in its conditions: runtime version: 2.3.0 → 2.4.0" in told
    assert "skipped board-08: it does not answer" in told
    assert "not measured other on board-07: not_a_model: cut short" in told
    assert "1 figure got worse" in told
    page = markdown_of(result)
    assert "## net on board-07: latency is worse" in page and "- board-08: it does not answer" in page
    assert "2.400 times the reference model's time, before 2.000" in page
    assert regressions_in_words(result).startswith("1 figure got worse: net on board-07: latency +20.0 %")
