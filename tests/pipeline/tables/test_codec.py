from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_tasks import residual_task

from device_bench.errors import BadInputError
from pipeline.plan import CompressionPlan, UnitChoice
from pipeline.tables.codec import PlanCodec

TASK = residual_task()
CODEC = PlanCodec(TASK.context.space)


@given(st.integers(0, 2**32 - 1))
def test_a_plan_of_the_space_comes_back_from_its_row(seed: int) -> None:
    plan = TASK.context.space.sample(np.random.default_rng(seed))
    assert CODEC.decode(CODEC.encode(plan)) == plan


@given(st.integers(0, 2**32 - 1))
def test_every_row_becomes_a_plan_of_the_space(seed: int) -> None:
    row = np.random.default_rng(seed).integers(0, CODEC.counts).astype(np.int16)
    assert TASK.context.space.contains(CODEC.decode(row))


def test_blocks_stand_before_the_units_inside_them() -> None:
    for place, position in enumerate(CODEC.positions):
        if position.inside >= 0:
            assert position.inside < place
            home = CODEC.positions[position.inside]
            assert home.is_block
            assert position.name.startswith(home.name)


def test_a_row_of_zeros_is_the_original() -> None:
    assert CODEC.decode(np.zeros(len(CODEC.positions), dtype=np.int16)) == CompressionPlan()


def test_what_is_inside_a_removed_block_keeps_nothing() -> None:
    plan = TASK.context.space.plan({}, ["layer1.0"])
    kept = CODEC.keep_of(CODEC.encode(plan)[None])[0]
    gone = [p.name for p, keep in zip(CODEC.positions, kept, strict=True) if keep == 0.0]
    assert gone == ["layer1.0", "layer1.0.conv1"]


def test_a_foreign_width_is_refused_with_those_allowed() -> None:
    plan = CompressionPlan(units={"layer3.1.conv1": UnitChoice(keep_ratio=0.9)})
    with pytest.raises(BadInputError, match=r"plan keeps 0\.9000 of layer3\.1\.conv1; allowed: 1\.0000"):
        CODEC.encode(plan)


def test_a_foreign_width_has_a_place_in_a_space_that_offers_it() -> None:
    plan = CompressionPlan(units={"layer3.1.conv1": UnitChoice(keep_ratio=0.9)})
    space = CODEC.space.offering([plan])
    assert set(space.widths["layer3.1.conv1"]) - set(CODEC.space.widths["layer3.1.conv1"]) == {58}
    codec = PlanCodec(space)
    kept = dict(
        zip([p.name for p in codec.positions], codec.keep_of(codec.encode(plan)[None])[0], strict=True)
    )
    # What is built of 64 channels, not what was asked for.
    assert kept.pop("layer3.1.conv1") == 58 / 64
    assert set(kept.values()) == {1.0}


def test_a_unit_the_space_does_not_offer_is_refused() -> None:
    with pytest.raises(BadInputError, match="plan changes linear, which the space does not offer"):
        CODEC.encode(CompressionPlan(units={"linear": UnitChoice(keep_ratio=0.5)}))


@pytest.mark.parametrize("row", [[0], [99] * len(CODEC.positions), [-1] * len(CODEC.positions)])
def test_a_row_that_is_none_is_refused(row: list[int]) -> None:
    with pytest.raises(BadInputError, match="options below"):
        CODEC.decode(row)
