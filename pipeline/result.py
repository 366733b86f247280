"""`result.json`: what a run found, for people's tools to read."""

from __future__ import annotations

from pydantic import Field

from device_bench.protocol import Conditions, Record
from pipeline.plan import CompressionPlan
from pipeline.robustness_row import RobustnessRow
from pipeline.task import Budget


class Parity(Record):
    """How an artifact's outputs differ from torch's on held-out inputs. Agreement is in percent."""

    max_error: float
    mean_error: float
    top1_agreement: float | None = None
    metric_torch: float
    metric_artifact: float
    samples: int


class Exactness(Record):
    """How exactly an INT8 file computes what torch does with the same numbers. Shares are in percent.

    Args:
        within_one_step: of the outputs that are within one quantization step, end to end.
        parts_at: the first layer of whose values less than 99.9 are; None if there is none.
        least_alone: of the values of the layer that is least exact when torch is given the file's own inputs.
        least_alone_at: that layer.
        operators: tensors that were compared.
    """

    within_one_step: float
    parts_at: str | None
    least_alone: float
    least_alone_at: str
    operators: int
    samples: int


class Entry(Record):
    """One artifact on one target: its metric on the test split and what the bench measured."""

    accuracy: float
    p50_ms: float
    p90_ms: float
    peak_memory_bytes: int
    artifact_bytes: int
    artifact: str
    p50_low_ms: float
    p50_high_ms: float
    settled: bool
    conditions: Conditions
    parity: Parity | None = None
    exactness: Exactness | None = None
    float_operators: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Speedup(Record):
    """Ratio of p50s from interleaved rounds, above 1 is faster, with its 95 % interval."""

    ratio: float
    low: float
    high: float
    rounds: int


class TargetResult(Record):
    """Float, plain INT8 and chosen artifact of one target; absent where the target has no such form.

    `robustness`: of the float model and of the chosen artifact, where it was asked for.
    """

    float: Entry
    plain_int8: Entry | None = None
    chosen: Entry
    speedup_vs_plain_int8: Speedup | None = None
    speedup_vs_float: Speedup | None = None
    plan: CompressionPlan
    plan_id: str
    budget_met: bool
    misses: tuple[str, ...] = ()
    robustness: tuple[RobustnessRow, ...] = ()


class TrialPoint(Record):
    """One trial as the report draws it. Accuracy is on the search split; latency on each target."""

    number: int
    plan_id: str
    accuracy: float
    latency_ms: dict[str, float]
    recovered: bool = False
    origin: str = ""
    failure: str | None = None


class UnitRow(Record):
    """One unit in the per-unit plan: its width before and after, per target's chosen plan.

    `latency_shares`: of the plain INT8 file's latency, by target, where the target could tell.
    """

    name: str
    layers: tuple[str, ...]
    width: int
    widths: dict[str, int]
    macs_share: float
    latency_shares: dict[str, float] = Field(default_factory=dict)


class RunResult(Record):
    """The whole of `result.json`.

    `lost`: targets whose boards went away, and what was said of them. `search_was_seen`: whoever trained the
    original had the search split among their samples, so that its score there is no yardstick.
    """

    run_id: str
    model: str
    data: str
    metric: str
    higher_is_better: bool = True
    budget: Budget
    budget_met: bool
    trials: int
    seconds: float
    seconds_by_stage: dict[str, float] = Field(default_factory=dict)
    targets: dict[str, TargetResult]
    lost: dict[str, str] = Field(default_factory=dict)
    search_was_seen: bool = False
    points: tuple[TrialPoint, ...] = ()
    units: tuple[UnitRow, ...] = ()
    removed: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
