"""Someone else's file, kept as ONNX in the run's folder: nothing of a run may depend on where it lay."""

from __future__ import annotations

import os
from pathlib import Path

from device_bench.storage import write_whole
from pipeline.keras_import import keras_to_onnx
from pipeline.model_source import is_keras, is_onnx
from pipeline.task import ModelSpec

SOURCE_FILE = "source.onnx"


def at_hand(spec: ModelSpec, run: Path) -> ModelSpec:
    """`spec` as this run loads it: from the copy that the run keeps, where it has one already."""
    copy = run / SOURCE_FILE
    return spec.model_copy(update={"source": str(copy)}) if copy.exists() else spec


def fetch_source(spec: ModelSpec, run: Path) -> None:
    """Convert a Keras source, once, into the run's folder.

    Raises:
        MissingExtraError: TensorFlow is not installed.
        ModelError: it cannot be converted.
    """
    if (run / SOURCE_FILE).exists() or not is_keras(spec.source):
        return
    converted = run / f"{SOURCE_FILE}.part"
    try:
        keras_to_onnx(Path(spec.source), spec.input_shape, converted)
        converted.replace(run / SOURCE_FILE)
    finally:
        converted.unlink(missing_ok=True)


def keep_source(spec: ModelSpec, run: Path) -> None:
    """Copy an ONNX source, which was loaded before, into the run's folder, its external data within.

    Raises:
        RunError: the folder cannot be written.
    """
    if not is_onnx(spec.source) or (run / SOURCE_FILE).exists():
        return
    import onnx

    write_whole(run / SOURCE_FILE, onnx.load(spec.source).SerializeToString())


def seen_from(spec: ModelSpec, run: Path, folder: Path) -> ModelSpec:
    """`spec` for a recipe in `folder`, a folder of the run: the copy by its way from there.

    So the whole run can be moved, and its modules are rebuilt all the same.
    """
    if not (run / SOURCE_FILE).exists():
        return spec
    return spec.model_copy(update={"source": os.path.relpath(run / SOURCE_FILE, folder)})
