"""Puts the report together from its parts and writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from device_bench.errors import MissingExtraError, RunError
from pipeline.policy.explanation import RunExplanation
from pipeline.report import explanation, pareto, samples, search_curve, tables, verdict, wording
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
    text = render_report(result, measurements, why)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(
            f"cannot write the report to {path}: {error.strerror}; free space or choose another folder"
        ) from error


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
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError("jinja2", "pipeline") from error

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = files("pipeline.report") / "templates"
    return environment.get_template("report.html.j2").render(
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
        explained=[] if why is None else explanation.explained_targets(why, result),
        trials=tables.trial_rows(result),
        stages=tables.stage_rows(result),
        metric=wording.metric_name(result),
        total=wording.duration(result.seconds),
        failed=sum(point.failure is not None for point in result.points),
        frame={
            "width": pareto.WIDTH,
            "height": pareto.HEIGHT,
            "left": pareto.LEFT,
            "right": pareto.RIGHT,
            "top": pareto.TOP,
            "bottom": pareto.BOTTOM,
        },
        search_frame={
            "width": search_curve.WIDTH,
            "height": search_curve.HEIGHT,
            "left": search_curve.LEFT,
            "right": search_curve.RIGHT,
            "bottom": search_curve.BOTTOM,
        },
        sample_frame={"width": samples.WIDTH, "left": samples.LEFT, "right": samples.RIGHT},
        # Ours, not the run's: these two are the only texts that go in unescaped.
        style=(folder / "report.css").read_text(encoding="utf-8"),
        script=(folder / "report.js").read_text(encoding="utf-8"),
    )
