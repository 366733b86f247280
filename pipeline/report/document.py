"""Puts the report together from its parts and writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.policy.explanation import RunExplanation
from pipeline.report import (
    exactness,
    explanation,
    pareto,
    samples,
    search_curve,
    tables,
    tampering,
    verdict,
    wording,
)
from pipeline.report.page import FRAME, SAMPLE_FRAME, SEARCH_FRAME, own_text, template, write_page
from pipeline.result import RunResult


def write_report(
    result: RunResult,
    measurements: Mapping[str, Sequence[int]] | None,
    path: Path,
    why: RunExplanation | None = None,
) -> None:
    """Write the report of a run as one HTML file that opens offline and asks for nothing.

    Args:
        result: what the run found.
        measurements: raw latency samples in ns by "<target>/<form>" with form float, plain_int8 or chosen;
            None leaves the plot of samples out.
        path: the file to write; an older one is replaced.
        why: the explanation of the chosen plans; None leaves that section out.

    Raises:
        BadInputError: samples of a target or form that the run does not have.
        MissingExtraError: jinja2 is not installed.
        RunError: the file cannot be written.
    """
    write_page(render_report(result, measurements, why), path, "report")


def render_report(
    result: RunResult,
    measurements: Mapping[str, Sequence[int]] | None = None,
    why: RunExplanation | None = None,
) -> str:
    """The report's HTML. The same result gives the same text: it holds no time of its making.

    Args:
        result: what the run found.
        measurements: as in `write_report`.
        why: as in `write_report`.
    """
    return template("report.html.j2").render(
        result=result,
        headline=verdict.headline(result),
        cards=verdict.cards(result),
        plots=[pareto.pareto_plot(result, target) for target in result.targets],
        search=search_curve.search_plot(result),
        sample_plots=samples.sample_plots(result, measurements or {}),
        measurements=tables.measurement_rows(result),
        conditions=tables.conditions_rows(result),
        devices=tables.device_lines(result),
        units=tables.unit_lines(result),
        tampered=tampering.tampered_lines(result),
        exact=exactness.exactness_lines(result),
        explained=[] if why is None else explanation.explained_targets(why, result),
        trials=tables.trial_rows(result),
        stages=tables.stage_rows(result),
        metric=wording.metric_name(result),
        total=wording.duration(result.seconds),
        failed=sum(point.failure is not None for point in result.points),
        frame=FRAME,
        search_frame=SEARCH_FRAME,
        sample_frame=SAMPLE_FRAME,
        style=own_text("report.css"),
        script=own_text("report.js"),
    )
