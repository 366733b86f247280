"""Two runs on one page, side by side: it opens offline and asks for nothing, as the report does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.report import comparison_words, pareto, samples, wording
from pipeline.report.page import FRAME, SAMPLE_FRAME, own_text, template, write_page
from pipeline.report.pareto import ParetoPlot
from pipeline.report.samples import SamplePlot
from pipeline.result import RunResult
from pipeline.run_comparison import TargetComparison, compare_results

Samples = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class _Section:
    """One target on the page."""

    target: str
    rows: list[comparison_words.Row]
    speed: str
    same_plan: bool
    plans: list[tuple[str, str, str]]
    conditions: list[tuple[str, str, str]]
    fronts: list[ParetoPlot]
    spreads: list[SamplePlot]


def write_comparison(
    results: tuple[RunResult, RunResult], measurements: tuple[Samples, Samples], path: Path
) -> None:
    """Write the second run beside the first as one HTML file.

    Args:
        results: what the two runs, A and B, found.
        measurements: their raw latency samples in ns by "<target>/<form>"; empty leaves their plots out.
        path: the file to write; an older one is replaced.

    Raises:
        BadInputError: samples of a target or form that a run does not have.
        MissingExtraError: jinja2 is not installed.
        RunError: the file cannot be written.
    """
    write_page(render_comparison(results, measurements), path, "comparison")


def render_comparison(results: tuple[RunResult, RunResult], measurements: tuple[Samples, Samples]) -> str:
    """The page's HTML; equal input gives equal text."""
    a, b = results
    found = compare_results(a, b)
    spreads = [samples.sample_plots(one, some) for one, some in zip(results, measurements, strict=True)]
    return template("comparison.html.j2").render(
        found=found,
        runs=[("A", a), ("B", b)],
        whole=comparison_words.run_rows(found),
        sections=[_section(name, one, results, spreads) for name, one in found.targets.items()],
        metric=wording.metric_name(a),
        frame=FRAME,
        sample_frame=SAMPLE_FRAME,
        style=own_text("report.css"),
    )


def _section(
    target: str,
    found: TargetComparison,
    results: tuple[RunResult, RunResult],
    spreads: Sequence[Sequence[SamplePlot]],
) -> _Section:
    return _Section(
        target=target,
        rows=comparison_words.comparison_rows(found, wording.metric_name(results[0])),
        speed=comparison_words.speed_in_words(found),
        same_plan=found.same_plan,
        plans=comparison_words.plan_rows(found),
        conditions=comparison_words.condition_rows(found),
        fronts=[
            replace(pareto.pareto_plot(one, target), target=f"{letter}: {target}")
            for letter, one in zip("AB", results, strict=True)
        ],
        spreads=[
            replace(plot, target=f"{letter}: {target}")
            for letter, plots in zip("AB", spreads, strict=True)
            for plot in plots
            if plot.target == target
        ],
    )
