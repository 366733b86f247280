"""From a Keras file or a SavedModel folder to an ONNX file; TensorFlow is loaded here and nowhere else.

    python -m pipeline.keras_conversion SOURCE TARGET.onnx SHAPE OUTCOME.json

A process of its own, for TensorFlow takes half a gigabyte, threads and the process's output for itself.
SHAPE is one sample of the data as edgeloop feeds it, such as "3,32,32"; OUTCOME says how it went.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ModelError
from pipeline.keras_graph import frozen_graph
from pipeline.keras_import import Outcome
from pipeline.keras_layout import channel_order
from pipeline.keras_reading import read_model
from pipeline.onnx_opset import OPSET

if TYPE_CHECKING:
    import onnx

# Keras may be set to another backend, and a GPU has nothing to do here.
SETTINGS = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}

Shape = tuple[int, ...]
# How far the ONNX file may be from the original for samples drawn at random, of the largest output.
TOLERANCE = 1e-2
# Characters of an error of TensorFlow's that are repeated; some hold the whole graph.
MOST_WORDS = 500


def convert(source: Path, target: Path, shape: Shape) -> bool:
    """Write the model of `source` to `target` as ONNX, for samples of `shape`.

    Returns:
        whether a softmax at its end was left out: what edgeloop trains and judges are logits.

    Raises:
        ModelError: the model cannot be read or converted, does not fit the samples, or has several inputs.
    """
    import onnx
    import tensorflow as tf
    import tf2onnx
    from tf2onnx.optimizer import back_to_back_optimizer

    taken, call = read_model(source)
    if taken.dtype != tf.float32 or taken.shape.rank is None:
        raise ModelError(
            f"{source} takes {taken.dtype.name} of shape {taken.shape}; edgeloop feeds float32 samples of a "
            "known number of dimensions: give the model such an input"
        )
    signature = tf.TensorSpec([None, *shape], tf.float32, name="x")
    function = tf.function(
        _ordered(call, channel_order(str(source), tuple(taken.shape[1:]), shape)), input_signature=[signature]
    ).get_concrete_function()
    if len(function.outputs) != 1 or function.outputs[0].dtype != tf.float32:
        given = ", ".join(f"{tensor.dtype.name} {tensor.shape}" for tensor in function.outputs)
        raise ModelError(f"{source} gives {given}; a model must give one float32 tensor")
    graph, first, last = frozen_graph(function)
    # A batch norm stays one: it is measured anew once a network is cut.
    back_to_back_optimizer._func_map.pop(("Conv", "BatchNormalization"), None)
    model, _ = tf2onnx.convert.from_graph_def(
        graph, input_names=[first], output_names=[last], opset=OPSET, name="keras"
    )
    _check_same(source, model, function, shape)
    without = _drop_softmax_(model.graph)
    onnx.save(model, target)
    return without


def _ordered(call: Callable[[Any], Any], order: Shape | None) -> Callable[[Any], Any]:
    """`call` for samples whose channels come first."""
    import tensorflow as tf

    return call if order is None else lambda x: call(tf.transpose(x, order))


def _check_same(source: Path, model: onnx.ModelProto, function: Any, shape: Shape) -> None:
    """Nothing, if the file computes what TensorFlow does."""
    import onnxruntime
    import tensorflow as tf

    samples = np.random.default_rng(0).random((2, *shape), np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (given,) = session.run(None, {session.get_inputs()[0].name: samples})
    wanted = function(tf.constant(samples))
    wanted = (wanted[0] if isinstance(wanted, list | tuple) else wanted).numpy()
    if given.shape != wanted.shape or np.abs(given - wanted).max() > TOLERANCE * np.abs(wanted).max():
        raise ModelError(
            f"{source} computes something else once it is ONNX; convert it yourself, and give the .onnx file"
        )


def _drop_softmax_(graph: onnx.GraphProto) -> bool:
    """Take a softmax at the end away; whether there was one."""
    last = next(node for node in graph.node if graph.output[0].name in node.output)
    makers = [node for node in graph.node if last.input[0] in node.output]
    if last.op_type != "Softmax" or len(makers) != 1:
        return False
    users = [node for node in graph.node if last.input[0] in node.input]
    if len(users) != 1:
        return False
    makers[0].output[list(makers[0].output).index(last.input[0])] = graph.output[0].name
    graph.node.remove(last)
    return True


def main(source: str, target: str, shape: str, outcome: str) -> None:
    """Convert, and write how it went to the file `outcome`."""
    os.environ |= SETTINGS
    sizes = tuple(int(size) for size in shape.split(",") if size)
    try:
        found = Outcome(without_softmax=convert(Path(source), Path(target), sizes))
    except ModelError as error:
        found = Outcome(refusal=str(error))
    except Exception as error:
        named = f"{type(error).__name__}: {' '.join(str(error).split())[:MOST_WORDS]}"
        found = Outcome(
            refusal=f"{source} cannot be converted to ONNX ({named}); convert it yourself, and give the "
            ".onnx file"
        )
    Path(outcome).write_text(found.model_dump_json())


if __name__ == "__main__":
    main(*sys.argv[1:])
