"""The parts of the page: axes, labels, the front, the verdict, and how numbers are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report import pareto, samples, tables, verdict, wording
from pipeline.report.labels import place_labels
from pipeline.report.scale import LogScale, Scale, log_ticks, ticks
from pipeline.result import RunResult, Speedup, TrialPoint
from pipeline.task import Budget


def trial(number: int, accuracy: float, latency: float, recovered: bool = False) -> TrialPoint:
    """A trial on the target "t"."""
    return TrialPoint(
        number=number, plan_id=str(number), accuracy=accuracy, latency_ms={"t": latency}, recovered=recovered
    )


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (wording.significant(0.1239), "0.124"),
        (wording.significant(1043.2), "1043"),
        (wording.significant(0.0), "0"),
        (wording.significant(float("nan")), "not a number"),
        (wording.interval(0.1166, 0.1187), "0.117–0.119"),
        (wording.interval(0.0240831, 0.0240874), "0.02408–0.02409"),
        (wording.bytes_text(812), "812 B"),
        (wording.bytes_text(1024), "1.00 KiB"),
        (wording.bytes_text(24 << 30), "24.0 GiB"),
        (wording.duration(0.42), "0.420 s"),
        (wording.duration(248), "4 min 08 s"),
        (wording.duration(3599.9), "1 h 00 min"),
        (wording.duration(4361), "1 h 13 min"),
        (wording.signed(-0.001, 2), "0.00"),
        (wording.signed(-1.5, 1), "−1.5"),
        (wording.listing(["a", "b", "c"]), "a, b and c"),
        (wording.counted(1, "trial"), "1 trial"),
    ],
)
def test_numbers_are_written_as_people_read_them(written: str, text: str) -> None:
    assert written == text


@given(
    low=st.floats(1e-4, 1e4),
    ratio=st.floats(1.03, 1e3),
    count=st.integers(2, 6),
)
def test_log_ticks_lie_inside_in_order_and_are_not_alone(low: float, ratio: float, count: int) -> None:
    scale = LogScale(low, low * ratio, 0.0, 500.0)
    drawn = log_ticks(scale, count)
    positions = [tick.position for tick in drawn]
    assert len(drawn) >= 2
    assert positions == sorted(positions)
    assert all(-0.1 <= position <= 500.1 for position in positions)
    assert len({tick.label for tick in drawn}) == len(drawn)


def test_linear_ticks_are_round_and_inside() -> None:
    drawn = ticks(Scale(71.3, 92.4, 100.0, 0.0), 5)
    assert [tick.label for tick in drawn] == ["75", "80", "85", "90"]
    assert drawn[0].position == pytest.approx(82.5, abs=0.1)


def test_labels_of_near_marks_do_not_overlap() -> None:
    first, second = place_labels([(100, 100), (106, 100)], ["plain INT8", "chosen"], [], (0, 0, 500, 300))
    assert (first.y, first.anchor) != (second.y, second.anchor)
    (cornered,) = place_labels([(498, 5)], ["float"], [], (0, 0, 500, 300))
    assert cornered.anchor == "end"


def test_front_holds_what_no_other_beats_in_either_direction() -> None:
    points = [trial(0, 90, 2.0), trial(1, 80, 1.0), trial(2, 79, 1.5), trial(3, 90, 3.0), trial(4, 95, 4.0)]
    assert [p.number for p in pareto.pareto_front(points, "t", higher_is_better=True)] == [1, 0, 4]
    assert [p.number for p in pareto.pareto_front(points, "t", higher_is_better=False)] == [1, 2]


def test_far_outlier_stands_at_the_edge_and_keeps_its_figures(run_result: RunResult) -> None:
    plot = pareto.pareto_plot(run_result, "local-litert")
    (outlier,) = [mark for mark in plot.marks if mark.off_scale]
    (point,) = [point for point in run_result.points if point.number == outlier.number]
    assert wording.score(point.accuracy, run_result) in outlier.title
    assert all(pareto.LEFT <= mark.x <= pareto.RIGHT for mark in plot.marks)
    assert all(pareto.TOP <= mark.y <= pareto.BOTTOM for mark in plot.marks)
    assert [mark.number for mark in plot.marks if mark.chosen] == [23]
    assert plot.missing == 2
    assert plot.front_before.startswith("M")


def test_headline_says_where_the_budget_is_missed_and_by_how_much(run_result: RunResult) -> None:
    said = verdict.headline(run_result)
    assert said.verdict == "Budget missed on local-litert (accuracy loss 0.21 points too much)"
    assert not said.met
    kept = run_result.targets["local-onnxruntime"]
    met = run_result.model_copy(update={"targets": {"local-onnxruntime": kept}, "budget_met": True})
    assert verdict.headline(met).verdict == "Budget met, 0.35 points to spare"


def test_every_constraint_of_the_budget_is_checked(run_result: RunResult) -> None:
    budget = Budget(
        max_drop=0.65,
        max_latency_ms=0.1,
        min_speedup=2.5,
        max_peak_memory_bytes=64 << 20,
        max_artifact_bytes=100 << 10,
    )
    checks = verdict.budget_checks(
        run_result.model_copy(update={"budget": budget}), run_result.targets["local-onnxruntime"]
    )
    # 91.62 − 90.97 is 0.65 but for the last bit of a double, which must not count as a miss.
    assert {check.label: check.met for check in checks} == {
        "Accuracy loss": True,
        "p50 latency": False,
        "Peak memory": True,
        "File size": False,
        "Speed-up over plain INT8": False,
    }
    assert [check.margin for check in checks if check.label.startswith("Speed")] == ["0.52× too little"]


def test_card_says_when_the_interval_does_not_tell_a_difference(run_result: RunResult) -> None:
    outcome = run_result.targets["local-onnxruntime"].model_copy(
        update={"speedup_vs_plain_int8": Speedup(ratio=1.01, low=0.98, high=1.04, rounds=20)}
    )
    (card,) = verdict.cards(run_result.model_copy(update={"targets": {"one": outcome}}))
    assert (card.speedup, card.speedup_against) == ("1.01×", "as fast as plain INT8")
    assert "it holds 1, so no difference is shown" in card.speedup_note


def test_lower_is_better_metric_reads_the_right_way_round(run_result: RunResult) -> None:
    worse = run_result.model_copy(update={"metric": "mse", "higher_is_better": False})
    assert wording.drop(worse, 0.10, 0.13) == pytest.approx(0.03)
    assert wording.against_float(worse, 0.10, 0.13) == "0.0300 above float"
    assert wording.score(0.1, worse) == "0.1000"


def test_unit_inside_a_removed_block_is_gone(run_result: RunResult) -> None:
    lines = {line.name: line for line in tables.unit_lines(run_result)}
    assert [width.removed for width in lines["layer3.2.conv1"].widths] == [False, True]
    assert [width.kept for width in lines["stage3"].widths] == [64, 64]


def test_histogram_counts_what_lies_beyond_the_plot(run_result: RunResult) -> None:
    values = [1_000_000 + 1000 * step for step in range(90)] * 10 + [5_000_000] * 3
    (plot,) = samples.sample_plots(run_result, {"local-litert/chosen": values})
    (ridge,) = plot.ridges
    assert ridge.beyond == 3
    assert ridge.p50 == "1.04 ms"
    assert "903 samples" in ridge.title


def test_units_tell_their_measured_share_of_the_time(run_result: RunResult) -> None:
    first = run_result.units[0].model_copy(update={"latency_shares": {"local-litert": 0.1234}})
    result = run_result.model_copy(update={"units": (first, *run_result.units[1:])})
    times = {width.target: width.time for width in tables.unit_lines(result)[0].widths}
    assert times == {"local-onnxruntime": "—", "local-litert": "12.3 %"}
