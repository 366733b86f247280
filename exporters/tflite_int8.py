"""INT8 TFLite, inputs and outputs included, by ai-edge-quantizer."""

from __future__ import annotations

from typing import Any

import numpy as np

from exporters.litert_library import quantizer
from exporters.quiet import captured_output
from exporters.tflite_graph import schema, unpack
from pipeline.errors import ExportError

Ranges = dict[str, dict[str, np.ndarray]]


def quantize_int8(content: bytes, calibration: np.ndarray) -> bytes:
    """An INT8 TFLite file: int8 weights symmetric per channel, int8 activations, min-max ranges.

    Args:
        content: a float TFLite file with one input.
        calibration: float32 [n, ...] in the file's own layout; one sample runs at a time.

    Raises:
        ExportError: the quantizer failed; with its words.
    """
    if len(calibration) == 0:
        raise ExportError("INT8 needs calibration samples; got none: give at least one, better 256")
    library = quantizer()
    ranges = activation_ranges(content, calibration)
    try:
        with captured_output() as captured:
            worker = library.quantizer.Quantizer(bytearray(content))
            worker.load_quantization_recipe(library.recipe.static_wi8_ai8())
            result = worker.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
            return bytes(result.quantized_model)
    except Exception as error:
        message = f"ai-edge-quantizer could not quantize the model: {error}\n{captured.said()}"
        raise ExportError(message.strip()) from error


def activation_ranges(content: bytes, calibration: np.ndarray) -> Ranges:
    """Smallest and largest value of every activation over all samples, in the quantizer's own form.

    The quantizer's calibrator walks all operators in Python for each sample and takes a moving average of
    the ranges; this takes a fifth of its time and the ranges themselves.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content,
        num_threads=1,
        experimental_preserve_all_tensors=True,
        # A delegate would fuse operators and leave what lies between them unwritten.
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    names = _activation_names(unpack(content))
    low = dict.fromkeys(names, np.inf)
    high = dict.fromkeys(names, -np.inf)
    for sample in calibration:
        interpreter.set_tensor(source, sample[None])
        interpreter.invoke()
        for index in names:
            values = interpreter.tensor(index)()
            low[index] = min(low[index], float(values.min()))
            high[index] = max(high[index], float(values.max()))
            del values  # a view into the interpreter; it may not run while one is held
    return {
        name: {"min": _as_bound(low[index], rank), "max": _as_bound(high[index], rank)}
        for index, (name, rank) in names.items()
    }


def _activation_names(model: Any) -> dict[int, tuple[str, int]]:
    """Name and rank of each float tensor that is computed, by its index."""
    graph = model.subgraphs[0]
    found = {}
    for index in sorted(
        {int(i) for i in graph.inputs} | {int(i) for op in graph.operators for i in op.outputs}
    ):
        tensor = graph.tensors[index]
        if tensor.type == schema().TensorType.FLOAT32:
            found[index] = (tensor.name.decode(), len(tensor.shape))
    return found


def _as_bound(value: float, rank: int) -> np.ndarray:
    return np.full((1,) * rank, value, np.float32)
