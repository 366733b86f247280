"""A bench that measures nothing: what a file takes follows from its operators by a formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_bench.protocol import (
    BenchRequest,
    Comparison,
    Conditions,
    DeviceInfo,
    Failure,
    Latency,
    Measurement,
    Memory,
    Profile,
    Rounds,
)
from exporters.calibration import read_operators


def formula_ms(path: Path) -> float:
    """A fixed cost for each operator, multiplications in blocks of 8 columns, and bytes."""
    total = 0.002
    for one in read_operators(path):
        columns = -(-one.columns // 8) * 8
        rows = one.rows * one.batches
        depth = one.taps if one.kind == "depthwise" else one.depth
        total += 0.0005 + 1e-8 * (one.inputs + one.outputs) + 2e-9 * rows * columns * depth
    return total


class MakeBelieveBench:
    """Args:
    version: of the runtime, as it will say.
    outcomes: what happens instead of a measurement, by the number of the call: a failure or an exception.
    """

    def __init__(
        self, version: str = "1.0", outcomes: dict[int, Failure | BaseException] | None = None
    ) -> None:
        self.version = version
        self.outcomes = outcomes or {}
        self.requests: list[BenchRequest] = []

    def measure(self, request: BenchRequest) -> Measurement | Failure:
        self.requests.append(request)
        happens = self.outcomes.get(len(self.requests))
        if isinstance(happens, BaseException):
            raise happens
        if happens is not None:
            return happens
        ms = formula_ms(Path(request.path))
        names = ("min", "mean", "p50", "p90", "p95", "p99", "p50_low", "p50_high")
        return Measurement(
            samples_ns=(round(ms * 1e6),),
            latency=Latency.model_validate(
                {"samples": 1, "std_ms": 0, **{f"{name}_ms": ms for name in names}}
            ),
            memory=Memory(peak_bytes=0, file_bytes=0),
            conditions=Conditions(
                device=DeviceInfo(
                    hostname="board",
                    machine="aarch64",
                    system="Linux",
                    cpu_model="A72",
                    cpu_count=4,
                    memory_bytes=1 << 32,
                ),
                runtime=request.runtime,
                runtime_version=self.version,
                accelerator=request.accelerator,
                threads=request.threads,
            ),
        )

    def compare(
        self, first: BenchRequest, second: BenchRequest, rounds: Rounds = Rounds()
    ) -> Comparison | Failure:
        raise NotImplementedError

    def predict(self, request: BenchRequest, inputs: NDArray[np.float32]) -> NDArray[np.float32] | Failure:
        raise NotImplementedError

    def profile(self, request: BenchRequest) -> Profile | Failure:
        raise NotImplementedError
