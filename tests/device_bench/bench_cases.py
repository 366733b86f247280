"""Quick requests and small ONNX files that several tests use."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from device_bench.protocol import BenchRequest, Limits, TimingPolicy
from device_bench.runtimes import SUFFIXES

QUICK = TimingPolicy(warmup_seconds=0, min_samples=8, min_seconds=0, max_seconds=5)


def save_onnx(path: Path, weight: np.ndarray, batch: str | int, operator: str = "MatMul") -> None:
    """Write y = relu(x @ weight) with the batch given by name (open) or by number (fixed)."""
    from onnx import TensorProto, helper, numpy_helper, save

    rows, columns = weight.shape
    graph = helper.make_graph(
        [
            helper.make_node(operator, ["x", "w"], ["h"]),
            helper.make_node("Relu", ["h"], ["y"]),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, columns])],
        [numpy_helper.from_array(weight, "w")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def request_for(path: Path, wall_seconds: float = 60.0) -> BenchRequest:
    """A quick request; the runtime follows the file's ending."""
    runtime = SUFFIXES[path.suffix]
    return BenchRequest(
        path=str(path), runtime=runtime, timing=QUICK, limits=Limits(wall_seconds=wall_seconds)
    )
