"""Keras nets on the digits: trained, made INT8 by TensorFlow's own converter, run by its interpreter.

    python benchmarks/keras_reference.py FOLDER

`benchmarks/keras_check.py` calls it, in a process of its own. FOLDER holds samples.npz and, for each net, is
given NET.keras, NET.tflite and predictions.npz; files NET.ours.tflite that lie there already are run too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}

import keras
import tensorflow as tf
from keras import layers
from keras_check import NETS, classes_by

EPOCHS, BATCH, SEED = 20, 32, 0


def plain() -> list[Any]:
    """Two convolutions, one with a batch norm, and a flattening."""
    return [
        layers.Conv2D(16, 3, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.MaxPooling2D(),
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(32, activation="relu"),
        layers.Dropout(0.2),
    ]


def separable() -> list[Any]:
    """Depthwise convolutions with batch norms and ReLU6, as MobileNet has them."""
    found: list[Any] = [layers.Conv2D(16, 3, padding="same", use_bias=False)]
    for width, stride in ((32, 1), (48, 2)):
        found += [layers.BatchNormalization(), layers.ReLU(6.0)]
        found += [layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False)]
        found += [layers.BatchNormalization(), layers.ReLU(6.0), layers.Conv2D(width, 1, use_bias=False)]
    return [*found, layers.BatchNormalization(), layers.ReLU(), layers.GlobalAveragePooling2D()]


def trained(body: Callable[[], list[Any]], x: np.ndarray, y: np.ndarray) -> Any:
    """The net, trained on samples [n, 8, 8, 1]."""
    keras.utils.set_random_seed(SEED)
    model = keras.Sequential([keras.Input(x.shape[1:]), *body(), layers.Dense(10, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=EPOCHS, batch_size=BATCH, verbose=0)
    return model


def int8_by_tensorflow(model: Any, folder: Path, calibration: np.ndarray) -> bytes:
    """A TFLite file that is INT8 throughout, its ranges set by `calibration` [n, 8, 8, 1]."""

    def samples() -> Iterator[list[np.ndarray]]:
        for sample in calibration:
            yield [sample[None]]

    model.export(str(folder), verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    content: bytes = converter.convert()
    return content


def main(folder: Path) -> None:
    """Train and convert what is not there yet, and run all files on the test samples."""
    data = np.load(folder / "samples.npz")
    found = {}
    for net in NETS:
        path = folder / f"{net}.keras"
        if not path.exists():
            model = trained({"plain": plain, "separable": separable}[net], data["x"], data["y"])
            model.save(path)
            content = int8_by_tensorflow(model, folder / net, data["calibration"])
            (folder / f"{net}.tflite").write_bytes(content)
        model = keras.models.load_model(path)
        found[f"{net} float"] = model.predict(data["test"], verbose=0).argmax(-1)
        for name in (f"{net}.tflite", f"{net}.ours.tflite"):
            if (folder / name).exists():
                interpreter = tf.lite.Interpreter(model_content=(folder / name).read_bytes())
                found[name] = classes_by(interpreter, data["test"])
    np.savez(folder / "predictions.npz", **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
