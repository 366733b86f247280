"""What an exporter is, and what it makes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from pydantic import Field

from device_bench.protocol import Record, TensorInfo
from exporters.quantization import PLAIN, Quantization
from pipeline.data.base import Preprocessing

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "int8"]
Layout = Literal["NCHW", "NHWC", "NC", "NCL"]


class ArtifactMetadata(Record):
    """What travels inside every artifact, so that a file alone can be used rightly.

    `heads`: how many of the outputs, and of `labels`, belong to each of several tasks; empty for one.
    `units`: layer → its unit, in the network's order, by which a profile of the file is told unit by unit.
    """

    plan_id: str = ""
    task_fingerprint: str = ""
    labels: tuple[str, ...] = ()
    heads: tuple[int, ...] = ()
    units: dict[str, str] = Field(default_factory=dict)
    preprocessing: Preprocessing = Preprocessing()


class Artifact(Record):
    """One exported file. `float_operators`: operators that stayed float in a file asked to be INT8."""

    path: str
    format: Literal["onnx", "tflite"]
    precision: Precision
    sha256: str
    file_bytes: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    input_layout: Layout
    metadata: ArtifactMetadata
    float_operators: tuple[str, ...] = ()


class Exporter(Protocol):
    """A back-end that writes artifacts. One instance serves many modules."""

    def export(
        self,
        module: torch.nn.Module,
        path: Path,
        precision: Precision,
        calibration: np.ndarray,
        metadata: ArtifactMetadata,
        quantization: Quantization = PLAIN,
    ) -> Artifact:
        """Write `module` (evaluation mode) to `path`.

        Args:
            calibration: preprocessed samples, float32 [n, *input_shape], n at least 1. "int8" sets its ranges
                by them; "float32" reads the shape and runs the first to trace the module.
            quantization: how the numbers of an "int8" file are stored.

        Raises:
            ExportError: the module cannot be exported; names the operator.
        """
        ...


def input_layout(rank: int, channels_last: bool) -> Layout:
    """How an input of that many dimensions, batch included, is laid out."""
    if rank == 4:
        return "NHWC" if channels_last else "NCHW"
    return "NCL" if rank == 3 else "NC"


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
