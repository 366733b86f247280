"""Which of many outcomes no other beats: points (cost, gain), the less cost and the more gain the better."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> tuple[int, ...]:
    """Indices of the points that no other beats in cost or gain without losing in the other, by rising cost.

    Of equal points the first stands for all.
    """
    front: list[int] = []
    best = float("-inf")
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i)):
        if points[index][1] > best:
            best = points[index][1]
            front.append(index)
    return tuple(front)


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Area that the points dominate up to `reference`, a (cost, gain) worse than all that counts.

    The two-dimensional S-metric (Zitzler and Thiele, 1998); a point that is not better than the reference in
    both adds nothing.
    """
    cost_limit, gain_limit = reference
    inside = [point for point in points if point[0] < cost_limit and point[1] > gain_limit]
    area, gain_so_far = 0.0, gain_limit
    for index in pareto_front(inside):
        cost, gain = inside[index]
        area += (cost_limit - cost) * (gain - gain_so_far)
        gain_so_far = gain
    return area
