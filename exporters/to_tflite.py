"""Export to TFLite: float32, or INT8 with int8 inputs and outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from device_bench.storage import write_whole
from exporters.base import Artifact, ArtifactMetadata, Precision, input_layout, sha256_of
from exporters.litert_library import ConversionError, convert, warm_up
from exporters.quantization import PLAIN, Quantization
from exporters.tflite_graph import float_operators, pack, set_metadata_, tensor_infos, unpack
from exporters.tflite_int8 import quantize_int8
from exporters.tflite_transposes import remove_transposes_
from exporters.to_onnx import explain, trace_input
from pipeline.errors import ExportError
from pipeline.methods.folding import fold_batch_norms

__all__ = ["TfliteExporter", "channels_last", "to_float_tflite", "warm_up", "write_tflite"]


class TfliteExporter:
    """Writes TFLite artifacts for one sample at a time; pictures come in channels last."""

    def export(
        self,
        module: torch.nn.Module,
        path: Path,
        precision: Precision,
        calibration: np.ndarray,
        metadata: ArtifactMetadata,
        quantization: Quantization = PLAIN,
    ) -> Artifact:
        """Write `module` to `path`; see `exporters.base.Exporter`. `calibration` is channels first.

        Raises:
            ExportError: an operator has no TFLite form.
            RunError: the file cannot be written.
        """
        content = to_float_tflite(module, calibration)
        if precision == "int8":
            content = quantize_int8(content, channels_last(calibration), quantization)
        return write_tflite(content, path, precision, metadata)


def to_float_tflite(module: torch.nn.Module, samples: np.ndarray) -> bytes:
    """The module as a float TFLite file without metadata, batch 1.

    Args:
        module: takes one float32 input, channels first; in evaluation mode.
        samples: float32 [n, *input_shape], channels first; the shape counts.

    Raises:
        ExportError: the module cannot be traced or an operator has no TFLite form; names it.
    """
    example = trace_input(samples)
    try:
        folded = fold_batch_norms(module, example)
        content = convert(folded, example[:1])
    except ConversionError as error:
        cause = error.__cause__ or error
        raise ExportError(f"{explain('TFLite', module, cause)}\n{error}".strip()) from cause
    model = unpack(content)
    remove_transposes_(model)
    return pack(model)


def channels_last(samples: np.ndarray) -> np.ndarray:
    """[n, c, h, w] → [n, h, w, c]; samples of another rank as they are. No copy is made."""
    return samples.transpose(0, 2, 3, 1) if samples.ndim == 4 else samples


def write_tflite(content: bytes, path: Path, precision: Precision, metadata: ArtifactMetadata) -> Artifact:
    """Write a TFLite file with its metadata and describe it.

    Raises:
        RunError: the file cannot be written.
    """
    model = unpack(content)
    set_metadata_(model, metadata)
    data = pack(model)
    write_whole(path, data)
    graph = model.subgraphs[0]
    inputs = tensor_infos(model, graph.inputs)
    return Artifact(
        path=str(path),
        format="tflite",
        precision=precision,
        sha256=sha256_of(path),
        file_bytes=len(data),
        inputs=inputs,
        outputs=tensor_infos(model, graph.outputs),
        input_layout=input_layout(len(inputs[0].shape), channels_last=True),
        metadata=metadata,
        float_operators=float_operators(model) if precision == "int8" else (),
    )
