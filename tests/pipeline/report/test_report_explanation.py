"""The section on why a plan is as it is."""

from __future__ import annotations

from pipeline.policy.explanation import Reason, RunExplanation, Shift, TargetExplanation
from pipeline.report import render_report
from pipeline.report.explanation import explained_targets
from pipeline.result import RunResult

TARGET = "local-litert"


def explanation_of(*missing: str) -> RunExplanation:
    """A made-up explanation of one target."""
    reasons = (
        Reason(
            name="layer1.2", is_block=True, kept=0.0, why="undone, slower", macs_share=0.11, latency_share=0.2
        ),
        Reason(
            name="conv1",
            is_block=False,
            width=16,
            kept=0.5,
            why="undone, 0.01 ms slower and 0.20 points better",
            macs_share=0.05,
            alone=Shift(latency_ms=-0.0123, drop=0.4),
            undone=Shift(latency_ms=0.011, drop=-0.2),
            further=Shift(latency_ms=-0.0, drop=0.7),
            attributions={"depth": 0.1, "latency share": -0.9, "width": 0.3, "probed": 0.01},
        ),
        Reason(name="linear", is_block=False, width=10, kept=1.0, why="the <b>outputs</b>", macs_share=0.0),
    )
    found = TargetExplanation(
        target=TARGET, plan_id="abc", policy="meta", trial=4, drop=12.5, recovered_drop=0.4,
        predicted_latency_ms=0.118, predicted_drop=11.0, reasons=reasons, missing=missing,
    )  # fmt: skip
    return RunExplanation(run_id="run", metric="accuracy", targets={TARGET: found})


def test_rows_tell_signs_units_and_the_heaviest_features(run_result: RunResult) -> None:
    (found,) = explained_targets(explanation_of(), run_result)
    block, unit, linear = found.rows
    assert found.summary == (
        "plan abc; trial 4, proposed by meta; 12.50 points lost before recovery; 0.40 points after it; "
        "predicted with what the trials showed: 0.118 ms and 11.00 points lost."
    )
    assert (block.name, block.kept, block.latency, block.alone) == (
        "block layer1.2",
        "removed",
        "20.0 %",
        "—",
    )
    assert (unit.kept, unit.latency) == ("50 %", "—")
    assert (unit.alone, unit.undone) == ("≈ −0.0123 ms, +0.40", "+0.0110 ms, −0.20")
    assert unit.further == "0.0000 ms, +0.70"
    assert unit.features == ("latency share: −0.90", "width: +0.30", "depth: +0.10")
    assert [row.changed for row in found.rows] == [True, True, False]
    assert linear.undone == "—"


def test_the_page_has_the_section_and_no_markup_of_the_run(run_result: RunResult) -> None:
    html = render_report(run_result, None, explanation_of("what <i>single</i> changes do"))
    assert html.count('id="why-title"') == 1
    assert html.count('id="why-1"') == 1
    assert "the &lt;b&gt;outputs&lt;/b&gt;" in html
    assert "Not known: what &lt;i&gt;single&lt;/i&gt; changes do." in html
    assert html.count("<tr") - html.count("</tr>") == 0
    assert "latency share: −0.90" in html


def test_without_an_explanation_there_is_no_section(run_result: RunResult) -> None:
    assert "why-title" not in render_report(run_result)
    other = RunExplanation(run_id="run", metric="accuracy", targets={})
    assert "why-title" not in render_report(run_result, None, other)
