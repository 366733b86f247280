"""What a calibration keeps and what a latency model answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from device_bench.protocol import DeviceInfo, Record, RuntimeName
from pipeline.latency_model.operators import Operator


class MeasuredNet(Record):
    """One file with its operators and its median latency on the target.

    `role`: "train" for what the model learns from, "check" for what it is only judged by.
    """

    name: str
    kind: str
    role: Literal["train", "check"] = "train"
    ms: float = Field(gt=0)
    operators: tuple[Operator, ...]


class CalibrationHeader(Record):
    """Where and with what everything in one calibration was measured."""

    target: str
    runtime: RuntimeName
    runtime_version: str
    accelerator: str
    threads: int
    device: DeviceInfo
    started_at: str = ""


class Prediction(Record):
    """What one inference of a file is expected to take.

    `low`/`high`: nine of ten cross-validated nets lay within. `by_operator`: milliseconds of each operator,
    in the order given; their sum is `ms`. `outside`: what about the file lies outside of what was measured,
    in words; such a prediction is a guess.
    """

    ms: float
    low: float
    high: float
    by_operator: tuple[float, ...]
    outside: tuple[str, ...] = ()


class Errors(Record):
    """How far predictions are off: shares of nets within 5, 10 and 20 % of what was measured.

    `bias`: median of predicted / measured − 1. `spearman`: rank correlation, absent for fewer
    than three nets.
    """

    nets: int
    within_5: float
    within_10: float
    within_20: float
    median: float
    bias: float
    spearman: float | None = None


class Summary(Record):
    """What a calibration found out about itself.

    `spread`: quantiles of measured / predicted, by cross-validation. `by_kind`: cross-validated errors for
    each kind of net, "all" included. `by_family`: errors on the zoo's compressed models, which were only for
    checking.
    """

    spread: tuple[float, float]
    by_kind: dict[str, Errors]
    by_family: dict[str, Errors]
