"""INT8 TFLite, inputs and outputs included, by ai-edge-quantizer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from device_bench.protocol import OperatorTime
from exporters.litert_library import quantizer
from exporters.quantization import PLAIN, WITHOUT_WEIGHTS, Quantization, matched_ranges, precision_of
from exporters.quiet import captured_output
from exporters.ranges import find_ranges
from exporters.tflite_graph import operators_of, schema, unpack
from pipeline.errors import ExportError
from pipeline.layer_choice import LayerPrecision
from pipeline.trained_range import FINGERPRINT_SAMPLES, fingerprint_of

Ranges = dict[str, dict[str, np.ndarray]]
WITH_WEIGHTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL")


def quantize_int8(content: bytes, calibration: np.ndarray, quantization: Quantization = PLAIN) -> bytes:
    """An INT8 TFLite file: int8 weights symmetric per channel, int8 activations.

    Args:
        content: a float TFLite file with one input.
        calibration: float32 [n, ...] in the file's own layout; one sample runs at a time.
        quantization: how ranges are found, and which layers are not INT8.

    Raises:
        ExportError: the quantizer failed; with its words.
    """
    if len(calibration) == 0:
        raise ExportError("INT8 needs calibration samples; got none: give at least one, better 256")
    library = quantizer()
    ranges = activation_ranges(content, calibration, quantization)
    try:
        with captured_output() as captured:
            worker = library.quantizer.Quantizer(bytearray(content))
            worker.load_quantization_recipe(library.recipe.static_wi8_ai8())
            _apply_precisions(worker, unpack(content), quantization)
            result = worker.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
            return bytes(result.quantized_model)
    except ExportError:
        raise
    except Exception as error:
        message = f"ai-edge-quantizer could not quantize the model: {error}\n{captured.said()}"
        raise ExportError(message.strip()) from error


def activation_ranges(content: bytes, calibration: np.ndarray, quantization: Quantization = PLAIN) -> Ranges:
    """The range of every activation, in the quantizer's own form.

    The quantizer's calibrator walks all operators in Python for each sample and takes a moving average of
    the ranges; this takes a fifth of its time and the ranges themselves.
    """
    ranks = dict(_activation_names(unpack(content)).values())
    bounds = find_ranges(
        lambda: activation_values(content, calibration), quantization.calibration, quantization.percentile
    )
    if quantization.trained:
        bounds |= matched_ranges(
            quantization.trained, _fingerprints(content, calibration[:FINGERPRINT_SAMPLES])
        )
    return {
        name: {"min": _as_bound(low, ranks[name]), "max": _as_bound(high, ranks[name])}
        for name, (low, high) in bounds.items()
    }


def activation_values(content: bytes, calibration: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """What every float activation takes on as values, sample by sample."""
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
    for sample in calibration:
        interpreter.set_tensor(source, sample[None])
        interpreter.invoke()
        # Copies: the interpreter may not run while a view into it is held.
        yield {name: interpreter.get_tensor(index) for index, (name, _) in names.items()}


def _fingerprints(content: bytes, calibration: np.ndarray) -> dict[str, tuple[float, float, float, float]]:
    """`fingerprint_of` every float activation over all samples."""
    each = [
        {n: fingerprint_of(v) for n, v in values.items()}
        for values in activation_values(content, calibration)
    ]
    return {
        name: (
            min(found[name][0] for found in each),
            max(found[name][1] for found in each),
            float(np.mean([found[name][2] for found in each])),
            float(np.mean([found[name][3] for found in each])),
        )
        for name in each[0]
    }


def _apply_precisions(worker: Any, model: Any, quantization: Quantization) -> None:
    """Tell the quantizer which operators are not INT8; it knows them by the names of what they make."""
    if not quantization.precisions:
        return
    library = quantizer()
    every = library.qtyping.TFLOperationName.ALL_SUPPORTED
    operators = operators_of(model)
    precisions = precision_of(operators, quantization, WITH_WEIGHTS)
    for operator, precision in zip(operators, precisions, strict=True):
        scope = "^" + "".join(re.escape(f"{name};") for name in operator.outputs) + "$"
        if precision == "float32":
            worker.update_quantization_recipe(scope, every, algorithm_key="no_quantize")
        elif precision == "int16x8":
            worker.add_static_config(scope, every, activation_num_bits=16, weight_num_bits=8)
        elif precision == "int4":
            worker.add_static_config(scope, every, activation_num_bits=8, weight_num_bits=4)
        elif precision == "dynamic":
            worker.add_dynamic_config(scope, every, num_bits=8)
        elif precision == "float16" and operator.operator in WITH_WEIGHTS:
            # The GPU delegate computes in 16 bits; on a CPU the kernels unpack such weights as they load.
            half = library.qtyping.TensorQuantizationConfig(
                num_bits=16, dtype=library.qtyping.TensorDataType.FLOAT
            )
            cast = library.qtyping.OpQuantizationConfig(weight_tensor_config=half)
            worker.update_quantization_recipe(scope, every, cast, algorithm_key="float_casting")
        elif precision == "float16":
            worker.update_quantization_recipe(scope, every, algorithm_key="no_quantize")
    _leave_ends_in_float(worker, model, operators, precisions)


def _leave_ends_in_float(
    worker: Any, model: Any, operators: list[OperatorTime], precisions: list[LayerPrecision]
) -> None:
    """Let the file's input and output be floats where only operators that compute with floats touch them."""
    names = quantizer().qtyping.TFLOperationName
    whole = [p in WITHOUT_WEIGHTS for p in precisions]
    graph = model.subgraphs[0]
    first, last = (graph.tensors[int(ends[0])].name.decode() for ends in (graph.inputs, graph.outputs))
    if all(floats for operator, floats in zip(operators, whole, strict=True) if first in operator.inputs):
        worker.update_quantization_recipe(".*", names.INPUT, algorithm_key="no_quantize")
    if all(floats for operator, floats in zip(operators, whole, strict=True) if last in operator.outputs):
        worker.update_quantization_recipe(".*", names.OUTPUT, algorithm_key="no_quantize")


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
