"""INT8 ONNX in QDQ form, by `onnxruntime.quantization`."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from device_bench.errors import MissingExtraError
from device_bench.protocol import OperatorTime
from exporters.onnx_float16 import in_float16
from exporters.onnx_graph import INTEGER_OPERATORS
from exporters.onnx_ranges import BATCH, activation_values
from exporters.quantization import PLAIN, Quantization, matched_ranges, precision_of
from exporters.ranges import find_ranges
from pipeline.errors import ExportError
from pipeline.trained_range import FINGERPRINT_SAMPLES, fingerprint_of

WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# The first version of ONNX whose quantization operators know 4 and 16 bits.
WIDE_OPSET = 21


def quantize_int8(model: Any, calibration: np.ndarray, quantization: Quantization = PLAIN) -> Any:
    """An INT8 copy of a float model: QDQ, int8 weights per channel, uint8 activations.

    Activations are uint8 because ONNX Runtime's x86 provider has fused kernels (QLinearConv, QLinearAdd) for
    uint8 activations with int8 weights; with int8 activations it leaves most of the graph in float. On a
    ResNet-20, one thread: 0.226 ms against 0.572 ms (float 0.459 ms), accuracy the same.

    Args:
        model: a simplified float `onnx.ModelProto` with one input; not changed.
        calibration: preprocessed samples, float32 [n, *input_shape], n at least 1.
        quantization: how ranges are found, and which layers are not INT8. Layers of 16-bit activations and of
            4-bit weights are stored so; ONNX Runtime computes them in float on a CPU.

    Raises:
        ExportError: the quantizer failed; with its words.
    """
    import onnx

    try:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "pipeline") from error
    if len(calibration) == 0:
        raise ExportError("INT8 needs calibration samples; got none: give at least one, better 256")
    overrides, excluded = _told(model, calibration, quantization)
    # With every range told, what the quantizer's own calibration finds is of no use.
    shown = calibration if quantization.is_plain else calibration[:1]
    with tempfile.TemporaryDirectory(prefix="edgeloop-") as folder, _root_logger_silent():
        target = Path(folder) / "int8.onnx"
        try:
            quantize_static(
                _preprocessed(_wide(model) if quantization.precisions else model),
                target,
                _Batches(model.graph.input[0].name, shown),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(INTEGER_OPERATORS),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                reduce_range=quantization.reduced,
                nodes_to_exclude=excluded,
                extra_options={
                    "WeightSymmetric": True,
                    "ActivationSymmetric": False,
                    "TensorQuantOverrides": overrides,
                },
            )
        except OSError as error:
            raise ExportError(
                f"cannot write into {folder}: {error.strerror or error}; free some space"
            ) from error
        except Exception as error:
            raise ExportError(f"onnxruntime could not quantize the model: {error}") from error
        made = onnx.load(target)
        return _without_ranges(made, quantization, model) if quantization.precisions else made


def _without_ranges(made: Any, quantization: Quantization, model: Any) -> Any:
    """The file's float operators as 8-bit ones with ranges found at run time, or as 16-bit ones, if asked."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    asked: dict[str, list[str]] = {"dynamic": [], "float16": []}
    for node, precision in _precisions(model, quantization):
        asked.get(precision, []).append(node.name)
    if asked["dynamic"]:
        with tempfile.TemporaryDirectory(prefix="edgeloop-") as folder:
            import onnx

            target = Path(folder) / "dynamic.onnx"
            quantize_dynamic(
                made,
                target,
                op_types_to_quantize=list(WITH_WEIGHTS),
                nodes_to_quantize=asked["dynamic"],
                weight_type=QuantType.QInt8,
            )
            made = onnx.load(target)
    return in_float16(made, asked["float16"]) if asked["float16"] else made


def _told(
    model: Any, calibration: np.ndarray, quantization: Quantization
) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """What the quantizer is told of single tensors, and the nodes that it leaves in float."""
    if quantization.is_plain:
        return {}, []
    from onnxruntime.quantization import QuantType

    ranges = find_ranges(
        lambda: activation_values(model, calibration), quantization.calibration, quantization.percentile
    )
    if quantization.trained:
        shown = list(activation_values(model, calibration[:FINGERPRINT_SAMPLES]))
        ranges |= matched_ranges(quantization.trained, {n: fingerprint_of(v) for n, v in shown[0].items()})
    overrides: dict[str, list[dict[str, Any]]] = {
        name: [{"rmin": np.float32(low), "rmax": np.float32(high)}] for name, (low, high) in ranges.items()
    }
    excluded = []
    for node, precision in _precisions(model, quantization):
        if precision in ("float32", "dynamic", "float16"):
            excluded.append(node.name)
        elif precision == "int16x8":
            for name in (node.input[0], node.output[0]):
                overrides[name] = [overrides[name][0] | {"quant_type": QuantType.QUInt16}]
        elif precision == "int4":
            overrides[node.input[1]] = [{"quant_type": QuantType.QInt4, "symmetric": True}]
    return overrides, excluded


def _precisions(model: Any, quantization: Quantization) -> list[tuple[Any, str]]:
    if not quantization.precisions:
        return []
    nodes = list(model.graph.node)
    operators = [
        OperatorTime(
            name=node.name,
            operator=node.op_type,
            ms=0.0,
            inputs=tuple(node.input),
            outputs=tuple(node.output),
        )
        for node in nodes
    ]
    return list(zip(nodes, precision_of(operators, quantization, WITH_WEIGHTS), strict=True))


def _wide(model: Any) -> Any:
    """The model in the version of ONNX that has quantization operators of 4 and 16 bits."""
    from onnx import version_converter

    if next(each.version for each in model.opset_import if not each.domain) >= WIDE_OPSET:
        return model
    return version_converter.convert_version(model, WIDE_OPSET)


def _preprocessed(model: Any) -> Any:
    """The model with shapes inferred, as the quantizer wants it."""
    import onnx
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    # quant_pre_process would also run ONNX Runtime's own fusions; after `simplify` they changed neither node
    # nor latency of a ResNet-20, so shapes are inferred and the model is marked as prepared.
    prepared = onnx.shape_inference.infer_shapes(model)
    add_pre_process_metadata(prepared)
    return prepared


class _Batches:
    """A `CalibrationDataReader` by shape, which is all the quantizer asks for: one array in batches."""

    def __init__(self, name: str, samples: np.ndarray) -> None:
        self._batches: Iterator[dict[str, np.ndarray]] = (
            {name: np.ascontiguousarray(samples[start : start + BATCH])}
            for start in range(0, len(samples), BATCH)
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch, or None after the last."""
        return next(self._batches, None)


@contextmanager
def _root_logger_silent() -> Iterator[None]:
    """The quantizer advises on the root logger about nodes it skips; `float_operators` says it better."""
    logger = logging.getLogger()
    logger.addFilter(_no_advice)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeFilter(_no_advice)


def _no_advice(record: logging.LogRecord) -> bool:
    return record.levelno > logging.WARNING or "quantization" not in record.pathname
