"""Export to ONNX: float32, or INT8 in QDQ form for ONNX Runtime."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from device_bench.errors import MissingExtraError
from device_bench.storage import write_whole
from exporters.base import Artifact, ArtifactMetadata, Precision, input_layout, sha256_of
from exporters.onnx_graph import float_operators, set_metadata_, simplify, tensor_infos
from exporters.onnx_int8 import quantize_int8
from exporters.quantization import PLAIN, Quantization
from exporters.quiet import captured_output
from pipeline.errors import ExportError

INPUT_NAME = "input"
OUTPUT_NAME = "output"
# Seven: a batch of 1 would be taken for a constant, and 7 is no width, head count or kernel size.
TRACE_BATCH = 7

# How the exporters' errors name an operator, how they say that it is unknown, and how torch names a line.
OPERATOR = re.compile(r"\b(?:aten|prims|torchvision)(?:\.|::)\w+(?:\.\w+)?")
UNSUPPORTED = re.compile(
    r"(?i)no .*function found|lowering not found|not supported|unsupported|not implemented"
)
LINE = re.compile(r"raised this error:\s+(File .*)")
ESCAPES = re.compile(r"\x1b\[\d+m")


class OnnxExporter:
    """Writes ONNX artifacts with a dynamic batch dimension, each in one self-contained file."""

    def export(
        self,
        module: torch.nn.Module,
        path: Path,
        precision: Precision,
        calibration: np.ndarray,
        metadata: ArtifactMetadata,
        quantization: Quantization = PLAIN,
    ) -> Artifact:
        """Write `module` to `path`; see `exporters.base.Exporter`.

        Raises:
            ExportError: an operator has no ONNX form.
            RunError: the file cannot be written.
        """
        model = to_float_onnx(module, calibration)
        if precision == "int8":
            model = quantize_int8(model, calibration, quantization)
        return write_onnx(model, path, precision, metadata)


def to_float_onnx(module: torch.nn.Module, samples: np.ndarray) -> Any:
    """The module as a simplified float `onnx.ModelProto`, batch norm folded, batch dimension dynamic.

    Args:
        module: takes one float32 input.
        samples: float32 [n, *input_shape]; the shape counts.

    Raises:
        ExportError: the module cannot be traced or an operator has no ONNX form; names it.
    """
    return simplify(raw_export(module, trace_input(samples)))


def trace_input(samples: np.ndarray) -> torch.Tensor:
    """A batch of `TRACE_BATCH` samples, repeated where there are fewer."""
    if len(samples) == 0:
        raise ExportError("an export needs at least one sample to trace the module with; got none")
    return torch.from_numpy(np.resize(samples, (TRACE_BATCH, *samples.shape[1:])).astype(np.float32))


def raw_export(module: torch.nn.Module, example: torch.Tensor) -> Any:
    """What torch.onnx gives before optimization: initializers bear the names of torch's parameters."""
    try:
        import onnxscript  # noqa: F401 -- torch.onnx needs it and says so only deep inside
    except ImportError as error:
        raise MissingExtraError("onnxscript", "pipeline") from error
    try:
        # On a failure torch prints the whole graph; what matters of it is in the error.
        with captured_output():
            program = torch.onnx.export(
                module.eval(),
                (example,),
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                optimize=False,
                verbose=False,
            )
    except Exception as error:
        raise ExportError(explain("ONNX", module, error)) from error
    return program.model_proto


def explain(form: str, module: torch.nn.Module, error: BaseException) -> str:
    """Why an export failed: the operator that has no such form, or the line of the model's code."""
    causes: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(f"{type(cause).__name__}: {ESCAPES.sub('', str(cause))}")
        cause = cause.__cause__
    model = type(module).__name__
    # The innermost cause speaks of the operator; the outer ones list what was tried.
    for words in reversed(causes):
        operator = OPERATOR.search(words)
        if operator and UNSUPPORTED.search(words):
            return (
                f"operator {operator.group(0).removesuffix('.default')} of {model} has no {form} form; "
                "replace it in the model by operators that have one"
            )
    said = causes[-1].strip().splitlines()[0]
    line = LINE.search(causes[-1])
    where = f" at {line.group(1)}" if line else ""
    return f"{model} cannot be exported to {form}{where}: {said}; change the code so that it can be traced"


def write_onnx(model: Any, path: Path, precision: Precision, metadata: ArtifactMetadata) -> Artifact:
    """Write a model with its metadata and describe the file.

    Raises:
        RunError: the file cannot be written.
    """
    set_metadata_(model, metadata)
    try:
        data = model.SerializeToString()
    except ValueError as error:
        raise ExportError(f"{path} would be larger than one ONNX file may be (2 GiB): {error}") from error
    write_whole(path, data)
    inputs = tensor_infos(model.graph.input)
    return Artifact(
        path=str(path),
        format="onnx",
        precision=precision,
        sha256=sha256_of(path),
        file_bytes=len(data),
        inputs=inputs,
        outputs=tensor_infos(model.graph.output),
        input_layout=input_layout(len(inputs[0].shape), channels_last=False),
        metadata=metadata,
        float_operators=float_operators(model) if precision == "int8" else (),
    )
