"""A run as the report may meet it. Every figure in it is made up, with a fixed generator."""

from __future__ import annotations

import numpy as np
import pytest

from device_bench.protocol import Conditions, DeviceInfo, RuntimeName
from pipeline.plan import CompressionPlan, RecoveryChoice, UnitChoice
from pipeline.result import Entry, Parity, RunResult, Speedup, TargetResult, TrialPoint, UnitRow
from pipeline.task import Budget

TARGETS = {"local-onnxruntime": RuntimeName.ONNXRUNTIME, "local-litert": RuntimeName.LITERT}
P50_MS = {"local-onnxruntime": (0.764, 0.338, 0.171), "local-litert": (1.043, 0.287, 0.118)}
BLOCKS = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)]
WIDTHS = {1: 16, 2: 32, 3: 64}


def conditions(target: str, emulated: bool = False) -> Conditions:
    """How the made-up measurements were made."""
    device = DeviceInfo(
        hostname="bench-1",
        machine="x86_64",
        system="Linux 6.1",
        cpu_model="Example CPU 3000",
        cpu_count=2,
        memory_bytes=24 << 30,
        isa=("avx2", "avx512f", "avx512_vnni"),
        emulated=emulated,
    )
    return Conditions(
        device=device,
        runtime=TARGETS[target],
        runtime_version="1.31.1" if target == "local-onnxruntime" else "2.3.0",
        accelerator="cpu",
        threads=1,
        affinity=(0,),
        frequency_mhz=2600.0,
        load_1m=0.42,
        started_at="2026-01-05T10:00:00Z",
    )


def entry(target: str, form: str, accuracy: float, p50_ms: float, size: int) -> Entry:
    """One made-up artifact on one target."""
    suffix = "tflite" if target == "local-litert" else "onnx"
    return Entry(
        accuracy=accuracy,
        p50_ms=p50_ms,
        p90_ms=p50_ms * 1.08,
        peak_memory_bytes=4 * size + (3 << 20),
        artifact_bytes=size,
        artifact=f"{form}.{suffix}",
        p50_low_ms=p50_ms * 0.993,
        p50_high_ms=p50_ms * 1.006,
        settled=form != "plain_int8" or target != "local-litert",
        conditions=conditions(target),
        parity=Parity(
            max_error=0.0000061 if form == "float" else 0.43,
            mean_error=0.0000008 if form == "float" else 0.051,
            top1_agreement=100.0 if form == "float" else 98.72,
            metric_torch=accuracy + 0.5,
            metric_artifact=accuracy + 0.42,
            samples=2000,
        ),
    )


def plan_for(target: str) -> CompressionPlan:
    """The made-up chosen plan of a target."""
    ratios = np.random.default_rng(len(target)).choice([0.25, 0.5, 0.75, 1.0], len(BLOCKS))
    return CompressionPlan(
        units={
            f"{block}.conv1": UnitChoice(keep_ratio=float(r)) for block, r in zip(BLOCKS, ratios, strict=True)
        },
        removed=("layer1.2", "layer3.2") if target == "local-litert" else ("layer1.2",),
        recovery=RecoveryChoice(epochs=24),
    )


def outcome(target: str) -> TargetResult:
    """What the made-up run found for a target."""
    float_ms, plain_ms, chosen_ms = P50_MS[target]
    missed = target == "local-litert"
    chosen_accuracy = 90.41 if missed else 90.97
    return TargetResult(
        float=entry(target, "float", 91.62, float_ms, 1_110_000),
        plain_int8=entry(target, "plain_int8", 91.38, plain_ms, 318_000),
        chosen=entry(target, "chosen", chosen_accuracy, chosen_ms, 142_000),
        speedup_vs_plain_int8=Speedup(
            ratio=plain_ms / chosen_ms,
            low=plain_ms / chosen_ms - 0.06,
            high=plain_ms / chosen_ms + 0.05,
            rounds=40,
        ),
        plan=plan_for(target),
        plan_id=plan_for(target).plan_id,
        budget_met=not missed,
        misses=("accuracy is 1.21 points below float; the budget allows 1.00",) if missed else (),
    )


