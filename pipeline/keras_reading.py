"""The model in a Keras file or a SavedModel folder, as TensorFlow calls it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.model_source import KERAS_SUFFIXES


def read_model(source: Path) -> tuple[Any, Callable[[Any], Any]]:
    """What the model takes, as a `tf.TensorSpec`, and how to call it; no code that it may hold is run.

    Raises:
        ModelError: it cannot be read, needs code that Keras does not bring, or has several inputs.
    """
    return _keras_file(source) if source.name.endswith(KERAS_SUFFIXES) else _saved_model(source)


def _keras_file(source: Path) -> tuple[Any, Callable[[Any], Any]]:
    import keras
    import tensorflow as tf

    try:
        model = keras.saving.load_model(source, compile=False, safe_mode=True)
    except Exception as error:
        raise ModelError(_refusal(source, str(error))) from error
    if len(model.inputs) != 1:
        raise ModelError(f"{source} has {len(model.inputs)} inputs; a model must have one")
    taken = tf.TensorSpec(model.inputs[0].shape, model.inputs[0].dtype)
    return taken, lambda x: model(x, training=False)


def _refusal(source: Path, words: str) -> str:
    instead = "or export it as a graph, model.export('folder'), and give that folder"
    first = words.strip().splitlines()[0] if words.strip() else "without a word"
    if "lambda" in words.lower():
        return (
            f"{source} holds Python code in a Lambda layer, which is never run; use one of Keras's own "
            f"layers, {instead}"
        )
    custom = re.search(r"(?:Could not locate class|Unknown layer:) '([^']+)'", words)
    if custom is not None:
        named = f"{custom.group(1)}, a layer that Keras does not bring"
        return f"{source} needs {named}; use one of its own, {instead}"
    return f"{source} cannot be read as a Keras file ({first}); save it again by Keras 3, {instead}"


def _saved_model(source: Path) -> tuple[Any, Callable[[Any], Any]]:
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(source))
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"{source} cannot be read as a SavedModel ({first}); write it again by model.export('folder')"
        ) from error
    found = dict(loaded.signatures)
    function = found.get("serving_default") or (next(iter(found.values())) if len(found) == 1 else None)
    if function is None:
        named = ", ".join(sorted(found)) or "none"
        raise ModelError(
            f"{source} has the signatures: {named}; it must have one named serving_default: write it by "
            "model.export('folder')"
        )
    specs = function.structured_input_signature[1]
    if len(specs) != 1:
        raise ModelError(f"{source} has {len(specs)} inputs; a model must have one")
    ((name, spec),) = specs.items()
    # Kept alive by the function below: its variables go with it.
    return spec, lambda x, owner=loaded: list(function(**{name: x}).values())
