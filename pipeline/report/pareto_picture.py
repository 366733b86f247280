"""The Pareto plot of one target as a picture that stands alone, for pages that are not ours."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from pipeline.report.pareto import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Mark,
    ParetoPlot,
    Reference,
    pareto_plot,
)
from pipeline.report.wording import metric_name
from pipeline.result import RunResult

# Okabe and Ito's colours, which people with colour blindness can tell apart.
TRIAL, RECOVERED, FRONT = "#7f7f7f", "#0072b2", "#0072b2"
REFERENCES = {"float": "#444444", "plain_int8": "#e69f00", "chosen": "#d55e00"}
KEY_HEIGHT = 26


def pareto_svg(result: RunResult, target: str) -> str:
    """An SVG picture of every trial on one target, the front, and float, plain INT8 and chosen.

    It brings its own white ground, so it can be read on a dark page. Equal input, equal text.

    Args:
        result: what the run found.
        target: one of its targets.
    """
    plot = pareto_plot(result, target)
    height = HEIGHT + KEY_HEIGHT
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
            f'height="{height}" role="img" font-family="system-ui, sans-serif" font-size="12" '
            f'aria-label="{escape(plot.summary)}">',
            f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
            *_axes(plot, metric_name(result)),
            *_limits(plot),
            *_fronts(plot),
            *map(_trial, plot.marks),
            *(line for reference in plot.references for line in _reference(reference)),
            *_key(),
            "</svg>",
        ]
    )


def _axes(plot: ParetoPlot, metric: str) -> Iterator[str]:
    for tick in plot.y_ticks:
        yield (
            f'<line x1="{LEFT}" x2="{RIGHT}" y1="{tick.position}" y2="{tick.position}" stroke="#e4e4e4"/>'
            f'<text x="{LEFT - 8}" y="{tick.position + 4}" text-anchor="end" fill="#333">{tick.label}</text>'
        )
    for tick in plot.x_ticks:
        yield (
            f'<line x1="{tick.position}" x2="{tick.position}" y1="{BOTTOM}" y2="{BOTTOM + 5}" stroke="#777"/>'
            f'<text x="{tick.position}" y="{BOTTOM + 20}" text-anchor="middle" fill="#333">'
            f"{tick.label}</text>"
        )
    yield f'<line x1="{LEFT}" x2="{RIGHT}" y1="{BOTTOM}" y2="{BOTTOM}" stroke="#777"/>'
    yield (
        f'<text x="{RIGHT}" y="{BOTTOM + 38}" text-anchor="end" fill="#333">p50 latency on '
        f"{escape(plot.target)}, ms (logarithmic)</text>"
    )
    middle = (TOP + BOTTOM) / 2
    yield (
        f'<text x="14" y="{middle}" text-anchor="middle" fill="#333" transform="rotate(-90 14 {middle})">'
        f"{escape(metric)} {'(files: test split)' if plot.seen else 'on the search split'}</text>"
    )


def _limits(plot: ParetoPlot) -> Iterator[str]:
    """Where the budget ends."""
    dashes = 'stroke="#a00" stroke-dasharray="3 4"'
    if plot.budget_y is not None:
        y = plot.budget_y
        yield f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}" {dashes}/>'
        yield f'<text x="{RIGHT}" y="{y + 14}" text-anchor="end" fill="#a00">budget</text>'
    if plot.budget_x is not None:
        x = plot.budget_x
        yield f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{BOTTOM}" {dashes}/>'
        yield f'<text x="{x - 5}" y="{BOTTOM - 8}" text-anchor="end" fill="#a00">budget</text>'


def _fronts(plot: ParetoPlot) -> Iterator[str]:
    if plot.front_before:
        yield f'<path d="{plot.front_before}" fill="none" stroke="{TRIAL}" stroke-dasharray="4 3"/>'
    if plot.front:
        yield f'<path d="{plot.front}" fill="none" stroke="{FRONT}" stroke-width="1.6"/>'


def _trial(mark: Mark) -> str:
    fill = RECOVERED if mark.recovered else TRIAL
    title = f"<title>{escape(mark.title)}</title>"
    if mark.off_scale:
        return f'<path d="M{mark.x - 5} {mark.y - 4}h10l-5 8z" fill="{fill}">{title}</path>'
    radius = 5 if mark.on_front or mark.chosen else 4
    return (
        f'<circle cx="{mark.x}" cy="{mark.y}" r="{radius}" fill="{fill}" fill-opacity="0.85">{title}</circle>'
    )


def _reference(mark: Reference) -> Iterator[str]:
    colour = REFERENCES[mark.kind]
    yield (
        f'<path d="M{mark.x} {mark.y - 7.5}l7.5 7.5l-7.5 7.5l-7.5 -7.5z" fill="{colour}">'
        f"<title>{escape(mark.title)}</title></path>"
    )
    yield (
        f'<text x="{mark.label.x}" y="{mark.label.y}" text-anchor="{mark.label.anchor}" fill="#111" '
        f'font-weight="600">{escape(mark.label.text)}</text>'
    )


def _key() -> Iterator[str]:
    """What the marks are."""
    y = HEIGHT + 12
    for x, colour, text in ((LEFT, TRIAL, "trial"), (LEFT + 70, RECOVERED, "recovered")):
        yield f'<circle cx="{x + 5}" cy="{y - 4}" r="4" fill="{colour}"/>'
        yield f'<text x="{x + 15}" y="{y}" fill="#333">{text}</text>'
    x = LEFT + 165
    yield f'<line x1="{x}" x2="{x + 22}" y1="{y - 4}" y2="{y - 4}" stroke="{FRONT}" stroke-width="1.6"/>'
    yield f'<text x="{x + 28}" y="{y}" fill="#333">Pareto front</text>'
    x += 120
    yield f'<path d="M{x + 6} {y - 10}l6 6l-6 6l-6 -6z" fill="{REFERENCES["chosen"]}"/>'
    yield f'<text x="{x + 18}" y="{y}" fill="#333">final file</text>'
