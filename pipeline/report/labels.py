"""Where the names of a plot's marks stand, so that they neither collide nor leave the frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CHARACTER_WIDTH = 7.2
LINE_HEIGHT = 15.0
GAP = 11.0


@dataclass(frozen=True)
class Label:
    """A text's baseline position and its `text-anchor`."""

    text: str
    x: float
    y: float
    anchor: str


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: _Box) -> float:
        """Area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)

    def outside(self, frame: _Box) -> float:
        """Area that lies beyond the frame."""
        own = (self.right - self.left) * (self.bottom - self.top)
        return own - self.overlap(frame)


def place_labels(
    places: Sequence[tuple[float, float]],
    texts: Sequence[str],
    obstacles: Sequence[tuple[float, float]],
    frame: tuple[float, float, float, float],
) -> list[Label]:
    """One label for each place: above, below, right or left of it, whichever covers least.

    Args:
        places: the marks, in drawing units.
        texts: what stands beside each.
        obstacles: other marks, which a label had better not cover.
        frame: left, top, right and bottom that labels should not leave.
    """
    bounds = _Box(*frame)
    taken = [_Box(x - 7, y - 7, x + 7, y + 7) for x, y in [*places, *obstacles]]
    labels = []
    for (x, y), text in zip(places, texts, strict=True):
        options = _options(x, y, text)
        best = min(
            options,
            key=lambda option: sum(option[1].overlap(box) for box in taken) + 4 * option[1].outside(bounds),
        )
        labels.append(best[0])
        taken.append(best[1])
    return labels


def _options(x: float, y: float, text: str) -> list[tuple[Label, _Box]]:
    """Candidates in the order in which they are liked."""
    width = len(text) * CHARACTER_WIDTH
    half = LINE_HEIGHT / 2
    above, below, middle = y - GAP, y + GAP + 10, y + 4.5
    boxes = {
        "above": (Label(text, x, above, "middle"), x - width / 2, above - 11),
        "right": (Label(text, x + GAP, middle, "start"), x + GAP, y - half),
        "left": (Label(text, x - GAP, middle, "end"), x - GAP - width, y - half),
        "below": (Label(text, x, below, "middle"), x - width / 2, below - 11),
        "above-left": (Label(text, x + 6, above, "end"), x + 6 - width, above - 11),
        "above-right": (Label(text, x - 6, above, "start"), x - 6, above - 11),
        "below-left": (Label(text, x + 6, below, "end"), x + 6 - width, below - 11),
        "below-right": (Label(text, x - 6, below, "start"), x - 6, below - 11),
    }
    return [(label, _Box(left, top, left + width, top + LINE_HEIGHT)) for label, left, top in boxes.values()]
