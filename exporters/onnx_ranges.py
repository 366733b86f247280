"""What every float tensor of an ONNX graph takes on as values, a few samples at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

# Samples that run at a time: what calibration holds in memory does not grow with their number.
BATCH = 32


def activation_values(model: Any, calibration: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """The input's and every computed float tensor's values.

    Args:
        model: float `onnx.ModelProto` with one input; not changed.
        calibration: float32 [n, *input_shape].
    """
    import onnx
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    source = watched.graph.input[0].name
    inferred = onnx.shape_inference.infer_shapes(watched)
    known = {value.name: value for value in [*inferred.graph.value_info, *inferred.graph.output]}
    have = {value.name for value in watched.graph.output}
    names = [
        name
        for node in watched.graph.node
        for name in node.output
        if name in known and known[name].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    ]
    watched.graph.output.extend(known[name] for name in names if name not in have)
    options = onnxruntime.SessionOptions()
    # Fused operators would leave what lies between them unwritten.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for start in range(0, len(calibration), BATCH):
        samples = np.ascontiguousarray(calibration[start : start + BATCH])
        yield {source: samples, **dict(zip(names, session.run(names, {source: samples}), strict=True))}
