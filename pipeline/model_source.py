"""Which sources of a model are files, and of which kind."""

from __future__ import annotations

from pathlib import Path

from pipeline import zoo

ONNX = ".onnx"
KERAS_SUFFIXES = (".keras", ".h5")
SAVED_MODEL_FILE = "saved_model.pb"
# What an error tells of files, beside the names that are known.
FILES = ("a file ending in .onnx, .keras or .h5", "a SavedModel folder")


def is_onnx(source: str) -> bool:
    """Whether `source` names an ONNX file, there or not."""
    return source.endswith(ONNX)


def is_keras(source: str) -> bool:
    """Whether `source` names a Keras file, there or not, or is a SavedModel folder.

    The names of zoo networks are theirs, whatever folders there are.
    """
    if source.endswith(KERAS_SUFFIXES):
        return True
    return source not in zoo.MODELS and (Path(source) / SAVED_MODEL_FILE).is_file()


def is_path(source: str) -> bool:
    """Whether `source` names something on the disk, and not a zoo network or a callable."""
    return is_onnx(source) or is_keras(source)
