from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from core_nets import TwoConv, dataset_of, liven_
from small_graphs import chain_graph, context_of, measurement, residual_graph
from torch import nn

from device_bench.protocol import Failure, FailureKind, Measurement, Profile
from pipeline.data.base import Metric
from pipeline.evaluation import predict
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Change, Effect, PolicyContext
from pipeline.policy.outputs import samples_kept
from pipeline.reward import Baseline, reward
from pipeline.search import (
    TrialRequest,
    Workbench,
    changes_to_probe,
    interpolated,
    label_of,
    plan_of,
    probe,
    run_trial,
    with_effects,
)
from pipeline.space import PlanSpace
from pipeline.target import LOCAL_TARGETS
from pipeline.task import ModelSpec, Task
from pipeline.tracing import trace

ONNX, LITERT = "local-onnxruntime", "local-litert"
SHAPE = (2, 5, 6)


class FakeBench:
    """Gives what it was told to, and keeps what it was given."""

    def __init__(self, outcomes: Mapping[str, Measurement | Failure]) -> None:
        self.outcomes = outcomes
        self.given: list[tuple[nn.Module, CompressionPlan]] = []

    def measure(self, module: nn.Module, plan: CompressionPlan) -> Mapping[str, Measurement | Failure]:
        self.given.append((module, plan))
        return self.outcomes

    def profile(self, module: nn.Module, plan: CompressionPlan) -> Mapping[str, Profile | Failure]:
        raise AssertionError("probes and trials need no profile")


GOOD = {ONNX: measurement(2.0, peak_bytes=1 << 20, file_bytes=5000), LITERT: measurement(1.0)}
CRASH = Failure(kind=FailureKind.CRASHED, message="signal 11")


def workbench_of(
    outcomes: Mapping[str, Measurement | Failure], metric: Metric = Metric.ACCURACY
) -> Workbench:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = liven_(TwoConv())
    rng = np.random.default_rng(0)
    dataset = dataset_of(rng.normal(size=(2500, *SHAPE)).astype(np.float32), rng.integers(0, 2, 2500), metric)
    graph = trace(module, SHAPE)
    spec = ModelSpec(source="by-hand", input_shape=SHAPE, outputs=2)
    task = Task(model=spec, data="by-hand", targets=tuple(LOCAL_TARGETS.values()))
    return Workbench(task, dataset, module, graph, PlanSpace.of(graph, 1), FakeBench(outcomes))


def baselines_of(accuracy: float) -> list[Baseline]:
    return [
        Baseline(target=name, accuracy=accuracy, latency_ms=4.0, peak_memory_bytes=2 << 20)
        for name in (ONNX, LITERT)
    ]


def test_blocks_and_two_widths_of_each_unit_are_probed() -> None:
    graph = residual_graph()
    changes = changes_to_probe(graph, PlanSpace.of(graph, 8))
    assert [change.block for change in changes if change.block] == [
        *("layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2", "layer3.1", "layer3.2")
    ]
    widths: dict[str, list[float]] = {}
    for change in changes:
        if change.unit is not None:
            widths.setdefault(change.unit, []).append(change.keep_ratio or 0)
    # Sixteen channels in steps of eight have one narrower width; 32 and 64 have a half and a quarter.
    assert widths["conv1"] == widths["layer1.2.conv1"] == [0.5]
    assert widths["layer2.1.conv1"] == widths["layer3.0.conv2"] == [0.25, 0.5]
    assert len(widths) == 12
    assert "linear" not in widths


def test_the_half_is_the_nearest_there_is() -> None:
    graph = chain_graph()
    probed = [(c.unit, c.keep_ratio) for c in changes_to_probe(graph, PlanSpace.of(graph, 8))]
    # Of 12: 4 or 8, as near to 6; of 6: 2, 3, 4 or 5.
    assert probed == [("first", 4 / 12), ("second", 2 / 6), ("second", 0.5)]


