"""A TensorFlow function as one frozen graph that tf2onnx reads: no variables, nothing captured.

For `pipeline.keras_conversion`, which runs in a process of its own: TensorFlow loads in these functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.keras_norms import restore_norms_

if TYPE_CHECKING:
    import tensorflow as tf

# Operators of two arguments that stay the same when a number is given as a vector of one.
SPREADING = ("Add", "AddV2", "Sub", "Mul", "RealDiv", "Maximum", "Minimum")


def frozen_graph(function: Any) -> tuple[tf.compat.v1.GraphDef, str, str]:
    """The graph of a concrete function of one argument and one result, with the names of both.

    Args:
        function: a `tf.types.experimental.ConcreteFunction`.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(function)
    graph = frozen.graph.as_graph_def()
    (taken, *captured), (given,) = frozen.inputs, frozen.outputs
    for node in graph.node:
        # Without variables no order has to be kept, and constants may wait for nothing.
        node.input[:] = [name for name in node.input if not name.startswith("^")]
    _set_captured_(graph, captured, frozen.captured_inputs)
    restore_norms_(graph, lambda name: frozen.graph.get_tensor_by_name(f"{name}:0").shape.rank)
    _spell_out_erfc_(graph)
    _widen_numbers_(graph, {node.name: node for node in graph.node})
    return graph, taken.name, given.name


def _set_captured_(graph: tf.compat.v1.GraphDef, inputs: list[Any], values: list[Any]) -> None:
    """Tensors that a layer keeps beside its weights (the statistics of Normalization) come as inputs."""
    nodes = {node.name: node for node in graph.node}
    for tensor, value in zip(inputs, values[len(values) - len(inputs) :], strict=True):
        nodes[tensor.op.name].CopyFrom(_constant(tensor.op.name, value.numpy()))


def _spell_out_erfc_(graph: tf.compat.v1.GraphDef) -> None:
    """ONNX knows erf and not 1 − erf, which the exact GELU of Keras is made of."""
    for node in [node for node in graph.node if node.op == "Erfc"]:
        erf = graph.node.add()
        erf.CopyFrom(node)
        erf.op, erf.name = "Erf", f"{node.name}/erf"
        one = f"{node.name}/one"
        graph.node.append(_constant(one, np.ones(1, np.float32)))
        node.op = "Sub"
        node.input[:] = [one, erf.name]


def _widen_numbers_(graph: tf.compat.v1.GraphDef, nodes: dict[str, Any]) -> None:
    """Give numbers in sums and products one dimension: tf2onnx gives up on transposes at one without."""
    for node in list(graph.node):
        if node.op not in SPREADING:
            continue
        for place, name in enumerate(node.input):
            number = _number(nodes.get(name))
            if number is None or _number(nodes.get(node.input[1 - place])) is not None:
                continue
            wide = f"{node.name}/number"
            graph.node.append(_constant(wide, number.reshape(1)))
            node.input[place] = wide


def _number(node: Any) -> np.ndarray | None:
    """The float that a node holds, if it is a constant without dimensions."""
    import tensorflow as tf

    if node is None or node.op != "Const" or node.attr["dtype"].type != tf.float32.as_datatype_enum:
        return None
    value: np.ndarray = tf.make_ndarray(node.attr["value"].tensor)
    return value if value.ndim == 0 else None


def _constant(name: str, value: np.ndarray) -> Any:
    import tensorflow as tf

    node = tf.compat.v1.NodeDef(name=name, op="Const")
    node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    return node
