from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import chain_graph, heads_graph, residual_graph

from device_bench.errors import BadInputError
from pipeline.errors import PlanError
from pipeline.plan import CompressionPlan, UnitChoice
from pipeline.policy.base import shape_of
from pipeline.space import PlanSpace

RESIDUAL = PlanSpace.of(residual_graph(), 8)
SPACES = [RESIDUAL, PlanSpace.of(chain_graph(), 8), PlanSpace.of(heads_graph(), 8)]
TRUNKS = ("conv1", "layer2.0.conv2", "layer3.0.conv2")


def widths_of(plan: CompressionPlan) -> tuple[int, ...]:
    widths = plan.widths(RESIDUAL.graph)
    return tuple(widths[name] for name in TRUNKS)


def test_wide_units_go_in_steps_of_the_target() -> None:
    assert RESIDUAL.widths["layer3.1.conv1"] == (16, 24, 32, 40, 48, 56, 64)
    assert RESIDUAL.widths["conv1"] == (8, 16)
    assert RESIDUAL.choices["conv1"] == (0.5, 1.0)


def test_narrow_units_go_in_finer_steps() -> None:
    assert PlanSpace.of(chain_graph(), 8).widths == {"first": (4, 8, 12), "second": (2, 3, 4, 5, 6)}


def test_a_step_of_heads_and_of_the_target_are_both_kept() -> None:
    assert PlanSpace.of(heads_graph(), 8).widths["attention.qkv"] == (24, 48)


def test_no_width_is_below_min_keep() -> None:
    assert PlanSpace.of(residual_graph(), 8, min_keep=0.6).widths["layer3.1.conv1"] == (40, 48, 56, 64)


def test_outputs_are_in_no_space() -> None:
    assert "linear" not in RESIDUAL.choices
    with pytest.raises(PlanError, match="outputs"):
        RESIDUAL.plan({"linear": 0.5})


@pytest.mark.parametrize(("step", "keep"), [(0, 0.25), (8, 0.0), (8, 1.5)])
def test_bad_arguments_are_refused(step: int, keep: float) -> None:
    with pytest.raises(BadInputError, match="must be"):
        PlanSpace.of(chain_graph(), step, keep)


@pytest.mark.parametrize("space", SPACES)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_contains_what_it_samples(space: PlanSpace, seed: int) -> None:
    plan = space.sample(np.random.default_rng(seed))
    assert space.contains(plan)
    assert plan.checked(space.graph) == plan
    assert CompressionPlan.model_validate_json(plan.model_dump_json()) == plan


@given(
    keep=st.dictionaries(st.sampled_from(list(RESIDUAL.choices)), st.floats(0.01, 1.0)),
    removed=st.sets(st.sampled_from(RESIDUAL.removable)),
)
@settings(max_examples=100, deadline=None)
def test_any_wish_becomes_a_plan_of_the_space_and_stays_it(keep: dict[str, float], removed: set[str]) -> None:
    plan = RESIDUAL.plan(keep, removed)
    assert RESIDUAL.contains(plan)
    again = RESIDUAL.plan({name: choice.keep_ratio for name, choice in plan.units.items()}, plan.removed)
    assert again == plan
    assert set(plan.removed) == removed


@given(keep=st.floats(0.05, 1.0))
@settings(max_examples=40, deadline=None)
def test_uniform_is_legal_and_close(keep: float) -> None:
    plan = RESIDUAL.uniform(keep)
    assert RESIDUAL.contains(plan)
    assert abs(plan.keep_ratio("layer3.1.conv1") - max(keep, 0.25)) <= 0.5 * 8 / 64 + 1e-9


def test_units_inside_removed_blocks_are_left_out() -> None:
    plan = RESIDUAL.plan({"layer1.1.conv1": 0.5, "layer1.2.conv1": 0.5}, ["layer1.1"])
    assert set(plan.units) == {"layer1.2.conv1"}
    other = plan.model_copy(update={"units": {"layer1.1.conv1": UnitChoice(keep_ratio=0.5)}})
    assert not RESIDUAL.contains(other)


@pytest.mark.parametrize(
    ("asked", "widths"),
    [
        ({"conv1": 0.5}, (8, 24, 56)),
        ({"layer2.0.conv2": 0.25}, (8, 8, 40)),
        ({"layer3.0.conv2": 0.25}, (16, 16, 16)),
        ({"layer3.0.conv2": 0.875}, (16, 32, 56)),
        ({"layer2.0.conv2": 0.75, "layer3.0.conv2": 0.5}, (16, 24, 32)),
    ],
)
def test_what_is_linked_moves_along_and_what_was_asked_stays(
    asked: dict[str, float], widths: tuple[int, int, int]
) -> None:
    assert widths_of(RESIDUAL.plan(asked)) == widths


def test_wishes_that_exclude_each_other_meet_at_the_nearest() -> None:
    # Eight channels can go on in at most 24; losing a quarter of those is less than half of these.
    plan = RESIDUAL.plan({"conv1": 0.5, "layer2.0.conv2": 0.99})
    assert widths_of(plan) == (8, 24, 56)
    assert RESIDUAL.contains(plan)


@pytest.mark.parametrize(
    ("keep", "match"),
    [({"conv1": 0.5}, "8 to 24 channels"), ({"layer2.0.conv2": 0.25}, "16 to 32 channels")],
)
def test_a_plan_whose_links_do_not_fit_is_an_error(keep: dict[str, float], match: str) -> None:
    plan = CompressionPlan(units={name: UnitChoice(keep_ratio=ratio) for name, ratio in keep.items()})
    with pytest.raises(PlanError, match=match):
        plan.checked(RESIDUAL.graph)
    assert not RESIDUAL.contains(plan)


@pytest.mark.parametrize(
    "plan",
    [
        CompressionPlan(units={"nowhere": UnitChoice(keep_ratio=0.5)}),
        CompressionPlan(units={"layer3.1.conv1": UnitChoice(keep_ratio=0.3)}),
        CompressionPlan(removed=("layer2.0",)),
    ],
)
def test_does_not_contain_plans_of_elsewhere(plan: CompressionPlan) -> None:
    assert not RESIDUAL.contains(plan)


def test_unknown_names_are_errors() -> None:
    with pytest.raises(PlanError, match="nowhere"):
        RESIDUAL.plan({"nowhere": 0.5})
    with pytest.raises(PlanError, match=r"layer2\.0"):
        RESIDUAL.plan({}, ["layer2.0"])


@pytest.mark.parametrize("graph", [chain_graph(), heads_graph(), residual_graph(blocks_a_stage=1)])
def test_size_counts_the_plans(graph: object) -> None:
    space = PlanSpace.of(graph, 16)  # type: ignore[arg-type]
    wishes = itertools.product(*space.choices.values())
    subsets = list(
        itertools.chain.from_iterable(
            itertools.combinations(space.removable, n) for n in range(len(space.removable) + 1)
        )
    )
    shapes = {
        shape_of(space.plan(dict(zip(space.choices, wish, strict=True)), removed))
        for wish in wishes
        for removed in subsets
    }
    assert space.size() == len(shapes)


def test_sampling_reaches_every_plan_of_a_small_space() -> None:
    space = PlanSpace.of(chain_graph(), 8)
    rng = np.random.default_rng(0)
    assert len({space.sample(rng).plan_id for _ in range(600)}) == space.size() == 15
