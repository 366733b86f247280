from __future__ import annotations

import pytest

from device_bench.errors import BadInputError
from pipeline.tables.comparison import Verdict, compare, interval_of


def test_the_interval_is_students() -> None:
    found = interval_of([1.0, 2.0, 3.0])
    # 2 ± t(0.975; 2) / √3 with t = 4.30265
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, 2.0 - 2.484138, 2.0 + 2.484138))


@pytest.mark.parametrize("values", [[0.7], [0.7, 0.7, 0.7]])
def test_one_value_or_equal_ones_have_no_width(values: list[float]) -> None:
    found = interval_of(values)
    assert found.low == pytest.approx(found.high)


def test_an_interval_of_nothing_is_refused() -> None:
    with pytest.raises(BadInputError, match="at least one value"):
        interval_of([])


def _shifted(tasks: int, seeds: int, by: float) -> dict[str, list[float]]:
    return {f"t{task}": [0.1 * task + 0.01 * seed + by for seed in range(seeds)] for task in range(tasks)}


@pytest.mark.parametrize("tasks", [2, 5, 8])
def test_p_is_one_of_all_signs_where_every_task_is_better(tasks: int) -> None:
    verdict = compare(_shifted(tasks, 3, 0.05), _shifted(tasks, 3, 0.0))
    assert verdict.p == pytest.approx(0.5**tasks)
    assert verdict.difference == pytest.approx(0.05)
    assert verdict.better == (tasks >= 5)


def test_more_seeds_of_the_same_tasks_do_not_make_it_surer() -> None:
    few, many = (compare(_shifted(4, seeds, 0.05), _shifted(4, seeds, 0.0)) for seeds in (1, 50))
    assert few.p == many.p
    assert not many.better


def test_what_is_worse_or_the_same_is_not_better() -> None:
    same = _shifted(6, 3, 0.0)
    assert compare(same, same).p == 1.0
    worse = compare(same, _shifted(6, 3, 0.01))
    assert (worse.better, worse.p) == (False, 1.0)


def test_one_task_proves_nothing() -> None:
    assert compare({"t": [2.0]}, {"t": [1.0]}) == Verdict(1.0, 0.5, 1, 1)


def test_a_difference_by_luck_is_not_significant() -> None:
    ours = {"a": [1.0], "b": [0.0], "c": [1.0], "d": [0.0], "e": [1.0], "f": [0.4]}
    theirs = {"a": [0.0], "b": [1.0], "c": [0.0], "d": [1.0], "e": [0.5], "f": [0.0]}
    verdict = compare(ours, theirs)
    assert verdict.difference > 0
    assert not verdict.better


@pytest.mark.parametrize("theirs", [{}, {"a": [1.0]}, {"a": [1.0], "b": [1.0]}, {"a": [], "b": []}])
def test_sides_that_do_not_match_are_refused(theirs: dict[str, list[float]]) -> None:
    ours = {name: [] for name in theirs} if theirs and not theirs["a"] else {"a": [1.0], "b": [1.0, 2.0]}
    with pytest.raises(BadInputError, match="same tasks and seeds"):
        compare(ours, theirs)
