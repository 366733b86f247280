"""Whether a target's 8-bit kernels overflow, found out by running one.

x86 processors without VNNI multiply unsigned activations by signed weights in pairs and add each pair in 16
bits: 255 · 127 + 255 · 127 is cut off at 32767. Weights of 7 bits cannot overflow so, and are coarser. What
a processor says of itself is no proof of what its runtime does, so a file is run whose sum would be cut.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

INPUTS, OUTPUTS = 64, 8
# In steps of 1: every product is the largest there is.
ACTIVATION, WEIGHT = 255, 127
EXACT = float(INPUTS * ACTIVATION * WEIGHT)
# Of the exact sum. A kernel that is right has every bit of it, and one that cuts loses half.
TOLERANCE = 0.01
OUTPUT_STEP = EXACT / 200


def saturates(run: Callable[[Path, np.ndarray], np.ndarray], folder: Path) -> bool:
    """True where the largest products of 8 bits are cut off.

    Args:
        run: gives what the target makes of a file and of samples, float32 [n, features].
        folder: where the file is written.
    """
    path = folder / "products.onnx"
    path.write_bytes(probe_model().SerializeToString())
    found = run(path, np.full((4, INPUTS), ACTIVATION, np.float32))
    return bool(np.abs(found - EXACT).max() > TOLERANCE * EXACT)


def probe_model() -> Any:
    """One matrix product of unsigned by signed 8 bits, in QDQ form, as an `onnx.ModelProto`."""
    from onnx import TensorProto, helper, numpy_helper

    one = numpy_helper.from_array(np.float32(1.0), "one")
    zero = numpy_helper.from_array(np.uint8(0), "zero")
    weights = numpy_helper.from_array(np.full((INPUTS, OUTPUTS), WEIGHT, np.int8), "weights")
    signed_zero = numpy_helper.from_array(np.int8(0), "signed_zero")
    step = numpy_helper.from_array(np.float32(OUTPUT_STEP), "step")
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "one", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "one", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["weights", "one", "signed_zero"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("QuantizeLinear", ["product", "step", "zero"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "step", "zero"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", INPUTS])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", OUTPUTS])],
        [one, zero, weights, signed_zero, step],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
