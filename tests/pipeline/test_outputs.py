"""What answers of single changes forecast of plans, in worlds small enough to count by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from small_graphs import chain_graph, residual_graph

from pipeline.data.base import Metric
from pipeline.graph import ModelGraph
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Change, PolicyContext
from pipeline.policy.outputs import MOST_NUMBERS, OutputForecast, ProbedOutputs, samples_kept
from pipeline.space import PlanSpace
from pipeline.tables.codec import PlanCodec
from pipeline.target import LOCAL_TARGETS
from pipeline.task import Budget

SAMPLES = 200
TRUTH = np.arange(SAMPLES) % 2
# The original is sure of all its answers, which are right.
ORIGINAL = np.where(np.arange(2) == TRUTH[:, None], 4.0, -4.0).astype(np.float32)


def wrong_on(samples: range) -> np.ndarray:
    """The original's answers, turned round on some samples."""
    answers = ORIGINAL.copy()
    answers[list(samples)] *= -1.5
    return answers


def forecast_of(
    graph: ModelGraph, changed: Mapping[Change, np.ndarray], step: int = 8, **more: object
) -> OutputForecast:
    space = PlanSpace.of(graph, width_step=step)
    told = {"metric": Metric.ACCURACY, "truth": TRUTH, "original": ORIGINAL, "changed": changed, **more}
    context = PolicyContext(
        graph=graph,
        space=space,
        budget=Budget(),
        targets=tuple(LOCAL_TARGETS.values()),
        float_accuracy=100.0,
        base_latency_ms=dict.fromkeys(LOCAL_TARGETS, 1.0),
        metric=told["metric"],
        chance=50.0,
        outputs=ProbedOutputs(**told),
    )
    found = OutputForecast.of(context, PlanCodec(space))
    assert found is not None
    return found


def known_of(forecast: OutputForecast, *plans: CompressionPlan) -> np.ndarray:
    """What plans are forecast to know, 1 for what the original does."""
    rows = np.stack([forecast.codec.encode(plan) for plan in plans])
    return np.exp(-forecast.damage(rows, rows != 0))


def blocks(names: list[str]) -> CompressionPlan:
    return CompressionPlan(removed=tuple(sorted(names)))


@pytest.fixture
def three_blocks() -> OutputForecast:
    """Without either of two blocks the same fifth of the samples goes wrong; a third spoils another fifth."""
    first, second, third = PlanSpace.of(residual_graph(), 8).removable[:3]
    return forecast_of(
        residual_graph(),
        {
            Change(block=first): wrong_on(range(40)),
            Change(block=second): wrong_on(range(40)),
            Change(block=third): wrong_on(range(40, 80)),
        },
    )


def test_a_single_change_does_what_was_seen(three_blocks: OutputForecast) -> None:
    (first, *_) = three_blocks.codec.space.removable
    # A fifth of the samples wrong, of what is known above a chance of one half: three fifths are left.
    np.testing.assert_allclose(known_of(three_blocks, blocks([first])), [0.6], atol=0.01)


def test_changes_that_spoil_the_same_samples_do_less_together(three_blocks: OutputForecast) -> None:
    first, second, third = three_blocks.codec.space.removable[:3]
    same, other = known_of(three_blocks, blocks([first, second]), blocks([first, third]))
    assert same == pytest.approx(0.6, abs=0.02)
    assert other == pytest.approx(0.2, abs=0.02)


def test_a_change_that_only_makes_answers_less_sure_does_little_alone_and_in_company() -> None:
    first, second = PlanSpace.of(residual_graph(), 8).removable[:2]
    faint = {Change(block=name): 0.5 * ORIGINAL for name in (first, second)}
    forecast = forecast_of(residual_graph(), faint)
    alone, together = known_of(forecast, blocks([first]), blocks([first, second]))
    assert alone > 0.98
    assert together > 0.85


