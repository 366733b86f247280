"""The plot of a contest: mean share of the best known hypervolume against the number of trials, as SVG."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from pipeline.report.scale import LogScale, Scale, ticks
from pipeline.tables.standings import Standings

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 56, 560, 16, 372
# Okabe and Ito's colours, which people with colour blindness can tell apart, and tones of them.
COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f",
    "#004466", "#8a3d00", "#00624a", "#7d4a67", "#8f6200", "#333333",
)  # fmt: skip
LABEL_GAP = 13.0


@dataclass(frozen=True)
class _Line:
    policy: str
    colour: str
    dashed: bool
    steps: list[tuple[float, float]]
    band: list[tuple[float, float]]


def curves_svg(standings: Standings) -> str:
    """An SVG picture; a line for each policy, its interval over seeds around it. Equal input, equal text."""
    longest = standings.trials
    across = LogScale(1.0, max(2.0, float(longest)), LEFT, RIGHT)
    up = Scale(0.0, 1.0, BOTTOM, TOP)
    lines = [_line(standings, place, longest, (across, up)) for place in range(len(standings.policies))]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12" aria-label="{escape(_summary(standings))}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        *_axes(standings, across, up),
        *(_band(line) for line in lines),
        *(_drawn(line) for line in lines),
        *_names(lines),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _line(standings: Standings, place: int, longest: int, scales: tuple[LogScale, Scale]) -> _Line:
    across, up = scales
    policy = standings.policies[place]
    # Beyond the first dozens a picture cannot show every trial.
    counts = [n for n in range(1, longest + 1) if n <= 30 or n % 5 == 0 or n == longest]
    found = [(count, standings.mean(policy, count)) for count in counts]

    def y(value: float) -> float:
        return up(min(1.0, max(0.0, value)))

    return _Line(
        policy,
        COLOURS[place % len(COLOURS)],
        place >= len(COLOURS) // 2,
        [(across(count), y(one.mean)) for count, one in found],
        [
            *((across(count), y(one.high)) for count, one in found),
            *((across(count), y(one.low)) for count, one in reversed(found)),
        ],
    )


def _axes(standings: Standings, across: LogScale, up: Scale) -> list[str]:
    parts = []
    for tick in ticks(up, 5):
        parts.append(
            f'<line x1="{LEFT}" x2="{RIGHT}" y1="{tick.position}" y2="{tick.position}" stroke="#ddd"/>'
        )
        parts.append(
            f'<text x="{LEFT - 8}" y="{tick.position + 4}" text-anchor="end" fill="#333">{tick.label}</text>'
        )
    for count in standings.checkpoints():
        x = across(float(count))
        parts.append(f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{BOTTOM}" stroke="#eee"/>')
        parts.append(f'<text x="{x}" y="{BOTTOM + 18}" text-anchor="middle" fill="#333">{count}</text>')
    middle = (LEFT + RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle" fill="#333">trials</text>')
    parts.append(
        f'<text x="16" y="{(TOP + BOTTOM) / 2}" text-anchor="middle" fill="#333" '
        f'transform="rotate(-90 16 {(TOP + BOTTOM) / 2})">share of the best known hypervolume</text>'
    )
    return parts


def _band(line: _Line) -> str:
    return f'<polygon points="{_points(line.band)}" fill="{line.colour}" opacity="0.12"/>'


def _drawn(line: _Line) -> str:
    dashes = ' stroke-dasharray="5 3"' if line.dashed else ""
    return (
        f'<polyline points="{_points(line.steps)}" fill="none" stroke="{line.colour}" '
        f'stroke-width="1.8"{dashes}/>'
    )


def _names(lines: list[_Line]) -> list[str]:
    """Names at the ends of their lines, moved apart where lines end close together."""
    order = sorted(lines, key=lambda line: line.steps[-1][1])
    parts, last = [], float("-inf")
    overflow = max(0.0, TOP + LABEL_GAP * len(order) - BOTTOM)
    for line in order:
        end = line.steps[-1][1] - overflow
        last = max(end, last + LABEL_GAP)
        parts.append(
            f'<line x1="{RIGHT + 2}" y1="{line.steps[-1][1]}" x2="{RIGHT + 12}" y2="{last}" '
            f'stroke="{line.colour}"/>'
        )
        parts.append(
            f'<text x="{RIGHT + 16}" y="{last + 4}" fill="{line.colour}">{escape(line.policy)}</text>'
        )
    return parts


def _points(pairs: list[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in pairs)


def _summary(standings: Standings) -> str:
    last = standings.checkpoints()[-1]
    told = ", ".join(f"{name} {standings.mean(name, last).mean:.2f}" for name in standings.policies)
    tasks = len(standings.tasks)
    return f"Mean share of the best known hypervolume over {tasks} tasks after {last} trials: {told}"