def test_a_plan_makes_its_change_and_what_that_forces() -> None:
    space = PlanSpace.of(residual_graph(), 8)
    assert plan_of(space, Change(block="layer1.1")).removed == ("layer1.1",)
    narrow = plan_of(space, Change(unit="layer3.1.conv1", keep_ratio=0.5))
    assert {name: choice.keep_ratio for name, choice in narrow.units.items()} == {"layer3.1.conv1": 0.5}
    assert set(plan_of(space, Change(unit="conv1", keep_ratio=0.5)).units) == {
        *("conv1", "layer2.0.conv2", "layer3.0.conv2")
    }


@pytest.mark.parametrize(
    ("change", "label"),
    [
        (Change(block="layer1.0"), "without layer1.0"),
        (Change(unit="layer1.0.conv1", keep_ratio=0.5), "layer1.0.conv1 at 50 %"),
    ],
)
def test_a_change_has_a_name_for_people(change: Change, label: str) -> None:
    assert label_of(change) == label


def by_hand(accuracy: float, ms: float) -> Effect:
    return Effect(accuracy=accuracy, latency_ms={ONNX: ms, LITERT: 2 * ms})


def test_between_probed_widths_latency_lies_on_a_line_and_the_drop_on_a_power_law() -> None:
    context = replace(
        context_of(residual_graph()), float_accuracy=90.0, base_latency_ms={ONNX: 4.0, LITERT: 8.0}
    )
    name = "layer3.1.conv1"
    probed = {
        Change(unit=name, keep_ratio=0.25): by_hand(70.0, 1.0),
        Change(unit=name, keep_ratio=0.5): by_hand(80.0, 3.0),
        Change(block="layer1.0"): by_hand(60.0, 2.0),
    }
    found = interpolated(probed, context)
    assert {key: found[key] for key in probed} == probed
    # The drop doubles from half to three quarters cut: 10 (cut / 0.5)^(ln 2 / ln 1.5).
    expected = {
        0.375: (75.3557, 2.0),
        0.625: (83.8847, 3.25),
        0.75: (86.9424, 3.5),
        0.875: (89.0651, 3.75),
    }
    assert found.keys() - probed.keys() == {Change(unit=name, keep_ratio=keep) for keep in expected}
    for keep, (accuracy, ms) in expected.items():
        effect = found[Change(unit=name, keep_ratio=keep)]
        assert effect.accuracy == pytest.approx(accuracy, abs=1e-4)
        assert effect.latency_ms == pytest.approx({ONNX: ms, LITERT: 2 * ms})


def test_nothing_is_said_below_the_least_probed_width_or_of_a_failed_target(
    context: PolicyContext,
) -> None:
    probed = {
        Change(unit="layer3.1.conv1", keep_ratio=0.5): Effect(accuracy=80.0, latency_ms={LITERT: 0.1}),
    }
    found = interpolated(probed, context)
    assert {change.keep_ratio for change in found} == {0.5, 0.625, 0.75, 0.875}
    assert all(set(effect.latency_ms) == {LITERT} for effect in found.values())
    assert with_effects(context, probed).effects == found


def test_a_probe_judges_and_measures_the_changed_model() -> None:
    bench = workbench_of(GOOD)
    change = Change(unit="conv1", keep_ratio=0.5)
    effect, answers = probe(bench, change)
    (module, plan) = bench.bench.given[0]  # type: ignore[attr-defined]
    assert module.conv1.out_channels == 2
    assert plan == plan_of(bench.space, change)
    assert effect.latency_ms == {ONNX: 2.0, LITERT: 1.0}
    part = bench.probe_split
    assert len(part) == 2000
    outputs = predict(module, part.x, bench.dataset.preprocessing)
    assert effect.accuracy == pytest.approx(100 * np.mean(outputs.argmax(axis=1) == part.y))
    np.testing.assert_allclose(answers, outputs[samples_kept(*outputs.shape)], rtol=1e-5)
    whole = bench.probed_outputs({change: answers})
    assert whole.original.shape == answers.shape
    assert len(whole.truth) == len(answers)