def trial_points() -> tuple[TrialPoint, ...]:
    """26 made-up trials: two failed, and each target's chosen plan was recovered."""
    rng = np.random.default_rng(7)
    points = []
    for number in range(22):
        kept = rng.uniform(0.25, 1.0)
        accuracy = 92.0 - 30 * (1 - kept) ** 1.9 - abs(rng.normal(0, 2.0)) - (45 if number == 11 else 0)
        latency = {
            name: (0.35 + 0.65 * kept) * plain * rng.uniform(0.95, 1.1)
            for name, (_, plain, _) in P50_MS.items()
        }
        origin = ("uniform", "random", "sensitivity", "tpe")[min(3, number // 4)]
        points.append(
            TrialPoint(
                number=number, plan_id=f"{number:012x}", accuracy=accuracy, latency_ms=latency, origin=origin
            )
        )
    for number, target in ((22, "local-onnxruntime"), (23, "local-litert")):
        latency = {name: chosen * (1.0 if name == target else 1.2) for name, (_, _, chosen) in P50_MS.items()}
        points.append(
            TrialPoint(
                number=number,
                plan_id=plan_for(target).plan_id,
                accuracy=91.5 if target == "local-onnxruntime" else 90.8,
                latency_ms=latency,
                recovered=True,
                origin="finalist",
            )
        )
    for number, failure in ((24, "timed_out: no answer within 180 s"), (25, "crashed: exit code -11")):
        points.append(
            TrialPoint(
                number=number,
                plan_id=f"{number:012x}",
                accuracy=float("nan"),
                latency_ms={},
                origin="tpe",
                failure=failure,
            )
        )
    return tuple(points)


def unit_rows() -> tuple[UnitRow, ...]:
    """The units of a made-up ResNet-20."""
    rows = [
        UnitRow(
            name=f"stage{stage}",
            layers=(f"layer{stage}.0.conv2", f"layer{stage}.1.conv2"),
            width=width,
            widths=dict.fromkeys(TARGETS, width),
            macs_share=0.17,
        )
        for stage, width in WIDTHS.items()
    ]
    for block in BLOCKS:
        width = WIDTHS[int(block[5])]
        name = f"{block}.conv1"
        kept = {target: round(plan_for(target).keep_ratio(name) * width) for target in TARGETS}
        rows.append(UnitRow(name=name, layers=(name,), width=width, widths=kept, macs_share=0.054))
    return tuple(rows)


@pytest.fixture
def run_result() -> RunResult:
    """A run on two targets, one of which misses its budget."""
    return RunResult(
        run_id="20260105-100000-resnet20",
        model="resnet20",
        data="cifar10-jpeg",
        metric="accuracy",
        budget=Budget(max_drop=1.0),
        budget_met=False,
        trials=26,
        seconds=4361.0,
        seconds_by_stage={
            "load": 3.1,
            "trace": 1.8,
            "trials": 161.2,
            "recovery": 4080.0,
            "export": 31.4,
            "measure": 58.0,
            "test": 25.5,
        },
        targets={target: outcome(target) for target in TARGETS},
        points=trial_points(),
        units=unit_rows(),
        removed={target: plan_for(target).removed for target in TARGETS},
        notes=(
            "The search split is carved from the public training set: its scores are optimistic.",
            "<script>alert('a note is text, not markup')</script>",
        ),
    )


@pytest.fixture
def raw_samples() -> dict[str, list[int]]:
    """Samples in ns for every form of both targets, skewed to the right as latencies are."""
    rng = np.random.default_rng(11)
    samples = {}
    for target, figures in P50_MS.items():
        for form, p50 in zip(("float", "plain_int8", "chosen"), figures, strict=True):
            nanoseconds = p50 * 1e6 * (0.985 + rng.gamma(2.0, 0.012, 800))
            nanoseconds[:9] *= 1.9
            samples[f"{target}/{form}"] = [int(value) for value in nanoseconds]
    return samples
