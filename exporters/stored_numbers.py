"""What an INT8 file computes on the way, tensor by tensor, and the steps that it stores the values in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporters.onnx_ranges import activation_values as onnx_values
from exporters.tflite_int8 import activation_values as tflite_values
from exporters.to_onnx import INPUT_NAME
from pipeline.trained_range import FINGERPRINT_SAMPLES, fingerprint_of

# What the ONNX quantizer calls a tensor of 8 bits, and the file's output before it is one.
QUANTIZED, BEFORE = "_QuantizeLinear_Output", "_QuantizeLinear_Input"
LEVELS = 255
Fingerprint = tuple[float, float, float, float]


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file.

    Args:
        low: the least value that it can have.
        step: between two values.
        fingerprint: of the float file's tensor of the same name over the first calibration samples.
        values: what the file computes for the samples in question, in the file's own layout.
    """

    low: float
    step: float
    fingerprint: Fingerprint
    values: np.ndarray

    @property
    def high(self) -> float:
        """The largest value that it can have."""
        return self.low + LEVELS * self.step


def onnx_tensors(
    floats: Any, path: Path, calibration: np.ndarray, inputs: np.ndarray
) -> dict[str, StoredTensor]:
    """The 8-bit tensors of an INT8 ONNX file by name, computed by ONNX Runtime's integer kernels.

    Args:
        floats: the float `onnx.ModelProto` that the file was made of.
        calibration: what its ranges were set by, float32 [n, *input_shape].
        inputs: float32 [m, *input_shape].
    """
    import onnx
    import onnxruntime

    model = onnx.load(path)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    numbers = {
        node.output[0]: (float(stored[node.input[1]]), int(stored[node.input[2]]), node.input[0])
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in stored
    }
    have = {value.name for value in model.graph.output}
    # As 8-bit values, which the integer kernels write; floats between would keep them from being used.
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None)
        for name in numbers
        if name not in have
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = list(numbers)
    made = dict(zip(names, session.run(names, {INPUT_NAME: inputs}), strict=True))
    prints = _prints(list(onnx_values(floats, calibration[:FINGERPRINT_SAMPLES])))
    found = {}
    for quantized, (step, zero, source) in numbers.items():
        name = source.removesuffix(BEFORE)
        if name in prints:
            values = (made[quantized].astype(np.float32) - zero) * np.float32(step)
            found[name] = StoredTensor(-zero * step, step, prints[name], values)
    return found


def tflite_tensors(
    floats: bytes, path: Path, calibration: np.ndarray, inputs: np.ndarray
) -> dict[str, StoredTensor]:
    """The 8-bit tensors of an INT8 TFLite file by name, computed by LiteRT's own integer kernels.

    Args:
        floats: the float TFLite file that the file was made of.
        calibration: float32 [n, ...] in the file's layout.
        inputs: float32 [m, ...] in the file's layout.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=path.read_bytes(),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]
    (scale, zero), index = source["quantization"], source["index"]
    told = [d for d in interpreter.get_tensor_details() if d["dtype"] == np.int8 and d["quantization"][0] > 0]
    prints = _prints(list(tflite_values(floats, calibration[:FINGERPRINT_SAMPLES])))
    told = [each for each in told if each["name"] in prints]
    made: dict[str, list[np.ndarray]] = {each["name"]: [] for each in told}
    for sample in inputs:
        given = np.clip(np.round(sample[None] / scale) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(index, given)
        interpreter.invoke()
        for each in told:
            made[each["name"]].append(interpreter.get_tensor(each["index"]))
    found = {}
    for each in told:
        step, zero = each["quantization"]
        values = (np.concatenate(made[each["name"]]).astype(np.float32) - zero) * np.float32(step)
        found[each["name"]] = StoredTensor((-128 - zero) * step, step, prints[each["name"]], values)
    return found


def _prints(batches: list[dict[str, np.ndarray]]) -> dict[str, Fingerprint]:
    """`fingerprint_of` every tensor over all batches together."""
    return {name: fingerprint_of(np.concatenate([batch[name] for batch in batches])) for name in batches[0]}