def test_a_built_model_has_statistics_of_its_own_and_the_original_is_as_it_was() -> None:
    bench = workbench_of(GOOD)
    before = {name: tensor.clone() for name, tensor in bench.module.state_dict().items()}
    module = bench.build(CompressionPlan())
    x = torch.from_numpy(bench.dataset.train.spread(1000).x)
    seen = torch.cat([bench.module.conv1(part) for part in x.split(250)])
    torch.testing.assert_close(module.bn.running_mean, seen.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert not module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in bench.module.state_dict().items())


def test_a_trial_says_all_that_was_found() -> None:
    bench = workbench_of(GOOD)
    plan = bench.space.plan({"conv1": 0.5})
    baselines = baselines_of(50.0)
    found = run_trial(bench, TrialRequest(7, plan, "greedy"), baselines)
    module, given = bench.bench.given[0]  # type: ignore[attr-defined]
    assert given == plan
    outputs = predict(module, bench.dataset.search.x, bench.dataset.preprocessing)
    accuracy = 100 * np.mean(outputs.argmax(axis=1) == bench.dataset.search.y)
    assert (found.number, found.plan, found.origin) == (7, plan, "greedy")
    assert found.accuracy == pytest.approx(accuracy)
    assert found.accuracy_recovered is None
    assert found.latency_ms == {ONNX: 2.0, LITERT: 1.0}
    assert found.peak_memory_bytes == {ONNX: 1 << 20, LITERT: 4 << 20}
    assert found.artifact_bytes == {ONNX: 5000, LITERT: 300_000}
    assert found.reward == reward(found.accuracy, GOOD, bench.task.budget, baselines)
    assert found.failure is None
    assert found.seconds.keys() == {"build", "accuracy", "measure"}
    assert min(found.seconds.values()) >= 0


def test_a_failed_measurement_is_an_outcome_and_gives_no_reward() -> None:
    bench = workbench_of({ONNX: CRASH, LITERT: measurement(1.0)})
    found = run_trial(bench, TrialRequest(1, CompressionPlan(), "uniform"), baselines_of(50.0))
    assert found.failure == CRASH
    assert found.reward is None
    assert found.latency_ms == {LITERT: 1.0}
    assert found.accuracy is not None


def test_a_model_whose_numbers_overflow_is_a_failed_trial() -> None:
    bench = workbench_of(GOOD, Metric.AUC)
    nn.init.constant_(bench.module.head.weight, math.inf)
    found = run_trial(bench, TrialRequest(1, CompressionPlan(), "uniform"), baselines_of(50.0))
    assert found.failure is not None
    assert found.failure.kind is FailureKind.RUNTIME_ERROR
    assert "auc of the compressed model is nan" in found.failure.message
    assert (found.accuracy, found.reward) == (None, None)
    assert type(found).model_validate_json(found.model_dump_json()) == found


def test_a_unit_probed_once_drops_by_the_usual_power() -> None:
    context = replace(
        context_of(residual_graph()), float_accuracy=90.0, base_latency_ms={ONNX: 4.0, LITERT: 8.0}
    )
    name = "layer3.1.conv1"
    found = interpolated({Change(unit=name, keep_ratio=0.25): by_hand(63.0, 1.0)}, context)
    half = found[Change(unit=name, keep_ratio=0.5)]
    assert half.accuracy == pytest.approx(90.0 - 27.0 * (0.5 / 0.75) ** 3)


def test_probes_in_the_wrong_order_still_give_a_rising_drop() -> None:
    context = replace(
        context_of(residual_graph()), float_accuracy=90.0, base_latency_ms={ONNX: 4.0, LITERT: 8.0}
    )
    name = "layer3.1.conv1"
    noisy = {
        Change(unit=name, keep_ratio=0.25): by_hand(89.9, 1.0),
        Change(unit=name, keep_ratio=0.5): by_hand(89.8, 3.0),
    }
    found = interpolated(noisy, context)
    drops = [90.0 - found[Change(unit=name, keep_ratio=keep)].accuracy for keep in (0.875, 0.75, 0.625)]
    assert drops == sorted(drops)
    assert drops[0] > 0.0