def test_answers_are_the_same_up_to_what_all_classes_share(three_blocks: OutputForecast) -> None:
    outputs = three_blocks.outputs
    moved = {change: answers + 100.0 for change, answers in outputs.changed.items()}
    other = replace(three_blocks, outputs=replace(outputs, changed=moved))
    rows = three_blocks.codec.encode(blocks(list(three_blocks.codec.space.removable[:2])))[None]
    np.testing.assert_allclose(other.damage(rows, rows != 0), three_blocks.damage(rows, rows != 0), rtol=1e-4)


def test_nothing_is_forecast_of_changes_whose_answers_are_not_known(three_blocks: OutputForecast) -> None:
    known, *_, unknown = three_blocks.codec.space.removable
    found = known_of(three_blocks, blocks([known]), blocks([known, unknown]))
    assert np.isfinite(found).tolist() == [True, False]


def test_a_change_whose_answers_are_not_finite_counts_as_unknown() -> None:
    first = PlanSpace.of(residual_graph(), 8).removable[0]
    forecast = forecast_of(residual_graph(), {Change(block=first): np.full_like(ORIGINAL, np.inf)})
    assert np.isnan(known_of(forecast, blocks([first]))).all()


def test_between_probed_widths_answers_move_with_the_square_of_what_is_cut() -> None:
    graph = chain_graph()
    widths = PlanSpace.of(graph, 1).choices["first"]
    half = next(keep for keep in widths if keep == 0.5)
    forecast = forecast_of(
        graph,
        {Change(unit="first", keep_ratio=half): np.ones((8, 1), np.float32)},
        step=1,
        metric=Metric.R2,
        truth=np.arange(8.0),
        original=np.arange(8.0, dtype=np.float32)[:, None],
    )
    place = next(i for i, one in enumerate(forecast.codec.positions) if one.name == "first")
    keeps = forecast.codec.positions[place].keeps
    mixes = forecast._mixes[place, :, 0]
    wanted = [((1 - keep) / 0.5) ** 2 for keep in keeps]
    np.testing.assert_allclose(mixes, wanted, rtol=1e-6)


def test_shifts_of_a_regression_add_up_as_they_are() -> None:
    first, second = PlanSpace.of(residual_graph(), 8).removable[:2]
    truth = np.linspace(-1.0, 1.0, 50)
    exact = truth[:, None].astype(np.float32)
    changed = {Change(block=first): exact + 0.2, Change(block=second): exact - 0.2}
    forecast = forecast_of(residual_graph(), changed, metric=Metric.R2, truth=truth, original=exact)
    forecast = replace(forecast, context=replace(forecast.context, float_accuracy=1.0, chance=0.0))
    alone, together = known_of(forecast, blocks([first]), blocks([first, second]))
    assert alone == pytest.approx(1.0 - 0.04 / np.var(truth), rel=1e-4)
    assert together == pytest.approx(1.0, rel=1e-4)


def test_several_heads_are_decided_each_by_itself() -> None:
    first = PlanSpace.of(residual_graph(), 8).removable[0]
    original = np.concatenate([ORIGINAL, ORIGINAL], axis=1)
    spoilt = np.concatenate([wrong_on(range(100)), ORIGINAL], axis=1)
    forecast = forecast_of(
        residual_graph(),
        {Change(block=first): spoilt},
        truth=np.stack([TRUTH, TRUTH], axis=1),
        original=original,
        heads=(2, 2),
    )
    # The one head is right on half of the samples, which is chance; the other one always.
    np.testing.assert_allclose(known_of(forecast, blocks([first])), [0.5], atol=0.02)


def test_as_many_answers_are_kept_as_are_few_enough() -> None:
    assert samples_kept(300, 10).tolist() == list(range(300))
    kept = samples_kept(5000, 100)
    assert len(kept) * 100 == MOST_NUMBERS
    assert (kept[0], kept[-1]) == (0, 4999)
    assert len(set(kept.tolist())) == len(kept)
