"""Reads back what an exporter put into a file."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from exporters.base import ArtifactMetadata
from pipeline.errors import ExportError


def read_metadata(path: Path) -> ArtifactMetadata:
    """The metadata inside an ONNX or TFLite file that edgeloop wrote.

    Raises:
        ExportError: the file cannot be read, is damaged, or carries none.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ExportError(f"cannot read {path}: {error.strerror or error}") from error
    stored = _from_onnx(path, content) if path.suffix == ".onnx" else _from_tflite(path, content)
    if stored is None:
        raise ExportError(f"{path} carries no metadata of edgeloop; export it with edgeloop")
    try:
        return ArtifactMetadata.model_validate_json(stored)
    except ValidationError as error:
        raise ExportError(f"the metadata in {path} cannot be read: {error}") from error


def _from_onnx(path: Path, content: bytes) -> str | None:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    from exporters.onnx_graph import METADATA_KEY

    try:
        model = onnx.load_from_string(content)
    except DecodeError as error:
        raise ExportError(f"{path} is no ONNX file or is cut short: {error}") from error
    found: dict[str, str] = {entry.key: entry.value for entry in model.metadata_props}
    return found.get(METADATA_KEY)


def _from_tflite(path: Path, content: bytes) -> str | None:
    from exporters.tflite_graph import metadata_json, unpack

    try:
        return metadata_json(unpack(content))
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from error
