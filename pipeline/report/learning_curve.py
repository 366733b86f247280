"""The plot of a training: its figure (a loss, or a reward) over the updates, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from pipeline.report.scale import Scale, padded, ticks

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 620, 16, 276
# What a line of this width can show.
MOST_POINTS = 400


def learning_curve_svg(figures: Sequence[float], updates: int, what: str) -> str:
    """An SVG picture of `figures`, evenly spread over `updates`. Equal input, equal text."""
    values = np.asarray(figures, dtype=np.float64)
    parts = np.array_split(values, min(MOST_POINTS, len(values)))
    means = [float(part.mean()) for part in parts]
    up = Scale(*padded(means, 0.05), BOTTOM, TOP)
    across = Scale(0.0, float(max(1, updates)), LEFT, RIGHT)
    places = np.linspace(0.0, updates, len(means)) if len(means) > 1 else np.array([float(updates)])
    line = " ".join(f"{across(float(x))},{up(y)}" for x, y in zip(places, means, strict=True))
    marks = []
    for tick in ticks(up, 5):
        marks.append(
            f'<line x1="{LEFT}" x2="{RIGHT}" y1="{tick.position}" y2="{tick.position}" stroke="#ddd"/>'
            f'<text x="{LEFT - 8}" y="{tick.position + 4}" text-anchor="end" fill="#333">{tick.label}</text>'
        )
    for tick in ticks(across, 6):
        place = f'x="{tick.position}" y="{BOTTOM + 18}"'
        marks.append(f'<text {place} text-anchor="middle" fill="#333">{tick.label}</text>')
    said = f"{what} over {updates} updates, from {means[0]:.3g} to {means[-1]:.3g}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'font-family="system-ui, sans-serif" font-size="12" aria-label="{escape(said)}">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
            *marks,
            f'<polyline points="{line}" fill="none" stroke="#0072b2" stroke-width="1.5"/>',
            f'<text x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle" '
            'fill="#333">updates</text>',
            f'<text x="16" y="{(TOP + BOTTOM) / 2}" text-anchor="middle" fill="#333" '
            f'transform="rotate(-90 16 {(TOP + BOTTOM) / 2})">{escape(what)}</text>',
            "</svg>",
            "",
        ]
    )
