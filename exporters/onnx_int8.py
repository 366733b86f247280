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
from exporters.onnx_graph import INTEGER_OPERATORS
from pipeline.errors import ExportError

# Samples that run at a time: what calibration holds in memory does not grow with their number.
CALIBRATION_BATCH = 32


def quantize_int8(model: Any, calibration: np.ndarray) -> Any:
    """An INT8 copy of a float model: QDQ, int8 weights per channel, uint8 activations, min-max ranges.

    Activations are uint8 because ONNX Runtime's x86 provider has fused kernels (QLinearConv, QLinearAdd) for
    uint8 activations with int8 weights; with int8 activations it leaves most of the graph in float. On a
    ResNet-20, one thread: 0.226 ms against 0.572 ms (float 0.459 ms), accuracy the same.

    Args:
        model: a simplified float `onnx.ModelProto` with one input; not changed.
        calibration: preprocessed samples, float32 [n, *input_shape], n at least 1.

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
    with tempfile.TemporaryDirectory(prefix="edgeloop-") as folder, _root_logger_silent():
        target = Path(folder) / "int8.onnx"
        try:
            quantize_static(
                _preprocessed(model),
                target,
                _Batches(model.graph.input[0].name, calibration),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(INTEGER_OPERATORS),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
            )
        except OSError as error:
            raise ExportError(
                f"cannot write into {folder}: {error.strerror or error}; free some space"
            ) from error
        except Exception as error:
            raise ExportError(f"onnxruntime could not quantize the model: {error}") from error
        return onnx.load(target)


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
            {name: np.ascontiguousarray(samples[start : start + CALIBRATION_BATCH])}
            for start in range(0, len(samples), CALIBRATION_BATCH)
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
