from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.pareto import hypervolume, pareto_front

POINTS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=15)


@given(points=POINTS)
def test_the_front_is_what_no_point_beats(points: list[tuple[int, int]]) -> None:
    front = [points[i] for i in pareto_front(points)]
    beaten = {p for p in points if any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)}
    assert sorted(front) == sorted(set(points) - beaten)
    assert front == sorted(front)


@given(points=POINTS)
def test_hypervolume_is_the_area_that_is_dominated(points: list[tuple[int, int]]) -> None:
    cells = sum(
        any(cost <= x and gain >= y + 1 for cost, gain in points) for x in range(15) for y in range(3, 20)
    )
    assert hypervolume(points, (15, 3)) == pytest.approx(cells)


def test_nothing_dominates_nothing() -> None:
    assert pareto_front([]) == ()
    assert hypervolume([], (1.0, 0.0)) == 0.0
    assert hypervolume([(2.0, 5.0), (0.5, -1.0)], (1.0, 0.0)) == 0.0
