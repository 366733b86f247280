"""How two runs differ, apart from what the machine did between them."""

from __future__ import annotations

import numpy as np
import pytest
from small_graphs import measurement

from device_bench.protocol import Conditions
from pipeline.plan import CompressionPlan, UnitChoice
from pipeline.result import Entry, RunResult, Speedup, TargetResult
from pipeline.run_comparison import Pair, compare_results, differing_conditions
from pipeline.task import Budget

TARGET = "local-litert"


def entry(p50_ms: float, accuracy: float = 90.0, size: int = 1000) -> Entry:
    return Entry(
        accuracy=accuracy,
        p50_ms=p50_ms,
        p90_ms=p50_ms,
        peak_memory_bytes=5 * size,
        artifact_bytes=size,
        artifact="x",
        p50_low_ms=p50_ms,
        p50_high_ms=p50_ms,
        settled=True,
        conditions=measurement(p50_ms).conditions,
    )


def run(
    name: str,
    plan: CompressionPlan,
    speedup: Speedup | None,
    plain: Entry | None,
    *,
    accuracy: float = 89.0,
    higher: bool = True,
    target: str = TARGET,
) -> RunResult:
    found = TargetResult(
        float=entry(2.0, 90.0),
        plain_int8=plain,
        chosen=entry(0.5, accuracy),
        speedup_vs_plain_int8=speedup,
        plan=plan,
        plan_id=plan.plan_id,
        budget_met=True,
    )
    return RunResult(
        run_id=name, model="cnn", data="digits", metric="accuracy" if higher else "mse", budget=Budget(),
        higher_is_better=higher, budget_met=True, trials=3, seconds=1.0, targets={target: found},
    )  # fmt: skip


def faster(half_a: float, half_b: float) -> Speedup | None:
    """By how much B is faster when A has 2× and B 3×, with these half-widths of ln."""
    a, b = (
        Speedup(ratio=ratio, low=ratio * np.exp(-half), high=ratio * np.exp(half), rounds=rounds)
        for ratio, half, rounds in ((2.0, half_a, 12), (3.0, half_b, 8))
    )
    plan = CompressionPlan()
    found = compare_results(run("a", plan, a, entry(1.0)), run("b", plan, b, entry(1.4)))
    return found.targets[TARGET].faster


def test_the_quotient_of_the_speedups_and_its_interval() -> None:
    found = faster(0.03, 0.04)
    assert found is not None
    assert found.ratio == pytest.approx(1.5)
    assert np.log(found.high / found.ratio) == pytest.approx(0.05)
    assert np.log(found.ratio / found.low) == pytest.approx(0.05)
    assert found.rounds == 8


def test_the_interval_covers_the_true_quotient_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    spread_a, spread_b, covered = 0.03, 0.01, 0
    plan, times = CompressionPlan(), 2000
    for noise_a, noise_b in zip(
        random.normal(0, spread_a, times), random.normal(0, spread_b, times), strict=True
    ):
        speeds = [
            Speedup(
                ratio=true * np.exp(noise),
                low=true * np.exp(noise - 1.96 * spread),
                high=true * np.exp(noise + 1.96 * spread),
                rounds=9,
            )
            for true, noise, spread in ((2.0, noise_a, spread_a), (3.0, noise_b, spread_b))
        ]
        found = compare_results(run("a", plan, speeds[0], entry(1.0)), run("b", plan, speeds[1], entry(1.0)))
        one = found.targets[TARGET].faster
        assert one is not None
        covered += one.low <= 1.5 <= one.high
    # 95 % of 2,000 with four standard errors (0.49 % each) to either side.
    assert 0.93 <= covered / times <= 0.97


@pytest.mark.parametrize(
    "other", [None, entry(1.0, size=1001), entry(1.0, accuracy=89.9)], ids=["absent", "size", "score"]
)
def test_another_plain_file_is_no_common_measure(other: Entry | None) -> None:
    plan, speed = CompressionPlan(), Speedup(ratio=2.0, low=1.9, high=2.1, rounds=9)
    found = compare_results(run("a", plan, speed, entry(1.0)), run("b", plan, speed, other))
    assert found.targets[TARGET].faster is None


def test_a_run_without_comparison_has_no_quotient() -> None:
    plan, speed = CompressionPlan(), Speedup(ratio=2.0, low=1.9, high=2.1, rounds=9)
    found = compare_results(run("a", plan, speed, entry(1.0)), run("b", plan, None, entry(1.0)))
    assert found.targets[TARGET].faster is None


def test_only_what_the_plans_treat_differently_is_listed() -> None:
    a = CompressionPlan(
        units={"u": UnitChoice(keep_ratio=0.5), "v": UnitChoice(keep_ratio=0.5)}, removed=("x",)
    )
    b = CompressionPlan(
        units={"u": UnitChoice(keep_ratio=0.5), "w": UnitChoice(keep_ratio=1.0)}, removed=("y",)
    )
    found = compare_results(run("a", a, None, None), run("b", b, None, None)).targets[TARGET]
    assert found.kept == {"v": Pair(a=0.5, b=1.0), "x": Pair(a=0.0, b=1.0), "y": Pair(a=1.0, b=0.0)}
    assert found.same_plan is False


def test_what_is_lost_follows_the_metric() -> None:
    plan = CompressionPlan()
    up = compare_results(run("a", plan, None, None), run("b", plan, None, None, accuracy=90.5))
    assert up.targets[TARGET].lost == Pair(a=1.0, b=-0.5)
    down = compare_results(
        run("a", plan, None, None, higher=False), run("b", plan, None, None, accuracy=90.5, higher=False)
    )
    assert down.targets[TARGET].lost == Pair(a=-1.0, b=0.5)


def test_targets_of_one_run_only_are_named() -> None:
    plan = CompressionPlan()
    found = compare_results(run("a", plan, None, None, target="pi4"), run("b", plan, None, None))
    assert (found.targets, found.only_a, found.only_b) == ({}, ("pi4",), (TARGET,))


def test_conditions_that_differ_and_readings_that_hardly_do() -> None:
    first: Conditions = measurement(1.0).conditions.model_copy(
        update={"frequency_mhz": 2600.0, "governor": "performance", "affinity": (0,), "load_1m": 0.5}
    )
    second = first.model_copy(
        update={"frequency_mhz": 2500.0, "governor": None, "affinity": (0, 1), "load_1m": 2.0}
    )
    told = {name: (words.a, words.b) for name, words in differing_conditions(first, second).items()}
    assert told == {"governor": ("performance", ""), "affinity": ("0", "0, 1"), "load 1m": ("0.5", "2")}
    assert differing_conditions(first, first) == {}
