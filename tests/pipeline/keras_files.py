"""Writes Keras files of many kinds, and what each computes; TensorFlow is loaded here and not in the tests.

    python keras_files.py FOLDER

For each net: NAME.keras, and NAME.npz with samples `x`, channels first, and `y`, what the net gives for them,
before its softmax where it has one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}

import keras
import tensorflow as tf
from keras import layers


def pictures() -> Any:
    """Batch norms before and behind activations, a flattening, a softmax."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Rescaling(0.5),
            layers.Conv2D(8, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(12, 3, strides=2, padding="same", activation="relu"),
            layers.BatchNormalization(scale=False),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )


def inverted() -> Any:
    """Depthwise convolutions, a shortcut, squeeze and excitation, a number added behind a convolution."""
    taken = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 1, use_bias=False)(taken)
    y = layers.BatchNormalization(axis=3, center=False)(layers.Conv2D(16, 1, use_bias=False)(x))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(layers.ReLU(6.0)(y))
    y = layers.Activation("hard_swish")(layers.BatchNormalization()(y))
    s = layers.Reshape((1, 1, 16))(layers.GlobalAveragePooling2D()(y))
    s = layers.Conv2D(16, 1, activation="hard_sigmoid")(layers.Conv2D(4, 1, activation="relu")(s))
    x = layers.Add()([x, layers.Conv2D(8, 1)(layers.Multiply()([y, s]))])
    return keras.Model(taken, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def table() -> Any:
    """Numbers of a table, with statistics that Normalization keeps outside its weights; exact GELU."""
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Normalization(mean=[1.0] * 6, variance=[2.0] * 6),
            layers.Dense(12, activation="gelu"),
            layers.Dense(8, activation="relu"),
            layers.BatchNormalization(),
            layers.Dense(1),
        ]
    )


@keras.saving.register_keras_serializable("tests")
class Doubled(layers.Layer):
    """A layer that no other program knows."""

    def call(self, x: Any) -> Any:
        """[...] → the same shape."""
        return 2 * x


def _unsettled(model: Any) -> Any:
    """Batch norms as after a training, not as they begin."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return model


def main(folder: Path) -> None:
    """Write everything."""
    keras.utils.set_random_seed(0)
    for build in (pictures, inverted, table):
        model = _unsettled(build())
        model.save(folder / f"{build.__name__}.keras")
        x = np.random.default_rng(1).random((5, *model.inputs[0].shape[1:]), np.float32)
        y = model(x, training=False).numpy()
        # A softmax forgets what all logits have in common.
        y = np.log(y) if build is pictures else y
        np.savez(folder / f"{build.__name__}.npz", x=x.transpose(0, 3, 1, 2) if x.ndim == 4 else x, y=y)
        if build is pictures:
            model.save(folder / "pictures.h5")
            model.export(str(folder / "saved"), verbose=False)
    two = [keras.Input((4,)), keras.Input((4,))]
    one = keras.Input((4,))
    keras.Model(two, layers.Add()(two)).save(folder / "two_inputs.keras")
    keras.Model(one, [layers.Dense(2)(one), layers.Dense(3)(one)]).save(folder / "two_outputs.keras")
    keras.Sequential([one, layers.Lambda(lambda x: 2 * x)]).save(folder / "code.keras")
    keras.Sequential([one, layers.Lambda(lambda x: 2 * x)]).save(folder / "code.h5")
    keras.Sequential([one, Doubled()]).save(folder / "custom.keras")
    words = keras.Sequential([keras.Input((4,), dtype="int32"), layers.Embedding(9, 2), layers.Flatten()])
    words.save(folder / "words.keras")
    (folder / "no_zip.keras").write_text("not a model")
    (folder / "broken").mkdir()
    (folder / "broken" / "saved_model.pb").write_bytes(b"not a model")
    tf.saved_model.save(tf.Module(), str(folder / "bare"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
